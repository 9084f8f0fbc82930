"""What a run found, as results.json holds it."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from advmix_cli.errors import RunDirectoryError
from advmix_cli.evaluation.outcome import Outcome
from advmix_cli.files import read_text, write_atomically
from advmix_cli.machine import Machine
from advmix_cli.rundir import LONGEST_RESULTS, RESULTS
from advmix_cli.seals import sealed, unsealed


@dataclass(frozen=True)
class Measured:
    """The outcomes of one set of weights. `selection` is a checkpoint's: "last", "averaged best on test"; `epoch`
    counts from 1; `weights` is their digest."""

    selection: str
    epoch: int
    weights: str
    outcomes: tuple[Outcome, ...] = ()

    def outcome(self, name: str) -> Outcome | None:
        """That of the evaluator called `name`, if it has been measured."""
        return next((outcome for outcome in self.outcomes if outcome.name == name), None)

    @property
    def test_selected(self) -> bool:
        """Whether the epoch was chosen on test images, so that its accuracy on them is too high."""
        return self.selection.endswith("best on test")

    def to_json(self) -> dict[str, Any]:
        """As results.json has it; what can be derived is derived again when it is read."""
        outcomes = [outcome.to_json() for outcome in self.outcomes]
        return {
            "selection": self.selection,
            "test_selected": self.test_selected,
            "epoch": self.epoch,
            "weights": self.weights,
            "outcomes": outcomes,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        outcomes = tuple(Outcome.from_json(outcome) for outcome in data["outcomes"])
        return replace(
            TypeAdapter(cls).validate_json(json.dumps({**data, "outcomes": []}), strict=True), outcomes=outcomes
        )


@dataclass(frozen=True)
class Results:
    """`images` are the fingerprints of the dataset. `machines` are those that trained, each from a batch of an epoch
    on: device, versions, engine; with more than one, the numbers are not bit for bit those of any. `seconds` are those
    of the training with its validation. `collapsed` are the epochs in which the accuracy under attack fell by half.
    `diverged` says where, if it did; then nothing was measured."""

    title: str
    seed: int
    digest: str
    epochs: int
    train_images: int
    images: dict[str, str]
    machines: tuple[Machine, ...] = ()
    seconds: float = 0.0
    measured: tuple[Measured, ...] = ()
    collapsed: tuple[int, ...] = ()
    diverged: str | None = None
    finished: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do: all was measured, or nothing can be."""
        return self.finished or bool(self.diverged)

    def of(self, selection: str) -> Measured | None:
        """What was measured of the weights chosen by `selection`; "best" finds both kinds of best, of the weights as
        they were trained."""
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
        text = json.dumps(sealed(self.to_json()), indent=2, ensure_ascii=False)
        write_atomically(directory / RESULTS, text + "\n")

    @classmethod
    def load(cls, directory: Path) -> "Results | None":
        """Those of a run directory, or None if there are none yet; RunDirectoryError if they cannot be read."""
        path = directory / RESULTS
        try:
            data = unsealed(json.loads(read_text(path, LONGEST_RESULTS)))
            known = TypeAdapter(cls).validate_json(json.dumps({**data, "measured": []}), strict=True)
            return replace(known, measured=tuple(Measured.from_json(entry) for entry in data["measured"]))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunDirectoryError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise RunDirectoryError(
                f"{path} is damaged or was changed; delete it to measure again, or choose another --out"
            ) from None
