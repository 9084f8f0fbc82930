"""What a run found, as results.json holds it."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from advmix_cli.errors import RunDirectoryError
from advmix_cli.evaluation.outcome import Outcome
from advmix_cli.files import write_atomically

NAME = "results.json"


@dataclass(frozen=True)
class Measured:
    """The outcomes of one set of weights. `selection` is "last", "best on validation" or "best on test"; `epoch` counts
    from 1."""

    selection: str
    epoch: int
    outcomes: tuple[Outcome, ...] = ()

    def outcome(self, name: str) -> Outcome | None:
        """That of the evaluator called `name`, if it has been measured."""
        return next((outcome for outcome in self.outcomes if outcome.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """As results.json has it."""
        outcomes = [outcome.to_json() for outcome in self.outcomes]
        return {"selection": self.selection, "epoch": self.epoch, "outcomes": outcomes}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(data["selection"], data["epoch"], tuple(Outcome.from_json(outcome) for outcome in data["outcomes"]))


@dataclass(frozen=True)
class Results:
    """`images` is the dataset's fingerprint. `seconds` are those of the training with its validation. `diverged` says
    where, if it did; then nothing was measured. `engine` is how the arithmetic of the training was done, and why."""

    title: str
    seed: int
    digest: str
    device: str
    versions: dict[str, str]
    epochs: int
    train_images: int
    seconds: float
    images: str = ""
    measured: tuple[Measured, ...] = ()
    diverged: str | None = None
    engine: str = ""
    finished: bool = False

    def of(self, selection: str) -> Measured | None:
        """What was measured of the weights chosen by `selection`; "best" finds both kinds of best."""
        return next((entry for entry in self.measured if entry.selection.startswith(selection)), None)

    def with_measured(self, entry: Measured) -> Self:
        """A copy in which `entry` replaces what was known of the same weights."""
        others = tuple(known for known in self.measured if known.selection != entry.selection)
        return replace(self, measured=(*others, entry))

    def to_json(self) -> dict[str, Any]:
        """As results.json has it."""
        return {**asdict(replace(self, measured=())), "measured": [entry.to_json() for entry in self.measured]}

    def save(self, directory: Path) -> None:
        """Write results.json, whole or not at all."""
        write_atomically(directory / NAME, json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, directory: Path) -> "Results | None":
        """Those of a run directory, or None if there are none yet; RunDirectoryError if they cannot be read."""
        path = directory / NAME
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**data, "measured": tuple(Measured.from_json(entry) for entry in data["measured"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            raise RunDirectoryError(f"{path} is damaged; delete it to measure again, or choose another --out") from None
