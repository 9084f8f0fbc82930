"""`advmix ablate --jobs`: some cells at once, each in a process of its own; how many, and what each of them gets."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from advmix_cli.commands.console import err, say

if TYPE_CHECKING:
    from advmix_cli.ablation.cells import Cell
    from advmix_cli.ablation.slots import Slot
    from advmix_cli.fit import Keeping
    from advmix_cli.recipe.schema import Recipe
    from advmix_cli.recipe.table import Table
    from advmix_cli.report.tracking import Kind

A_PROCESS = 700 * 10**6
"""Bytes that a training takes beside what `advmix plan` counts: torch itself and the libraries that it loads."""


def _auto_or_number(text: str) -> str:
    """Of jobs."""
    if text != "auto" and not (text.isdecimal() and len(text) < 5 and int(text)):
        raise typer.BadParameter(f"{text!r}: write auto, or a number from 1 to 9999")
    return text


Jobs = Annotated[
    str | None,
    typer.Option(
        "--jobs",
        metavar="auto|N",
        parser=_auto_or_number,
        help="Run so many cells at once, each in a process of its own. auto: one for each GPU, or, on a CPU, for each "
        "core, as far as there is memory. By default the cells run one by one in this process.",
    ),
]


def run_at_once(
    table: "Table", todo: "Sequence[Cell]", jobs: str, device: str, keeping: "Keeping", trackers: "Sequence[Kind]"
) -> None:
    """Run what is unfinished of `todo`, cells of `table`; the errors are those of `run_jobs`."""
    from advmix_cli.ablation.board import LiveBoard
    from advmix_cli.ablation.jobs import run_jobs
    from advmix_cli.ablation.prepare import prepare
    from advmix_cli.report.live import live_view

    left = [cell.row.recipe for cell in todo if not cell.ended()]
    slots = wanted_slots(jobs, device, left, say)
    prepare(table, todo, say)
    board = LiveBoard(table.title, todo, len(slots))
    drawn = 0.0

    with live_view(err, board, board.look) as (watch, redraw):

        def looked(running: frozenset[Path]) -> None:
            nonlocal drawn
            if running != board.started or monotonic() - drawn >= 1:
                board.started = running
                redraw()
                drawn = monotonic()

        run_jobs(todo, slots, watch, looked, keeping, trackers)


def wanted_slots(jobs: str, device: str, recipes: "Sequence[Recipe]", say: Callable[[str], None]) -> "list[Slot]":
    """What `--jobs` asks for, "auto" or a number, and no more than there are `recipes` to train; `say` is told what
    that comes to."""
    import torch

    from advmix_cli import build
    from advmix_cli.ablation import slots

    count = None if jobs == "auto" else int(jobs)
    place = build.named_device(device)
    if place.type == "cuda":
        names = slots.gpus(os.environ.get(slots.VISIBLE), torch.cuda.device_count())
        names = names if place.index is None else [names[place.index]]
        found = slots.on_gpus(min(count or len(names), len(recipes)), names, os.environ)
    else:
        found = slots.on_cpu(min(count or _fitting(recipes, say), len(recipes)), os.environ)
    each = max((recipe.engine.threads or 0 for recipe in recipes), default=0)
    if each * len(found) > max(each, slots.cores()):
        say(f"warning: {len(found)} jobs of engine.threads = {each} are more threads than the {slots.cores()} cores")
    said = ", ".join(dict.fromkeys(slot.name for slot in found))
    count, each_has = ("1 job", "") if len(found) == 1 else (f"{len(found)} jobs", " each")
    say(f"{count} at once, {said}{each_has if place.type == 'cpu' else ''}")
    return found


def _fitting(recipes: "Sequence[Recipe]", say: Callable[[str], None]) -> int:
    """On a CPU one for each core, or for the threads that a recipe asks for: a step gains less from a second thread
    than a table does from a second training. Fewer, if their memory is not there."""
    from advmix_cli import memory
    from advmix_cli.ablation import slots
    from advmix_cli.plan.estimate import estimates

    each = max((recipe.engine.threads or 1 for recipe in recipes), default=1)
    by_cores = max(1, slots.cores() // each)
    free = memory.free()
    if by_cores == 1 or free is None:
        return by_cores
    needed = A_PROCESS + max(one.memory.total for one in estimates(recipes, say))
    by_memory = max(1, free // needed)
    if by_memory < by_cores:
        sizes = f"{free / 1e9:.1f} GB are free, and each takes about {needed / 1e9:.1f} GB"
        say(f"memory for {by_memory} of {by_cores} jobs: {sizes}")
    return min(by_cores, by_memory)
