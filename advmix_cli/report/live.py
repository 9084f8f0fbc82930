"""A view of many runs while they go on, above the bar of the one that this process runs itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType

from advmix_cli.report.progress import Bars, Lines, Watcher
from advmix_cli.report.steady import Steady


@contextmanager
def live_view(
    console: Console, view: RenderableType, look: Callable[[], None]
) -> Iterator[tuple[Watcher, Callable[[], None]]]:
    """Yields who watches the runs, and a function that shows `view` after another `look`. Off a terminal: plain lines,
    no view."""
    if not console.is_terminal:
        yield Lines(console, epochs=False), lambda: None
        return
    bars = _BarsUnderView(console)
    look()
    with Steady(Group(view, bars.progress), console) as live:

        def redraw() -> None:
            look()
            live.refresh()

        bars.redraw = redraw
        yield bars, redraw


class _BarsUnderView(Bars):
    """A new piece of work, or an epoch that has ended, changes the view, which has its figures."""

    redraw: Callable[[], None]

    def begin(self, what: str, total: int, unit: str) -> None:
        super().begin(what, total, unit)
        self.redraw()

    def epoch(self, line: str) -> None:  # noqa: ARG002 (its figures are in the view)
        self.redraw()
