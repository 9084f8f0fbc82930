"""Runs the cells of a table, one after the other; what is done is not done again."""

from collections.abc import Callable, Sequence

import torch

from advmix_cli import run
from advmix_cli.ablation.cells import Cell
from advmix_cli.errors import DivergedError, InUseError
from advmix_cli.fit import METRICS, Keeping
from advmix_cli.report.progress import Watcher
from advmix_cli.report.tracking import Kind, tracked


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
    for cell in cells:
        run.check_directory(cell.row.recipe, cell.directory)
    for number, cell in enumerate(cells, 1):
        changed(cell)
        known = cell.results()
        if known is None or not (known.finished or known.diverged):
            watch.say(f"[{number}/{len(cells)}] {cell.row.name}, seed {cell.row.recipe.seed}")
            try:
                with tracked(trackers, cell.row.recipe, cell.directory, METRICS, watch) as told:
                    run.execute(cell.row.recipe, cell.directory, place, told, keeping)
            except DivergedError as error:
                watch.say(f"diverged: {error}")
            except InUseError as error:
                watch.say(f"left to another process: {error}")
                busy.append(cell.row.name)
        changed(cell)
    if busy:
        raise InUseError(f"in use by other processes: {', '.join(busy)}; the other rows are done")
