"""A training that collapses: within an epoch the accuracy under attack falls by half, as that of fast adversarial
training does when it has learned to hide its gradients (Wong et al., 2020; "catastrophic overfitting").
"""

import json
from collections.abc import Sequence
from typing import Any

ACCURACY = "validation_pgd_accuracy"


def before(lines: Sequence[str]) -> float | None:
    """The accuracy under attack of the weights that the next epoch begins with, by the lines of the epochs so far; None
    if there is none."""
    if not lines:
        return None
    last = json.loads(lines[-1])
    if "rolled_back_to" in last:
        last = json.loads(lines[int(last["rolled_back_to"]) - 1])
    return last.get(ACCURACY)


def is_collapse(before: float | None, after: float | None, classes: int) -> bool:
    """To half or less, from more than twice chance, or half way between chance and 1 where that is less."""
    floor = min(2 / classes, (1 + 1 / classes) / 2)
    return before is not None and after is not None and before > floor and after <= before / 2


def epochs(lines: Sequence[str]) -> tuple[int, ...]:
    """Those that collapsed."""
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return tuple(line["epoch"] for line in found if line.get("collapsed"))
