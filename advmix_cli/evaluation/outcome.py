"""What a measurement found."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import TypeAdapter
from scipy.stats import binomtest
from torch import Tensor

from advmix_cli.data.images import Images
from advmix_cli.evaluation.notebook import Notebook
from advmix_cli.evaluation.subject import Subject

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

    def __call__(self, subject: Subject, images: Images, tick: Tick, notes: Notebook) -> Tensor:
        """(N,) bool: the image is classified correctly, whatever is done to it here. The network is in eval mode. What
        takes its time is looked at through `notes`."""
        ...


@dataclass(frozen=True)
class Outcome:
    """`correct` of `n` images, in `seconds`, on `machine`. Accuracies are fractions."""

    name: str
    n: int
    correct: int
    seconds: float
    settings: dict[str, Any]
    machine: dict[str, str]

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.n or not self.n or self.seconds < 0:
            raise ValueError(f"{self.correct} of {self.n} in {self.seconds} s is no outcome")

    @property
    def accuracy(self) -> float:
        """correct / n."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the accuracy."""
        interval = binomtest(self.correct, self.n).proportion_ci(0.95, method="wilson")
        return float(interval.low), float(interval.high)

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
            "seconds": round(self.seconds, 3),
            "settings": self.settings,
            "machine": self.machine,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Outcome":
        """The inverse of `to_json`; what can be derived is derived again. ValueError for what is no outcome."""
        stored = {name: data[name] for name in ("name", "n", "correct", "seconds", "settings", "machine")}
        return TypeAdapter(cls).validate_json(json.dumps(stored), strict=True)
