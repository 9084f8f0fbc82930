"""What is drawn on a terminal is erased again, whatever has become of its width; on a terminal that breaks lines."""

import io
import re

import pytest
from rich.console import Console, ConsoleDimensions
from rich.text import Text

from advmix_cli.report.live import live_view
from advmix_cli.report.steady import Steady


class Terminal(io.StringIO):
    """Shows what is written to it; understands as much as rich says. A narrower one breaks its lines."""

    def __init__(self, columns):
        super().__init__()
        self.columns, self.lines, self.row, self.column = columns, [""], 0, 0

    def isatty(self):
        return True

    def resize(self, columns):
        """Lines that were written without an end between them are not joined again: none here is."""
        before, self.columns = self.lines, columns
        broken = [[line[at : at + columns] for at in range(0, len(line), columns)] or [""] for line in before]
        self.row = sum(map(len, broken[: self.row])) + max(0, self.column - 1) // columns
        self.column = (self.column - 1) % columns + 1 if self.column else 0
        self.lines = [part for parts in broken for part in parts]

    def write(self, text):
        for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|.|\n", text):
            self._obey(part)
        return len(text)

    def _obey(self, part):
        if part == "\n":
            self.row, self.column = self.row + 1, 0
        elif part == "\r":
            self.column = 0
        elif part.endswith("A") and len(part) > 1:
            self.row = max(0, self.row - int(part[2:-1]))
        elif part == "\x1b[2K":
            self.lines[self.row] = ""
        elif len(part) == 1:
            if self.column == self.columns:
                self.row, self.column = self.row + 1, 0
            self._reach()
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + part + line[self.column + 1 :]
            self.column += 1
        self._reach()

    def _reach(self):
        self.lines += [""] * (self.row + 1 - len(self.lines))

    def shown(self):
        return [line.rstrip() for line in self.lines if line.strip()]


@pytest.fixture
def terminal(monkeypatch):
    """A terminal and its console, whose width is the terminal's; it is drawn when the test says so."""
    made = Terminal(60)
    monkeypatch.setattr(Console, "size", property(lambda _: ConsoleDimensions(made.columns, 20)))
    monkeypatch.setattr("rich.live._RefreshThread.run", lambda _: None)
    return made, Console(file=made, force_terminal=True, force_interactive=True, color_system=None)


class Wide:
    """Lines as wide as there is room, or almost, a short one, and an empty one."""

    def __rich_console__(self, console, options):
        for text in ("=" * options.max_width, "", "-" * (options.max_width - 3), "short", "+" * options.max_width):
            yield Text(text)


@pytest.mark.parametrize("widths", [(60, 60), (60, 30), (60, 31, 17, 50, 20), (60, 100, 60), (60, 59), (60, 7)])
def test_nothing_is_left_of_what_was_drawn_before(terminal, widths):
    made, console = terminal
    made.write("before\n")
    with Steady(Wide(), console) as live:
        for width in widths:
            made.resize(width)
            live.refresh()
            live.refresh()
            drawn = ["=" * (width - 2), "-" * (width - 5), "short"[: width - 2], "+" * (width - 2)]
            assert made.shown() == ["before", *drawn]
            made.write("^C")
            console.print("kept")
            assert made.shown() == ["before", "kept", *drawn]
            del made.lines[1]  # of the test's
            made.row -= 1
    assert made.shown() == ["before"]


def test_a_bar_under_a_view_leaves_nothing(terminal):
    made, console = terminal
    looked = []
    with live_view(console, Wide(), lambda: looked.append(made.columns)) as (watch, redraw):
        watch.begin("training", 1200, "batches")
        watch.advance(600, "a note that takes all the room there is, and would take more of it")
        redraw()
        made.resize(25)
        redraw()
        watch.say("said")
        shown = made.shown()
        assert shown[:4] == ["said", "=" * 23, "-" * 20, "short"]
        assert len(shown) == 6
        assert shown[5].startswith("tra")
    assert made.shown() == ["said"]
    assert looked == [60, 60, 60, 25]
