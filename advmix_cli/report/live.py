"""A view of many runs while they go on, above the bar of the one that this process runs itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live

from advmix_cli.report.progress import Bars, Lines, Watcher


@contextmanager
def live_view(console: Console, draw: Callable[[], RenderableType]) -> Iterator[tuple[Watcher, Callable[[], None]]]:
    """Yields who watches the runs, and a function that draws the view anew. Off a terminal: plain lines, no view."""
    if not console.is_terminal:
        yield Lines(console, epochs=False), lambda: None
        return
    bars = _BarsUnderView(console)
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def redraw() -> None:
            live.update(Group(draw(), bars.progress), refresh=True)

        bars.redraw = redraw
        redraw()
        yield bars, redraw


class _BarsUnderView(Bars):
    """A new piece of work, or an epoch that has ended, changes the view, which has its figures."""

    redraw: Callable[[], None]

    def begin(self, what: str, total: int) -> None:
        super().begin(what, total)
        self.redraw()

    def epoch(self, line: str) -> None:  # noqa: ARG002 (its figures are in the view)
        self.redraw()
