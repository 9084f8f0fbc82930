"""How long a piece of work takes on a device."""

import statistics
import time
from collections.abc import Callable

import torch

from advmix_cli.clock import seconds

ROUND = 0.2
"""Seconds that the calls of a round take together, at least."""

SECONDS = 10.0
"""After which no further round starts."""


def median_seconds(work: Callable[[], object], place: torch.device, *, rounds: int = 5) -> float:
    """Of one call of `work`: the median over at most `rounds` rounds of ROUND or more, warmed up before.

    A round is many calls and one wait for the device, as an epoch is. Slow work gets fewer rounds, and at least one.
    """
    # The first call also builds, loads and chooses what the work needs.
    once = seconds(work, place, calls=1)
    if once < SECONDS:
        once = seconds(work, place, calls=1)
    calls = max(1, min(1000, round(ROUND / once)))
    found: list[float] = []
    started = time.perf_counter()
    while not found or (len(found) < rounds and time.perf_counter() - started < SECONDS):
        found.append(seconds(work, place, calls=calls) / calls)
    return statistics.median(found)
