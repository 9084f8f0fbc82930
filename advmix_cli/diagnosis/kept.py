"""A diagnosis in a file, for reports."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from advmix_cli.diagnosis.battery import Check
from advmix_cli.diagnosis.diagnose import Diagnosis
from advmix_cli.errors import RunDirectoryError
from advmix_cli.files import read_text, write_atomically
from advmix_cli.seals import sealed, unsealed

NAME = "diagnosis.json"
LONGEST = 2**24
"""Bytes."""


@dataclass(frozen=True)
class _File:
    version: Literal[1]
    weights: str
    n: int
    classes: int
    epsilon: float
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Kept:
    """A `diagnosis` of the network whose `weights` have this digest."""

    diagnosis: Diagnosis
    weights: str

    def save(self, directory: Path) -> Path:
        """Write diagnosis.json, whole or not at all."""
        checks: list[dict[str, Any]] = [vars(check) for check in self.diagnosis.checks]
        document = {"version": 1, "weights": self.weights, **self.diagnosis._asdict(), "checks": checks}
        write_atomically(directory / NAME, json.dumps(sealed(document), indent=2, ensure_ascii=False) + "\n")
        return directory / NAME

    @classmethod
    def load(cls, directory: Path) -> "Kept | None":
        """That of a directory, or None if there is none; RunDirectoryError if it cannot be read."""
        path = directory / NAME
        try:
            document = unsealed(json.loads(read_text(path, LONGEST)))
            file = TypeAdapter(_File).validate_json(json.dumps(document), strict=True)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunDirectoryError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise RunDirectoryError(
                f"{path} is damaged or was changed; advmix eval --diagnose --save {directory} makes it anew"
            ) from None
        return cls(Diagnosis(file.checks, file.n, file.classes, file.epsilon), file.weights)
