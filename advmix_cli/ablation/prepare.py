"""What is written of a table before any of its cells is run."""

from collections.abc import Callable, Sequence

import tomli_w

from advmix_cli import run
from advmix_cli.ablation.cells import Cell
from advmix_cli.ablation.order import keep_order
from advmix_cli.ablation.trained_before import take_over
from advmix_cli.errors import RunDirectoryError
from advmix_cli.files import write_atomically
from advmix_cli.recipe.table import Table
from advmix_cli.rundir import FAILURE, RECIPE


def prepare(table: Table, cells: Sequence[Cell], say: Callable[[str], None]) -> None:
    """Before any of `cells`, which are some of `table`, is run. Refuse directories that hold something else; write the
    recipe into those that hold nothing, and the order of the rows, so that who looks at the files sees what waits; a
    cell that failed waits again, and one that was trained for other evaluators, as `say` is told, is trained.
    RunDirectoryError where that cannot be written."""
    for cell in cells:
        run.check_directory(cell.row.recipe, cell.directory)
    try:
        for cell in cells:
            (cell.directory / FAILURE).unlink(missing_ok=True)
            if not (cell.directory / RECIPE).exists():
                write_atomically(cell.directory / RECIPE, tomli_w.dumps(cell.row.recipe.resolved()))
        keep_order([row.name for row in table.rows], cells[0].directory.parent)
        take_over(cells, say)
    except OSError as error:
        raise RunDirectoryError(f"{error.filename} cannot be written: {error.strerror or error}") from None
