"""A table of text, and the formats it is printed in."""

import csv
import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, zip_longest

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from advmix_cli.errors import printable
from advmix_cli.report.escapes import html, markdown, plain, tex

LONGEST = 32
"""Letters: a name or a text that has more of them is broken in LaTeX."""
NARROWEST = 16
"""Letters of a line: names are broken into no shorter ones."""
# No wider than the line, and no wider than it is.
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
_TEXT, _NAME = r">{\raggedright\arraybackslash}X", r"p{.32\linewidth}"


@dataclass(frozen=True)
class Cell:
    """`value` is the number itself; `notes` stand under it, smaller."""

    value: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", printable(self.value))
        object.__setattr__(self, "notes", tuple(map(printable, self.notes)))

    def rich(self, width: int = 10_000) -> Text:
        """On a line each, a note that is wider than `width` on several. A Text, so that nothing in a name is taken for
        markup."""
        return Text.assemble(self.value, *((f"\n{folded(note, width)}", "dim") for note in self.notes))

    def flat(self) -> str:
        """On one line."""
        return self.value.replace("\n", " ") + (f" ({'; '.join(self.notes)})" if self.notes else "")


def folded(text: str, width: int) -> str:
    """On lines of `width`, broken at spaces, not between a number and what it is of, and within brackets only where
    these are longer; a word that is longer stays whole. Lines of its own stay."""
    whole = re.sub(
        r"\S*\([^()\n]*\)\S*",
        lambda found: found[0] if len(found[0]) > width else found[0].replace(" ", "\u00a0"),
        text,
    )
    glued = re.sub(r" (?=%)|(?<=\d) (?=to |seeds)|(?<=\b[np]) (?=[\d<])|(?<=[±Δ]) ", "\u00a0", whole)
    lines = (textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in glued.split("\n"))
    return "\n".join(part for line in lines for part in line).replace("\u00a0", " ")


