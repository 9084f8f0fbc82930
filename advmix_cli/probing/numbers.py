"""What is said of many numbers at once, and of what has no number."""

from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class Undefined:
    """There is no such number, and why."""

    why: str

    def to_json(self) -> dict[str, Any]:
        """Says so."""
        return {"undefined": self.why}


@dataclass(frozen=True)
class Spread:
    """`n` numbers: their mean and their quantiles."""

    n: int
    mean: float
    quantiles: tuple[float, float, float, float, float]
    """At 0, 0.1, 0.5, 0.9 and 1."""

    @classmethod
    def of(cls, values: Tensor) -> "Spread":
        """Of (n,) numbers, n > 0."""
        values = values.detach().double().cpu()
        at = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
        low, tenth, median, ninetieth, high = values.quantile(at).tolist()
        return cls(len(values), float(values.mean()), (low, tenth, median, ninetieth, high))

    def to_json(self) -> dict[str, Any]:
        """Every number by its name."""
        names = ("min", "q10", "median", "q90", "max")
        return {"n": self.n, "mean": self.mean, **dict(zip(names, self.quantiles, strict=True))}


@dataclass(frozen=True)
class Share:
    """`count` of `n`, n > 0."""

    count: int
    n: int

    @classmethod
    def of(cls, chosen: Tensor) -> "Share":
        """Of the true ones among bools."""
        return cls(int(chosen.sum()), chosen.numel())

    @property
    def value(self) -> float:
        """A fraction."""
        return self.count / self.n

    def to_json(self) -> dict[str, Any]:
        """The counts with the fraction."""
        return {"share": self.value, "count": self.count, "n": self.n}


@dataclass(frozen=True)
class Paired:
    """How much larger numbers are than others of the same images: the mean difference, its 95% interval by Student's t,
    and for which share it is above zero."""

    mean: float
    low: float
    high: float
    larger: Share

    @classmethod
    def of(cls, ours: Tensor, theirs: Tensor) -> "Paired":
        """Of (n,) and (n,) numbers, n > 1."""
        difference = ours.detach().double().cpu() - theirs.detach().double().cpu()
        mean, n = float(difference.mean()), len(difference)
        half = float(stats.t.ppf(0.975, n - 1)) * float(difference.std()) / n**0.5
        return cls(mean, mean - half, mean + half, Share.of(difference > 0))

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "larger": self.larger.to_json()}
