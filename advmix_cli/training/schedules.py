"""The learning rate as a pure function: the fraction of the training that is done, in [0, 1), -> a factor."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Steps:
    """Multiplied by `factor` from each of the `drops` on."""

    drops: Sequence[float]
    factor: float

    def __call__(self, progress: float) -> float:
        # A drop written as a product, such as 3 * 0.1, is an ulp above the epoch that it means.
        return self.factor ** sum(progress >= drop - 1e-9 for drop in self.drops)


@dataclass(frozen=True)
class Cosine:
    """Linear from 0 during `warmup`, then half a cosine from 1 down to `final`."""

    warmup: float
    final: float

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        done = (progress - self.warmup) / (1 - self.warmup)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class OneCycle:
    """Linear from `initial` up to 1 at `peak`, then linear down to `final`."""

    peak: float
    initial: float
    final: float

    def __call__(self, progress: float) -> float:
        if progress < self.peak:
            return self.initial + (1 - self.initial) * progress / self.peak
        return 1 - (1 - self.final) * (progress - self.peak) / (1 - self.peak)
