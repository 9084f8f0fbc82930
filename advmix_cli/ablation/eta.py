"""How long runs will still take, by what their own files and those of runs like them say; never by a guess."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from advmix_cli.ablation.standing import Standing
from advmix_cli.recipe.schema import Evaluator, Recipe

Run = tuple[Recipe, Standing]


@dataclass(frozen=True)
class Eta:
    """So many seconds; `at_least`: of a part nothing is known yet, so that it comes on top."""

    seconds: float
    at_least: bool = False

    def __str__(self) -> str:
        """ "> 1:05:10", as a clock that runs down."""
        minutes, rest = divmod(round(self.seconds), 60)
        hours, minutes = divmod(minutes, 60)
        days, hours = divmod(hours, 24)
        clock = f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
        shown = f"{days} d {hours} h" if days else clock
        return f"> {shown}" if self.at_least else shown


def etas(runs: Sequence[Run]) -> list[Eta | None]:
    """What is left of each; None where nothing is known of its training yet. Runs that have ended or that were given up
    have nothing left.

    The pace of a run that has none of its own is that of one like it, by the network passes of an epoch; an evaluator
    takes what it took on one like it.
    """
    return [_eta(recipe, found, runs) for recipe, found in runs]


def total(runs: Sequence[Run], jobs: int) -> Eta | None:
    """Until the last of them is done, with `jobs` of them at a time, in this order, those first that run; None while
    anything is unknown. Starting a process is not counted."""
    left = etas(runs)
    if not jobs or any(one is None for one in left):
        return None
    known = [one for one in left if one is not None]
    order = sorted(range(len(runs)), key=lambda index: runs[index][1].state != "running")
    free = [0.0] * jobs
    for index in order:
        heapq.heapreplace(free, free[0] + known[index].seconds)
    return Eta(max(free), any(one.at_least for one in known))


def _eta(recipe: Recipe, found: Standing, runs: Sequence[Run]) -> Eta | None:
    if found.ended or found.state == "failed":
        return Eta(0.0)
    alike = [run for run in runs if _kind(run[0]) == _kind(recipe)]
    training = _training(recipe, found, alike)
    if training is None:
        return None
    measuring = [_measuring(evaluator, recipe, found, alike) for evaluator in recipe.evaluators]
    return Eta(training + sum(one or 0.0 for one in measuring), None in measuring)


def _training(recipe: Recipe, found: Standing, alike: Sequence[Run]) -> float | None:
    left = found.epochs - found.epoch
    if not left:
        return 0.0
    pace = found.pace or _pace_of(recipe, alike)
    if pace is None:
        return None
    # A file server's clock may be ahead.
    begun = max(0.0, min(found.since, pace)) if found.state == "running" and found.since is not None else 0.0
    return left * pace - begun


def _pace_of(recipe: Recipe, alike: Sequence[Run]) -> float | None:
    """By those with the same passes, if there are any; else by all, a pass taking as long in each."""
    known = [(other.passes_per_image(), one.pace) for other, one in alike if one.pace]
    passes = recipe.passes_per_image()
    same = [pace for theirs, pace in known if theirs == passes]
    scaled = same or [pace * passes / theirs for theirs, pace in known]
    return fmean(scaled) if scaled else None


def _measuring(evaluator: Evaluator, recipe: Recipe, found: Standing, alike: Sequence[Run]) -> float | None:
    """Of what this evaluator has not yet measured."""
    times = found.wanted // len(recipe.evaluators)
    left = times - sum(one.evaluator == evaluator.name for one in found.found)
    if left <= 0:
        return 0.0
    took = [
        one.seconds
        for other, theirs in alike
        if evaluator in other.evaluators
        for one in theirs.found
        if one.evaluator == evaluator.name
    ]
    return left * fmean(took) if took else None


def _kind(recipe: Recipe) -> tuple[Any, ...]:
    """What the time of a network pass depends on."""
    return recipe.data, recipe.model, recipe.engine, recipe.schedule.batch_size
