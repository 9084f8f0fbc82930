"""The table of an ablation while it fills, above the bar of the cell that runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live

from advmix_cli.report.grid import Grid
from advmix_cli.report.progress import Bars, Lines, Watcher


@contextmanager
def live_table(console: Console, draw: Callable[[], Grid]) -> Iterator[tuple[Watcher, Callable[[], None]]]:
    """Yields who watches the runs, and a function that shows the table anew. Off a terminal: plain lines, no table."""
    if not console.is_terminal:
        yield Lines(console, epochs=False), lambda: None
        return
    bars = _BarsUnderTable(console, epochs=False)
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def redraw() -> None:
            live.update(Group(draw().rich(), bars.progress), refresh=True)

        bars.redraw = redraw
        redraw()
        yield bars, redraw


class _BarsUnderTable(Bars):
    """A new piece of work means that the one before it may have filled a cell."""

    redraw: Callable[[], None]

    def begin(self, what: str, total: int) -> None:
        super().begin(what, total)
        self.redraw()
