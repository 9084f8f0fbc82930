"""What a measurement found."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

from pydantic import TypeAdapter
from torch import Tensor

from advmix_cli import tensors
from advmix_cli.data.images import Images
from advmix_cli.evaluation.notebook import Notebook
from advmix_cli.evaluation.significance import Interval, wilson
from advmix_cli.evaluation.subject import Subject
from advmix_cli.evaluation.verdicts import Verdicts

Tick = Callable[[int, str], None]
"""Called with the images that are done since the last call, and a note for the progress display."""


class Evaluator(Protocol):
    """A frozen dataclass whose `settings` say all that its numbers depend on."""

    def settings(self, classes: int) -> dict[str, Any]:
        """Stamped on the result."""
        ...

    @property
    def batch_size(self) -> int:
        """Images that are looked at together."""
        ...

    def passes(self, classes: int) -> int:
        """Network passes an image, if nothing breaks it before the end; a gradient in the image counts as one more."""
        ...

    def __call__(self, subject: Subject, images: Images, tick: Tick, notes: Notebook) -> Verdicts:
        """The network is in eval mode. What takes its time is looked at through `notes`."""
        ...


@dataclass(frozen=True)
class Outcome:
    """`correct` of `n` images, in `seconds`, on `machine`; `broken`: how many of the others were wrong as they are
    ("clean"), and how many each attack broke that had stood until then. `verdicts` is the digest of those on each
    image. Accuracies are fractions."""

    name: str
    n: int
    correct: int
    broken: dict[str, int]
    seconds: float
    settings: dict[str, Any]
    machine: dict[str, str]
    verdicts: str

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.n or not self.n or self.seconds < 0:
            raise ValueError(f"{self.correct} of {self.n} in {self.seconds} s is no outcome")
        if min(self.broken.values()) < 0 or self.correct + sum(self.broken.values()) != self.n:
            raise ValueError(f"{self.correct} right and {self.broken} broken are not {self.n}")

    @property
    def accuracy(self) -> float:
        """correct / n."""
        return self.correct / self.n

    @property
    def interval(self) -> Interval:
        """Wilson's 95% interval of the accuracy."""
        return wilson(self.correct, self.n)

    def to_json(self) -> dict[str, Any]:
        """As results.json has it."""
        low, high = self.interval
        return {
            "name": self.name,
            "n": self.n,
            "correct": self.correct,
            "accuracy": self.accuracy,
            "low": low,
            "high": high,
            "broken": self.broken,
            "seconds": self.seconds,
            "settings": self.settings,
            "machine": self.machine,
            "verdicts": self.verdicts,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Outcome":
        """The inverse of `to_json`; what can be derived is derived again. ValueError for what is no outcome."""
        stored = {name: data[name] for name in cls.__dataclass_fields__}
        return TypeAdapter(cls).validate_json(json.dumps(stored), strict=True)


class Evaluated(NamedTuple):
    """An outcome, the verdicts that it sums up, and the `labels` (N,) int64 of the images; all on the CPU."""

    outcome: Outcome
    verdicts: Verdicts
    labels: Tensor

    @classmethod
    def of(
        cls, name: str, verdicts: Verdicts, labels: Tensor, seconds: float, settings: dict[str, Any],
        machine: dict[str, str],
    ) -> Self:  # fmt: skip
        """With the outcome that sums up `verdicts`."""
        n, correct, broken = len(labels), int(verdicts.robust.sum()), verdicts.broken()
        verdicts, labels = verdicts.cpu(), labels.cpu()
        digest = tensors.digest(_tensors(verdicts, labels))
        return cls(Outcome(name, n, correct, broken, round(seconds, 3), settings, machine, digest), verdicts, labels)

    def tensors(self) -> dict[str, Tensor]:
        """What `outcome.verdicts` is the digest of."""
        return _tensors(self.verdicts, self.labels)


def _tensors(verdicts: Verdicts, labels: Tensor) -> dict[str, Tensor]:
    named = {"clean": verdicts.clean, "broken_by": verdicts.broken_by, "margin": verdicts.margin}
    return {**named, "labels": labels}
