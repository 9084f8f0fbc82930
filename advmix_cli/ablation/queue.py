"""Runs the cells of a table, one after the other; what is done is not done again."""

from collections.abc import Callable, Sequence

import tomli_w
import torch

from advmix_cli import run
from advmix_cli.ablation.cells import Cell
from advmix_cli.errors import DivergedError, InUseError
from advmix_cli.files import write_atomically
from advmix_cli.fit import Keeping
from advmix_cli.report.progress import Watcher
from advmix_cli.report.tables import percent
from advmix_cli.report.tracking import Kind, tracked
from advmix_cli.rundir import METRICS, RECIPE


def run_cells(
    cells: Sequence[Cell],
    place: torch.device,
    watch: Watcher,
    changed: Callable[[Cell], None],
    keeping: Keeping | None = None,
    trackers: Sequence[Kind] = (),
) -> None:
    """Run what is unfinished; `changed` is called before and after each cell, and each has its own `trackers`. A cell
    that diverges does not stop the others: its results say so; nor does one that another process works in: InUseError
    at the end names them. Directories that hold something else are refused before anything starts."""
    busy: list[str] = []
    prepare(cells)
    for number, cell in enumerate(cells, 1):
        changed(cell)
        known = cell.results()
        if known is None or not (known.finished or known.diverged):
            name = f"[{number}/{len(cells)}] {cell.row.name}, seed {cell.row.recipe.seed}"
            watch.say(name)
            try:
                with tracked(trackers, cell.row.recipe, cell.directory, METRICS, watch) as told:
                    run.execute(cell.row.recipe, cell.directory, place, told, keeping)
            except DivergedError as error:
                watch.say(f"diverged: {error}")
            except InUseError as error:
                watch.say(f"left to another process: {error}")
                busy.append(cell.row.name)
            else:
                watch.say(f"{name}: {outcome(cell)}")
        changed(cell)
    if busy:
        raise InUseError(f"in use by other processes: {', '.join(busy)}; the other rows are done")


def prepare(cells: Sequence[Cell]) -> None:
    """Refuse directories that hold something else, and write the recipe into those that hold nothing, so that who looks
    at the files sees what waits."""
    for cell in cells:
        run.check_directory(cell.row.recipe, cell.directory)
    for cell in cells:
        if not (cell.directory / RECIPE).exists():
            write_atomically(cell.directory / RECIPE, tomli_w.dumps(cell.row.recipe.resolved()))


def outcome(cell: Cell) -> str:
    """How a cell that has ended did, in a line."""
    known = cell.results()
    if known and known.diverged:
        return f"diverged: {known.diverged}"
    last = known and known.of("last")
    found = [f"{one.name} {percent(one.accuracy)}" for one in last.outcomes] if last else []
    return f"done: {', '.join(found)} %" if found else "done"