@dataclass(frozen=True)
class Grid:
    """`columns` are the headings; the first cell of each row is its name. `words` are columns of text, which begin at
    the left and wrap in a document; the others are of numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    captions: tuple[str, ...] = ()
    words: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", printable(self.title))
        object.__setattr__(self, "columns", tuple(map(printable, self.columns)))
        object.__setattr__(self, "captions", tuple(map(printable, self.captions)))

    def rich(self) -> Group:
        """For a terminal."""
        return Group(self._table(), *self._captions())

    def print(self, console: Console) -> None:
        """The table as wide as it needs to be, its captions as wide as the console is. In a terminal that is narrower
        names are broken and then notes folded, if that is enough, or its lines wrap; a file keeps them whole."""
        width = console.width
        table = (console.is_terminal and self._fitting(console)) or self._table()
        # rich prints nothing wider than its console, so the console is what has to be wide enough.
        console.width = max(width, _needed(table, console))
        console.print(table)
        console.width = width
        console.print(*self._captions(), sep="\n")

    def _fitting(self, console: Console) -> RichTable | None:
        """As wide as `console`, or less; None where that would break a number or a short name."""
        names = max((cell_len(line) for row in self.rows for line in row[0].rich().plain.split("\n")), default=0)
        notes = [note for row in self.rows for cell in row[1:] for note in cell.notes] or [""]
        words = (part for note in notes for part in folded(note, 1).split("\n"))
        for width in range(max(map(len, notes)), max(map(len, words)) - 1, -1):
            table = self._table(width)
            missing = _needed(table, console) - console.width
            if missing <= 0:
                return table
            if names - missing >= NARROWEST:
                first = table.columns[0]
                first.no_wrap, first.overflow, first.width = False, "fold", names - missing
                return table
        return None

    def _captions(self) -> list[Text]:
        return [Text(caption, style="dim") for caption in (*self.captions, "")] if self.captions else []

    def _table(self, notes: int = 10_000) -> RichTable:
        """Nothing in it wraps by itself, so that no number is ever cut. `notes`: the widest beside a number."""
        table = RichTable(
            title=Text(self.title, style="bold") if self.title else None, box=box.SIMPLE_HEAD, title_justify="left"
        )
        for index, column in enumerate(self.columns):
            table.add_column(Text(column), justify="right" if index else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(row[0].rich(), *(cell.rich(notes) for cell in row[1:]))
        return table

    def markdown(self) -> str:
        """A pipe table."""
        lines = [
            "| " + " | ".join(markdown(column) for column in self.columns) + " |",
            "|" + "|".join("---" if index in (0, *self.words) else "---:" for index in range(len(self.columns))) + "|",
            *("| " + " | ".join(markdown(cell.flat()) for cell in row) + " |" for row in self.rows),
        ]
        heading = [f"**{markdown(self.title)}**", ""] if self.title else []
        return "\n".join([*heading, *lines, *(f"\n{markdown(caption)}" for caption in self.captions)])

    def latex(self) -> str:
        """A booktabs table that is no wider than the line (with long texts a tabularx), and its captions under it. The
        notes of a row stand under its numbers, and beside long texts."""
        kinds = [self._tex_kind(index) for index in range(len(self.columns))]
        names = [_tex_name(row[0].value, kinds[0] == _NAME) for row in self.rows]
        if _TEXT in kinds:
            opening, closing = rf"\begin{{tabularx}}{{\linewidth}}{{{''.join(kinds)}}}", [r"\end{tabularx}"]
            rows = [_tex_texts(name, row) for name, row in zip(names, self.rows, strict=True)]
        else:
            opening, closing = f"{_FITTED}\n\\begin{{tabular}}{{{''.join(kinds)}}}", [r"\end{tabular}}"]
            rows = [line for name, row in zip(names, self.rows, strict=True) for line in _tex_lines(name, row)]
        if self.captions:
            captions = (rf"{tex(caption)}\par" for caption in self.captions)
            closing += [r"\par\smallskip", r"{\footnotesize\raggedright", *captions, "}"]
        heads = " & ".join(tex(column) for column in self.columns) + r" \\"
        lines = [f"% {plain(self.title)}", opening, r"\toprule", heads, r"\midrule", *rows, r"\bottomrule", *closing]
        return "\n".join(lines)

    def _tex_kind(self, column: int) -> str:
        """How LaTeX sets it."""
        is_text = column in self.words
        longest = max((len(row[column].flat() if is_text else row[column].value) for row in self.rows), default=0)
        if not column:
            return _NAME if longest > LONGEST else "l"
        if is_text:
            return _TEXT if longest > LONGEST else "l"
        return "r"

    def html(self) -> str:
        """A table in a box of its own, in which it scrolls where it is too wide; its captions under it."""
        kinds = [' class="words"' if index in self.words else "" for index in range(len(self.columns))]
        head = "".join(
            f'<th scope="col"{kind}>{html(column)}</th>' for column, kind in zip(self.columns, kinds, strict=True)
        )
        rows = ("".join(map(_html_cell, row, kinds, count())) for row in self.rows)
        lines = [
            f'<div class="box" role="region" tabindex="0" aria-label="{html(self.title) or "table"}"><table>',
            f"<caption><span>{html(self.title)}</span></caption>" if self.title else "<caption></caption>",
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *(f"<tr>{cells}</tr>" for cells in rows),
            "</tbody></table></div>",
            *(f'<p class="note">{html(caption)}</p>' for caption in self.captions),
        ]
        return "\n".join(lines)


def _needed(table: RichTable, console: Console) -> int:
    """Columns of the terminal that it would take, however many there are."""
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def write_csv(records: list[dict[str, object]]) -> str:
    """A line a record, numbers in full."""
    stream = io.StringIO()
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue().rstrip("\n")


def _tex_lines(name: str, row: Sequence[Cell]) -> Iterator[str]:
    """The numbers, then their notes, a line each, and some space where there are any."""
    yield " & ".join([name, *(_tex_number(cell.value) for cell in row[1:])]) + r" \\"
    for notes in zip_longest(*(cell.notes for cell in row), fillvalue=""):
        small = (rf"{{\scriptsize {_tex_number(note)}}}" if note else "" for note in notes)
        yield " & ".join(small) + r" \\"
    if any(cell.notes for cell in row):
        yield r"\addlinespace[2pt]"


def _tex_texts(name: str, row: Sequence[Cell]) -> str:
    """Each with its notes behind it."""
    notes = [rf" {{\footnotesize ({tex('; '.join(cell.notes))})}}" if cell.notes else "" for cell in row]
    values = [name, *(_tex_number(cell.value) for cell in row[1:])]
    return " & ".join(map("".join, zip(values, notes, strict=True))) + r" \\"


def _tex_name(name: str, is_long: bool) -> str:
    return rf"\raggedright {tex(name)}" if is_long else tex(name)  # it ends with its cell


def _tex_number(text: str) -> str:
    """With a minus, where a hyphen stands for it."""
    return tex(re.sub(r"(?<!\S)-(?=\d)", "−", text))


def _html_cell(cell: Cell, kind: str, index: int) -> str:
    inner = html(cell.value) + "".join(f"<small>{html(note)}</small>" for note in cell.notes)
    return f"<td{kind}>{inner}</td>" if index else f'<th scope="row">{inner}</th>'
