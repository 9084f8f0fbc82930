"""A display that stays in its place when its terminal changes its width."""

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment

ROOM = 2
"""Columns behind the last line, where a terminal shows "^C": it would go into a row that nobody erases."""


class Steady(Live):
    """Erases what it has drawn as it stands there now: a terminal that becomes narrower breaks lines in two, and rich
    goes up by the lines that it wrote. (A terminal that cuts lines off instead, as xterm does, loses as many of those
    above. What a lower one has pushed out of sight stays there.)"""

    def __init__(self, shown: RenderableType, console: Console) -> None:
        self._drawn = _Drawn(shown)
        super().__init__(self._drawn, console=console, refresh_per_second=4, transient=True)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        more = self._drawn.more_rows(self.console.width)
        found = super().process_renderables(renderables)
        return [_erased(more), *found] if more else found


class _Drawn:
    """What is shown, without the blanks at the ends of its lines, which a terminal would break too."""

    def __init__(self, shown: RenderableType) -> None:
        self._shown = shown
        self._widths: Sequence[int] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        narrower = options.update(width=max(1, options.max_width - ROOM))
        lines = [_without_end(line) for line in console.render_lines(self._shown, narrower, pad=False)]
        self._widths = [Segment.get_line_length(line) for line in lines[: options.size.height]]
        for line in lines:
            yield from line
            yield Segment.line()

    def more_rows(self, width: int) -> int:
        """That its lines have on a terminal of `width` columns, beside one each."""
        return sum(max(0, found - 1) // width for found in self._widths)


def _without_end(line: list[Segment]) -> list[Segment]:
    left = list(line)
    while left and not left[-1].text.strip():
        left.pop()
    return [*left[:-1], Segment(left[-1].text.rstrip(), left[-1].style)] if left else []


def _erased(rows: int) -> Control:
    """So many above that of the cursor; it stands in the highest one then."""
    up = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
    return Control(ControlType.CARRIAGE_RETURN, *(up * rows))
