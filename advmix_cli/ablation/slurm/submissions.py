"""What has been submitted of a table: `.slurm/` beside its cells, a directory for each submission.

.slurm/.lock                who submits
.slurm/STAMP/tasks.json     which task is which cell
.slurm/STAMP/...            what submitit writes: its pickles, and a log for each task

Nothing of it says what a cell has found: a submission that is over can be removed.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from advmix_cli.errors import RunDirectoryError
from advmix_cli.files import read_text, write_atomically

DIRECTORY = ".slurm"
NAME = "tasks.json"
LONGEST = 2**24
"""Bytes."""


@dataclass(frozen=True)
class Submission:
    """`tasks` are SLURM's names of them ("12_0") by the name of the cell's directory."""

    directory: Path
    tasks: Mapping[str, str]

    def save(self) -> None:
        """For `submissions` to find."""
        write_atomically(self.directory / NAME, json.dumps(self.tasks, indent=2) + "\n")

    def log(self, cell: str) -> Path:
        """Where submitit and SLURM say what they did with a cell."""
        return self.directory / f"{self.tasks[cell]}_0_log.out"


def submissions(table: Path) -> list[Submission]:
    """Of the table whose cells lie in `table`, the oldest first; RunDirectoryError for one that cannot be read."""
    found: list[Submission] = []
    for path in sorted((table / DIRECTORY).glob(f"*/{NAME}")):
        try:
            tasks = TypeAdapter(dict[str, str]).validate_json(read_text(path, LONGEST), strict=True)
        except (OSError, ValueError):
            raise RunDirectoryError(
                f"{path} cannot be read, so that nothing is known of what was submitted; end those jobs with scancel, "
                f"and delete {path.parent}"
            ) from None
        found.append(Submission(path.parent, tasks))
    return found


def remove_over(found: Iterable[Submission], known: Iterable[str]) -> None:
    """The submissions none of whose tasks the scheduler knows."""
    known = set(known)
    for submission in found:
        if known.isdisjoint(submission.tasks.values()):
            with suppress(OSError):
                shutil.rmtree(submission.directory)
