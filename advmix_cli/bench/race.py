"""Interleaved measurements: in every round each arm runs, in an order that rotates, so that what slows the machine
down for a while slows all of them down."""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from advmix_cli import clock
from advmix_cli.errors import StoppedError

TOGETHER = 0.5
"""Seconds that the batches which are timed together take the fastest arm."""


class Spread(NamedTuple):
    """The median of the rounds, and the smallest and largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Of one value a round."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Race:
    """`seconds` a batch: of each arm, in each round. `batches` were timed together. `stopped` before all rounds."""

    seconds: Mapping[str, list[float]]
    batches: int
    stopped: StoppedError | None = None

    @property
    def rounds(self) -> int:
        """Those that are whole."""
        return len(next(iter(self.seconds.values())))

    def spread(self, arm: str) -> Spread:
        """Seconds a batch."""
        return Spread.of(self.seconds[arm])

    def ratio(self, slow: str, fast: str) -> Spread:
        """How many times as long `slow` takes, round by round."""
        pairs = zip(self.seconds[slow], self.seconds[fast], strict=True)
        return Spread.of([one / other for one, other in pairs])


def race(arms: Mapping[str, Callable[[], object]], device: torch.device, rounds: int, tick: Callable[[], None]) -> Race:
    """Time the arms, each a function that does one batch, after two batches of each that are not counted.

    So many batches are timed together that the fastest arm takes TOGETHER, and at most 50. Who stops it is given the
    rounds that are whole; StoppedError if there is none.
    """
    names = list(arms)
    for name in names:
        arms[name]()
    fastest = min(clock.seconds(arms[name], device, 1) for name in names)
    batches = max(1, min(50, math.ceil(TOGETHER / fastest)))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    try:
        for number in range(rounds):
            start = number % len(names)
            for name in names[start:] + names[:start]:
                seconds[name].append(clock.seconds(arms[name], device, batches) / batches)
                tick()
    except StoppedError as stopped:
        whole = min(map(len, seconds.values()))
        if not whole:
            raise
        return Race({name: values[:whole] for name, values in seconds.items()}, batches, stopped)
    return Race(seconds, batches)
