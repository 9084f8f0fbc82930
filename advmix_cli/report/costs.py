"""FLOPs, bytes and seconds for a person, with three digits."""

import math
from collections.abc import Sequence


def flops(count: float) -> str:
    """0.722 PFLOP."""
    unit, (number,) = flops_alike([count])
    return f"{number} {unit}"


def flops_alike(counts: Sequence[float]) -> tuple[str, list[str]]:
    """A unit for all of them, and the numbers in it: "PFLOP", ["0.543", "0.163"]."""
    prefix, factor = _prefix(max(counts), "kMGTP")
    return f"{prefix}FLOP", [three_digits(count / factor) for count in counts]


def size(count: float) -> str:
    """Bytes, in powers of a thousand: 2.86 GB."""
    prefix, factor = _prefix(count, "kMGT")
    return f"{three_digits(count / factor)} {prefix}B"


def duration(seconds: float) -> str:
    """4.70 ms, 9.26 s, 62.5 min, 2.02 h."""
    units = ((1.0, 1e-3, "ms"), (100.0, 1.0, "s"), (6000.0, 60.0, "min"))
    factor, unit = next(((factor, unit) for below, factor, unit in units if seconds < below), (3600.0, "h"))
    return f"{three_digits(seconds / factor)} {unit}"


def _prefix(count: float, prefixes: str) -> tuple[str, float]:
    """The largest of them that leaves a tenth or more, and what it stands for."""
    fitting = [("", 1.0), *((name, 1000.0**power) for power, name in enumerate(prefixes, 1))]
    return next((one for one in reversed(fitting) if count >= 0.1 * one[1]), fitting[0])


def three_digits(value: float) -> str:
    """0.722, 15.3, 2,995; a whole number below ten too: 3.00."""
    decimals = max(0, 2 - math.floor(math.log10(value))) if value else 0
    return f"{value:,.{decimals}f}"
