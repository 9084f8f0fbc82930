"""What is shown while work goes on, on stderr: bars in a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from advmix_cli.errors import printable
from advmix_cli.report.steady import Steady

SEPARATOR = " · "


class Watcher(Protocol):
    """Told of what a run does."""

    def begin(self, what: str, total: int, unit: str) -> None:
        """A piece of work starts, of `total` batches, or images, or what `unit` says; the one before it has ended."""
        ...

    def advance(self, done: int, note: str = "") -> None:
        """`done` more of them are finished; `note`, if any, replaces the last one."""
        ...

    def say(self, line: str) -> None:
        """A line worth keeping on the screen."""
        ...

    def epoch(self, line: str) -> None:
        """The figures of an epoch that has ended, the most telling first, with SEPARATOR between them."""
        ...


class Lines:
    """Off a terminal: a line for each piece of work, and, if wanted, for each epoch."""

    def __init__(self, console: Console, *, epochs: bool = True) -> None:
        self._console = console
        self._epochs = epochs

    def begin(self, what: str, total: int, unit: str) -> None:
        self.say(f"{what}: {total:,} {unit}")

    def advance(self, done: int, note: str = "") -> None:
        """A line that cannot be overwritten is not worth printing for each batch."""

    def say(self, line: str) -> None:
        self._console.print(printable(line), markup=False, emoji=False, highlight=False, soft_wrap=True)

    def epoch(self, line: str) -> None:
        if self._epochs:
            self.say(line)


def _whole(width: int) -> Column:
    """A column that is never cut."""
    return Column(no_wrap=True, min_width=width)


class Bars:
    """In a terminal: one bar with the time left and the last figures, under the lines that stay."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=24)),
            BarColumn(bar_width=12, table_column=_whole(12)),
            MofNCompleteColumn(table_column=_whole(9)),
            TimeElapsedColumn(table_column=_whole(7)),
            TextColumn("eta", table_column=_whole(3)),
            TimeRemainingColumn(table_column=_whole(7)),
            # What does not fit is cut from the note.
            TextColumn("{task.fields[note]}", style="dim", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            console=console,
            expand=True,
        )
        self._task = self.progress.add_task("", total=None, note="", visible=False)

    def begin(self, what: str, total: int, unit: str) -> None:  # noqa: ARG002 (a bar is one without it)
        self.progress.reset(self._task, total=total, description=printable(what), note="", visible=True)

    def advance(self, done: int, note: str = "") -> None:
        if note:
            self.progress.update(self._task, note=note)
        self.progress.advance(self._task, done)

    def say(self, line: str) -> None:
        self.progress.console.print(printable(line), markup=False, emoji=False, highlight=False)

    def epoch(self, line: str) -> None:
        """On one line of the terminal: what does not fit is left out, the least telling first, and no number is cut."""
        parts = line.split(SEPARATOR)
        while len(parts) > 1 and cell_len(SEPARATOR.join(parts)) > self.progress.console.width:
            parts.pop()
        self.say(SEPARATOR.join(parts))


@contextmanager
def watcher(console: Console) -> Iterator[Watcher]:
    """The one that fits the console."""
    if not console.is_terminal:
        yield Lines(console)
        return
    bars = Bars(console)
    with Steady(bars.progress, console):
        yield bars
