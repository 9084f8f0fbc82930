"""metrics.jsonl, read back: a line an epoch."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from advmix_cli.files import read_bytes
from advmix_cli.rundir import LONGEST_METRICS

ROBUST, PRISTINE, AVERAGE = "validation_pgd_accuracy", "validation_accuracy", "average_"
NUMBERS = (
    "loss", "lr", "ratio", "inner_loss_before", "inner_loss_after",
    PRISTINE, ROBUST, AVERAGE + PRISTINE, AVERAGE + ROBUST,
)  # fmt: skip
"""What of a line is a curve."""

Epochs = tuple[dict[str, Any], ...]
"""Those of a training so far, the first one first."""


class Read(NamedTuple):
    """The `epochs` up to what cannot be read, and what that is."""

    epochs: Epochs
    damage: str = ""


def read(path: Path) -> Read:
    """A line without its end is still being written, and is none. A file that is not there has no epochs."""
    try:
        lines = read_bytes(path, LONGEST_METRICS).split(b"\n")[:-1]
    except FileNotFoundError:
        return Read(())
    except (OSError, ValueError) as error:
        return Read((), f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")
    found: list[dict[str, Any]] = []
    for number, text in enumerate(lines, 1):
        try:
            found.append(epoch(text, number))
        except (ValueError, RecursionError):
            left_out = "it is left out" if number == len(lines) else "it and those after it are left out"
            return Read(tuple(found), f"{path}:{number}: damaged: this is not epoch {number}; {left_out}")
    return Read(tuple(found))


def epoch(text: bytes, number: int) -> dict[str, Any]:
    """The line of that epoch; ValueError or RecursionError if `text` is none."""
    line = json.loads(text)
    if not isinstance(line, dict) or line.get("epoch") != number:
        raise ValueError("another epoch, or none")
    if "loss" not in line:
        raise ValueError("no loss")
    if not all(_is_number(line[name]) for name in NUMBERS if name in line):
        raise ValueError("not a number")
    return line


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300 and math.isfinite(value)
    )


def curve(epochs: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """The epochs that have a number, and it."""
    having = [line for line in epochs if name in line]
    return [line["epoch"] for line in having], [float(line[name]) for line in having]


class Gap(NamedTuple):
    """The best epoch by an accuracy, the first of equals, and the last one; accuracies are fractions."""

    best: int
    highest: float
    last: int
    final: float

    @property
    def value(self) -> float:
        """How much better the best one is."""
        return self.highest - self.final


def gap(epochs: Sequence[dict[str, Any]], name: str) -> Gap | None:
    """Of robust overfitting, by a validation accuracy; None if there is none."""
    numbers, values = curve(epochs, name)
    if not values:
        return None
    highest = max(values)
    return Gap(numbers[values.index(highest)], highest, numbers[-1], values[-1])


def drops(epochs: Sequence[dict[str, Any]]) -> list[int]:
    """The epochs that began with half of the learning rate or less, after it had been constant: steps of a schedule,
    and no slope."""
    numbers, rates = curve(epochs, "lr")
    return [
        numbers[at]
        for at in range(1, len(rates))
        if rates[at] <= rates[at - 1] / 2 and (at == 1 or math.isclose(rates[at - 1], rates[at - 2]))
    ]


def collapsed(epochs: Sequence[dict[str, Any]]) -> list[int]:
    """The epochs in which the accuracy under attack fell by half."""
    return [line["epoch"] for line in epochs if line.get("collapsed") is True]


def collapsed_in(epochs: Sequence[int]) -> str:
    """What happened in these."""
    numbers = f"epoch{'s' if len(epochs) > 1 else ''} {', '.join(map(str, epochs))}"
    return f"the validation's accuracy under attack fell by half in {numbers}"
