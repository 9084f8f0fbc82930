"""Runs the cells of a table, one after the other; what is done is not done again."""

import traceback
from collections.abc import Callable, Sequence

import torch

from advmix_cli import run
from advmix_cli.ablation.cells import Cell
from advmix_cli.ablation.unfinished import Unfinished
from advmix_cli.errors import AdvmixError, DivergedError, InUseError, UsageError, first_line
from advmix_cli.failures import Failure
from advmix_cli.files import append_line
from advmix_cli.fit import Keeping
from advmix_cli.memory import release
from advmix_cli.report.progress import Watcher
from advmix_cli.report.tables import percent
from advmix_cli.report.tracking import Kind, tracked
from advmix_cli.rundir import LOG, METRICS


def run_cells(
    cells: Sequence[Cell],
    place: torch.device,
    watch: Watcher,
    changed: Callable[[Cell], None],
    keeping: Keeping | None = None,
    trackers: Sequence[Kind] = (),
) -> None:
    """Run what is unfinished of `cells`, which are prepared; `changed` is called before and after each cell, and each
    has its own `trackers`. A cell that fails is marked, and stops the others as little as one that diverges or that
    another process works in: CellsFailedError or InUseError at the end names them. What is wrong with a recipe, a file
    or the disk ends all."""
    unfinished = Unfinished(len(cells))
    for number, cell in enumerate(cells, 1):
        changed(cell)
        if not cell.ended():
            name = f"[{number}/{len(cells)}] {cell.name}"
            watch.say(name)
            try:
                failure = _failure_of(cell, place, watch, keeping, trackers)
            except DivergedError as error:
                watch.say(f"{name}: diverged: {error}")
            except InUseError as error:
                watch.say(f"{name}: left to another process: {error}")
                unfinished.busy.append(cell)
            else:
                if failure:
                    release()  # for the next one, now that nothing refers to what the error came from
                    unfinished.failed.append(cell)
                watch.say(f"{name}: {f'failed: {failure}' if failure else outcome(cell)}")
        changed(cell)
    unfinished.tell()


def _failure_of(
    cell: Cell, place: torch.device, watch: Watcher, keeping: Keeping | None, trackers: Sequence[Kind]
) -> Failure | None:
    """Run it; why it failed, if it did. The exit code is that of `advmix train`."""
    try:
        with tracked(trackers, cell.row.recipe, cell.directory, METRICS, watch) as told:
            run.execute(cell.row.recipe, cell.directory, place, told, keeping)
    except (DivergedError, UsageError, OSError):
        raise
    except Exception as error:
        ours = isinstance(error, AdvmixError)
        failure = Failure(1, 1, str(error) if ours else first_line(error))
        failure.save(cell.directory)
        if not ours:
            append_line(cell.directory / LOG, traceback.format_exc())
            watch.say(f"the traceback is in {cell.directory / LOG}")
        return failure
    return None


def outcome(cell: Cell) -> str:
    """How a cell that has ended did, in a line."""
    known = cell.results()
    if known and known.diverged:
        return f"diverged: {known.diverged}"
    last = known and known.of("last")
    found = [f"{one.name} {percent(one.accuracy)}" for one in last.outcomes] if last else []
    return f"done: {', '.join(found)} %" if found else "done"
