"""`advmix ablate` without `--jobs`: one cell after the other, in this process."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from advmix_cli.commands.console import err, say

if TYPE_CHECKING:
    from advmix_cli.ablation.cells import Cell
    from advmix_cli.fit import Keeping
    from advmix_cli.recipe.table import Table
    from advmix_cli.report.tracking import Kind


def run_here(
    table: "Table", todo: "Sequence[Cell]", device: str, keeping: "Keeping", trackers: "Sequence[Kind]"
) -> None:
    """Run what is unfinished of `todo`, cells of `table`; the errors are those of `run_cells`."""
    from advmix_cli import build
    from advmix_cli.ablation.board import LiveBoard
    from advmix_cli.ablation.prepare import prepare
    from advmix_cli.ablation.queue import run_cells
    from advmix_cli.report.live import live_view

    place = build.device(device)
    prepare(table, todo, say)
    board = LiveBoard(table.title, todo, jobs=1)
    with live_view(err, board, board.look) as (watch, redraw):
        run_cells(todo, place, watch, lambda _: redraw(), keeping, trackers)
