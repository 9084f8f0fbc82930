"""The rows of a plan: what is counted of each, and what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from advmix_cli.plan.estimate import Estimate, estimates
from advmix_cli.plan.forecast import Forecast, forecast
from advmix_cli.plan.probe import probes
from advmix_cli.recipe.table import Row
from advmix_cli.report.progress import Watcher


@dataclass(frozen=True)
class Line:
    """What is known of a row; the forecast is there if it was probed."""

    row: Row
    estimate: Estimate
    forecast: Forecast | None


@dataclass(frozen=True)
class Totals:
    """Over all rows, each run once; seconds are there if they were probed, those of the evaluation at most."""

    epochs: int
    training_flops: int
    training_seconds: float | None
    evaluation_seconds: float | None


def plan_lines(rows: Sequence[Row], place: torch.device | None, watch: Watcher) -> list[Line]:
    """One for each row; with a `place` they are probed there."""
    counted = estimates([row.recipe for row in rows], watch.say)
    if place is None:
        return [Line(row, estimate, None) for row, estimate in zip(rows, counted, strict=True)]
    return [
        Line(row, estimate, forecast(row, estimate, probe))
        for row, estimate, probe in zip(rows, counted, probes(rows, counted, place, watch), strict=True)
    ]


def totals(lines: Sequence[Line]) -> Totals:
    """All rows are probed, or none is."""
    found = [line.forecast for line in lines if line.forecast]
    return Totals(
        epochs=sum(line.estimate.cost.epochs for line in lines),
        training_flops=sum(line.estimate.cost.training for line in lines),
        training_seconds=sum(one.training for one in found) if found else None,
        evaluation_seconds=sum(one.evaluation for one in found) if found else None,
    )
