"""A table of text, and the formats it is printed in."""

import csv
import io
import textwrap
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from advmix_cli.errors import printable


@dataclass(frozen=True)
class Cell:
    """`value` is the number itself; `notes` stand under it, smaller."""

    value: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", printable(self.value))
        object.__setattr__(self, "notes", tuple(map(printable, self.notes)))

    def rich(self) -> Text:
        """On a line each. A Text, so that nothing in a name is taken for markup."""
        return Text.assemble(self.value, *((f"\n{note}", "dim") for note in self.notes))

    def flat(self) -> str:
        """On one line."""
        return self.value.replace("\n", " ") + (f" ({'; '.join(self.notes)})" if self.notes else "")


def folded(text: str, width: int) -> str:
    """On lines of `width`, broken at spaces, not before a unit; a word that is longer stays whole."""
    glued = text.replace(" %", "\u00a0%")
    return "\n".join(textwrap.wrap(glued, width, break_long_words=False, break_on_hyphens=False)).replace("\u00a0", " ")


@dataclass(frozen=True)
class Grid:
    """`columns` are the headings; the first cell of each row is its name."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    captions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", printable(self.title))
        object.__setattr__(self, "columns", tuple(map(printable, self.columns)))
        object.__setattr__(self, "captions", tuple(map(printable, self.captions)))

    def rich(self) -> Group:
        """For a terminal."""
        return Group(self._table(), *self._captions())

    def print(self, console: Console) -> None:
        """The table as wide as it needs to be (a terminal that is narrower wraps its lines, a file keeps them whole),
        its captions as wide as the console is."""
        table, width = self._table(), console.width
        unbounded = console.options.update(max_width=10_000)
        # rich prints nothing wider than its console, so the console is what has to be wide enough.
        console.width = max(width, console.measure(table, options=unbounded).maximum)
        console.print(table)
        console.width = width
        console.print(*self._captions(), sep="\n")

    def _captions(self) -> list[Text]:
        return [Text(caption, style="dim") for caption in (*self.captions, "")] if self.captions else []

    def _table(self) -> RichTable:
        """Nothing in it wraps, so that no number is ever cut."""
        table = RichTable(
            title=Text(self.title, style="bold") if self.title else None, box=box.SIMPLE_HEAD, title_justify="left"
        )
        for index, column in enumerate(self.columns):
            table.add_column(Text(column), justify="right" if index else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*(cell.rich() for cell in row))
        return table

    def markdown(self) -> str:
        """A pipe table."""
        lines = [
            "| " + " | ".join(_pipe(column) for column in self.columns) + " |",
            "|" + "|".join("---" if not index else "---:" for index in range(len(self.columns))) + "|",
            *("| " + " | ".join(_pipe(cell.flat()) for cell in row) + " |" for row in self.rows),
        ]
        heading = [f"**{self.title}**", ""] if self.title else []
        return "\n".join([*heading, *lines, *(f"\n{caption}" for caption in self.captions)])

    def latex(self) -> str:
        """A booktabs tabular."""
        lines = [
            f"% {self.title}",
            rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}",
            r"\toprule",
            " & ".join(_tex(column) for column in self.columns) + r" \\",
            r"\midrule",
            *(" & ".join(_tex(cell.flat()) for cell in row) + r" \\" for row in self.rows),
            r"\bottomrule",
            *(rf"\multicolumn{{{len(self.columns)}}}{{l}}{{\footnotesize {_tex(c)}}} \\" for c in self.captions),
            r"\end{tabular}",
        ]
        return "\n".join(lines)


def write_csv(records: list[dict[str, object]]) -> str:
    """A line a record, numbers in full."""
    stream = io.StringIO()
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue().rstrip("\n")


def _pipe(text: str) -> str:
    return text.replace("|", r"\|")


_TEX = str.maketrans({
    "%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "λ": r"$\lambda$", "δ": r"$\delta$", "γ": r"$\gamma$",
    "ε": r"$\varepsilon$", "±": r"$\pm$", "−": r"$-$", "–": "--", "·": r"$\cdot$", "└": "", "×": r"$\times$",
    "Δ": r"$\Delta$",
})  # fmt: skip


def _tex(text: str) -> str:
    return text.translate(_TEX)
