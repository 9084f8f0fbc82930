"""What of a table is done, and what is still to run."""

from collections.abc import Sequence
from typing import Any

from advmix_cli.ablation.cells import Cell
from advmix_cli.checkpoint import LAST
from advmix_cli.report.grid import Cell as Text
from advmix_cli.report.grid import Grid


def plan_records(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """A record a cell. `passes` are network passes over the training images still to make."""
    return [_record(cell) for cell in cells]


def _record(cell: Cell) -> dict[str, Any]:
    recipe, known = cell.row.recipe, cell.results()
    trained = known is not None and (cell.directory / LAST).is_file()
    if known and known.diverged:
        state = "diverged"
    elif known and known.finished:
        state = "done"
    else:
        state = "trained" if trained else "to do"
    epochs = recipe.schedule.epochs if state == "to do" else 0
    return {
        "row": cell.row.name,
        "seed": recipe.seed,
        "state": state,
        "epochs": epochs,
        "passes": epochs * recipe.passes_per_image(),
        "directory": str(cell.directory),
        "digest": recipe.digest(),
    }


def plan_grid(title: str, cells: Sequence[Cell]) -> Grid:
    """The same for a person, with the totals."""
    records = plan_records(cells)
    shown = ("row", "seed", "state", "epochs", "passes", "directory")
    rows = [
        tuple(Text(f"{record[name]:,}" if isinstance(record[name], int) else record[name]) for name in shown)
        for record in records
    ]
    epochs, passes = (sum(record[name] for record in records) for name in ("epochs", "passes"))
    finished = sum(record["state"] == "done" for record in records)
    caption = (
        f"{len(records)} cells, {finished} done; still to run: {epochs:,} epochs, {passes:,} network passes over the "
        "training images"
    )
    return Grid(title, (*shown[:3], "epochs to run", "passes to run", "directory"), tuple(rows), (caption,))
