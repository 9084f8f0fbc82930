"""What has been submitted of a table: `.slurm/` beside its cells, a directory for each submission.

.slurm/.lock                who submits
.slurm/STAMP/tasks.json     which task is which cell, and of which cluster
.slurm/STAMP/...            what submitit writes: its pickles, and a log for each task

Nothing of it says what a cell has found: a submission that is over can be removed.
"""

import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, TypeAdapter

from advmix_cli.errors import RunDirectoryError
from advmix_cli.files import read_text, write_atomically

DIRECTORY = ".slurm"
NAME = "tasks.json"
LONGEST = 2**24
"""Bytes."""


class _Record(BaseModel):
    """What tasks.json holds; before there was a name of the cluster in it, only `tasks`."""

    cluster: str | None
    tasks: dict[str, str]


@dataclass(frozen=True)
class Submission:
    """`tasks` are SLURM's names of them ("12_0") by the name of the cell's directory, and mean something on `cluster`
    alone; records of before do not know its name."""

    directory: Path
    tasks: Mapping[str, str]
    cluster: str | None = None

    def save(self) -> None:
        """For `submissions` to find."""
        record = _Record(cluster=self.cluster, tasks=dict(self.tasks))
        write_atomically(self.directory / NAME, record.model_dump_json(indent=2) + "\n")

    @property
    def jobs(self) -> str:
        """Their numbers, as scancel takes them."""
        return " ".join(dict.fromkeys(task.partition("_")[0] for task in self.tasks.values()))

    def elsewhere(self, here: str | None) -> bool:
        """Whether it is another cluster's than that called `here`."""
        return None not in (self.cluster, here) and self.cluster != here

    def log(self, cell: str) -> Path:
        """Where submitit and SLURM say what they did with a cell."""
        return self.directory / f"{self.tasks[cell]}_0_log.out"


def submissions(table: Path) -> list[Submission]:
    """Of the table whose cells lie in `table`, the oldest first; RunDirectoryError for one that cannot be read."""
    found: list[Submission] = []
    for path in sorted((table / DIRECTORY).glob(f"*/{NAME}")):
        try:
            record = TypeAdapter(_Record | dict[str, str]).validate_json(read_text(path, LONGEST), strict=True)
        except (OSError, ValueError):
            raise RunDirectoryError(
                f"{path} cannot be read, so that nothing is known of what was submitted; end those jobs with scancel, "
                f"and delete {path.parent}"
            ) from None
        if isinstance(record, _Record):
            found.append(Submission(path.parent, record.tasks, record.cluster))
        else:
            found.append(Submission(path.parent, record))
    return found


def remove_over(found: Iterable[Submission], known: Iterable[str], here: str | None) -> None:
    """The submissions none of whose tasks the scheduler knows, which is the cluster's called `here`."""
    known = set(known)
    for submission in found:
        if known.isdisjoint(submission.tasks.values()) and not submission.elsewhere(here):
            with suppress(OSError):
                shutil.rmtree(submission.directory)
