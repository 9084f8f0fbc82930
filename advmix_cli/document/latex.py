"""A document as a part of a LaTeX paper. Its figures stay where they are, named relative to where it goes."""

import os
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
            caption = f"\\caption{{{tex(part.title)}}}\\smallskip\n" if part.title else ""
            return f"\\begin{{table}}[htbp]\n\\centering\n{caption}{part.latex()}\n\\end{{table}}"
        case Drawing() | Photograph():
            return _figure(part.path, part.says, beside)
        case _:
            assert_never(part)


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
