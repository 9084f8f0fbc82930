"""Why a run was given up, as failure.json in its directory says."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from advmix_cli.errors import RunDirectoryError, printable
from advmix_cli.files import read_text, write_atomically
from advmix_cli.rundir import FAILURE

LONGEST = 2**20
"""Bytes."""


@dataclass(frozen=True)
class Failure:
    """The last of so many attempts ended with `exit_code`, below 0 by a signal, and `error` was the last it said."""

    attempts: int
    exit_code: int
    error: str

    def __str__(self) -> str:
        count = f"{self.attempts} attempts" if self.attempts > 1 else "1 attempt"
        return printable(f"{self.error} (exit code {self.exit_code}, {count})")

    def save(self, directory: Path) -> None:
        """Mark the run in `directory`; whoever tries it again removes the mark."""
        write_atomically(directory / FAILURE, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


def failure(directory: Path) -> Failure | None:
    """That of the run in `directory`, if it was given up; RunDirectoryError if that cannot be read."""
    path = directory / FAILURE
    try:
        return TypeAdapter(Failure).validate_json(read_text(path, LONGEST), strict=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise RunDirectoryError(f"{path} is damaged; delete it") from None
