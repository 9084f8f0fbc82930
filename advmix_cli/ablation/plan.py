"""What of a table is done, and what is still to run."""

from collections.abc import Sequence
from typing import Any

from advmix_cli.ablation.cells import Cell
from advmix_cli.ablation.standing import standing
from advmix_cli.ablation.trained_before import is_trained, trainings
from advmix_cli.report.grid import Cell as Text
from advmix_cli.report.grid import Grid


def plan_records(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """A record a cell. `passes` are network passes over the training images still to make."""
    known = trainings(cells[0].directory.parent)
    return [_record(cell, is_trained(cell, known)) for cell in cells]


def _record(cell: Cell, trained: bool) -> dict[str, Any]:
    """`trained`: there, or for other evaluators."""
    recipe = cell.row.recipe
    found = standing(recipe, cell.directory)
    if found.ended:
        what = found.state
    elif found.trained or trained:
        what = "trained"
    else:
        what = "to do" if found.state == "waiting" else "begun"
    epochs = 0 if found.ended or what == "trained" else found.epochs - found.epoch
    return {
        "row": cell.row.name,
        "seed": recipe.seed,
        "state": what,
        "epochs": epochs,
        "passes": epochs * recipe.passes_per_image(),
        "directory": str(cell.directory),
        "digest": recipe.digest(),
    }


def plan_grid(title: str, cells: Sequence[Cell]) -> Grid:
    """The same for a person, with the totals."""
    records = plan_records(cells)
    rows: list[tuple[Text, ...]] = []
    for record, cell in zip(records, cells, strict=True):
        numbers = (f"{record[name]:,}" for name in ("epochs", "passes"))
        first = Text(record["row"], (cell.directory.name,))
        rows.append((first, *map(Text, (str(record["seed"]), record["state"], *numbers))))
    epochs, passes = (sum(record[name] for record in records) for name in ("epochs", "passes"))
    finished = sum(record["state"] == "done" for record in records)
    count = "1 cell" if len(records) == 1 else f"{len(records)} cells"
    captions = (
        f"{count}, {finished} done; still to run: {epochs:,} epochs, {passes:,} network passes over the training "
        "images",
        f"in {cells[0].directory.parent}",
    )
    return Grid(title, ("row", "seed", "state", "epochs", "passes"), tuple(rows), captions)
