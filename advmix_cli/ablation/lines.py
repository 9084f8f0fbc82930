"""The cells of a table -> the lines of its report."""

from collections.abc import Callable, Sequence

from advmix_cli.ablation.cells import Cell
from advmix_cli.failures import Failure
from advmix_cli.recipe.schema import WORST
from advmix_cli.recipe.table import Table
from advmix_cli.report.ablation import Line
from advmix_cli.report.results import Results


def lines_of(
    table: Table,
    cells: Sequence[Cell],
    results: Callable[[Cell], Results | None] = Cell.results,
    failures: Callable[[Cell], Failure | None] = Cell.failure,
) -> tuple[list[str], list[Line]]:
    """The columns, with that of the worst case where there is one, and a line a row; `results` and
    `failures` read a cell's."""
    lines: list[Line] = []
    for row in table.rows:
        own = [cell for cell in cells if cell.row.name == row.name]
        failed = tuple(f"seed {cell.row.recipe.seed}: {why}" for cell in own if (why := failures(cell)) is not None)
        directories = tuple(cell.directory for cell in own)
        lines.append(Line(row.name, tuple(map(results, own)), directories, row.paper, failed, row.recipe.seed))
    worst = [WORST] if any(line.outcomes("last", WORST) for line in lines) else []
    return [*table.columns, *worst], lines
