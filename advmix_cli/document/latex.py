"""A document as a part of a LaTeX paper. Its figures stay where they are, named relative to where it goes."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from advmix_cli.document.parts import Document, Drawing, Listing, Part, Photograph, Text
from advmix_cli.report.escapes import plain, tex
from advmix_cli.report.grid import Grid

_PREAMBLE = r"""% Wants in the preamble:
%   \usepackage[T1]{fontenc}
%   \usepackage{booktabs}
%   \usepackage{tabularx}
%   \usepackage{graphicx}"""
LONGEST = 35
"""Rows of a table on a page."""
_IN_NAMES = frozenset("%#{}~^\\$&\n\r")
"""What a file's name cannot hold in LaTeX."""


def to_latex(document: Document, beside: Path) -> str:
    """`beside`: the directory that it will lie in."""
    stamps = [*document.stamps, *(f"DAMAGED: {text}" for text in document.damage)]
    blocks = [
        f"% {plain(document.title)}: {plain(document.about)}\n{_PREAMBLE}",
        rf"\section*{{\raggedright {tex(document.title)}}}",
        _paragraph(tex(document.about)),
        *(_paragraph(rf"\textbf{{{tex(word)}}}{colon}{tex(rest)}") for word, colon, rest in map(_parted, stamps)),
    ]
    for section in document.sections:
        blocks += [rf"\subsection*{{{tex(section.heading)}}}", *(_part(part, beside) for part in section.parts)]
    return "\n\n".join(blocks) + "\n"


def _parted(stamp: str) -> tuple[str, str, str]:
    return stamp.partition(":")


def _paragraph(text: str) -> str:
    """Not justified: a path or a digest in it may have to be broken."""
    return f"{{\\raggedright {text}\\par}}"


def _part(part: Part, beside: Path) -> str:
    match part:
        case Text():
            return _paragraph(tex(part.text))
        case Listing():
            lines = "\n".join(rf"{_kept(line)}\\" for line in part.text.rstrip("\n").split("\n"))
            return f"\\begin{{flushleft}}\\ttfamily\\footnotesize\n{lines}\n\\end{{flushleft}}"
        case Grid():
            return "\n\n".join(map(_table, _pages(part)))
        case Drawing() | Photograph():
            return _figure(part.path, part.says, beside)
        case _:
            assert_never(part)


def _pages(grid: Grid) -> Iterator[Grid]:
    """Of rows that a page has room for."""
    for start in range(0, max(1, len(grid.rows)), LONGEST):
        is_last = start + LONGEST >= len(grid.rows)
        title = f"{grid.title} (continued)" if start and grid.title else grid.title
        rows, captions = grid.rows[start : start + LONGEST], grid.captions if is_last else ()
        yield replace(grid, title=title, rows=rows, captions=captions)


def _table(grid: Grid) -> str:
    caption = f"\\caption{{{tex(grid.title)}}}\\smallskip\n" if grid.title else ""
    return f"\\begin{{table}}[htbp]\n\\centering\n{caption}{grid.latex()}\n\\end{{table}}"


def _kept(line: str) -> str:
    """With all of its spaces; one without letters is a line, too."""
    return tex(line).replace("  ", r"\ \ ") or r"\mbox{}"


def _figure(path: Path, says: str, beside: Path) -> str:
    name = os.path.relpath(path, beside)
    if _IN_NAMES & set(name):
        image = f"% {plain(name)} has a name that LaTeX cannot read"
    else:
        image = rf"\includegraphics[width=\linewidth]{{\detokenize{{{name}}}}}"
    return f"\\begin{{figure}}[htbp]\n\\centering\n{image}\n\\caption{{{tex(says)}}}\n\\end{{figure}}"
