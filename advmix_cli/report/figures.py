"""How figures look, and how they are written: as PNG and as SVG, the same bytes for the same numbers and versions.

This module and what imports it is imported late: matplotlib takes its time.
"""

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from advmix_cli.errors import printable
from advmix_cli.files import write_atomically

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "advmix",  # the same names in every file
    "font.family": "DejaVu Sans",  # comes with matplotlib, and has the Greek
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
RESOLUTION = 200
"""Dots of a PNG, an inch."""
INK, GREY, GRID = "#000000", "#666666", "#dddddd"
# Okabe and Ito's colours, which the colour-blind tell apart, and dashes and marks, which print in black does.
LINES = (
    ("#000000", "-", "o"),
    ("#0072B2", "--", "s"),
    ("#E69F00", "-.", "v"),
    ("#009E73", (0, (6, 1.5)), "D"),
    ("#D55E00", "-", "^"),
    ("#CC79A7", (0, (1, 1)), "P"),
)


def as_text(name: str, longest: int) -> str:
    """A name of the user's, of which nothing is a formula, cut where it would not fit."""
    shown = name if len(name) <= longest else f"{name[: longest - 1]}…"
    return printable(shown).replace("\n", " ").replace("$", r"\$")


def written(drawn: Mapping[str, Callable[[], Figure | None]], directory: Path) -> list[Path]:
    """Draw each figure, and write NAME.png and NAME.svg of those that there are."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in letters that the font lacks gets boxes
        figures = {name: _laid_out(figure) for name, draw in drawn.items() if (figure := draw())}
        return [
            _written(figure, directory / f"{name}.{form}")
            for name, figure in figures.items()
            for form in ("png", "svg")
        ]


def _laid_out(figure: Figure) -> Figure:
    """With its panels where the layout puts them, to a millionth of the figure: the solver's last digits depend on
    where its objects lie in memory, and the names in an SVG on every digit."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(number, 6) for number in axes.get_position(original=True).bounds)
        axes.set_position((left, bottom, width, height))
    return figure


def _written(figure: Figure, path: Path) -> Path:
    stream = io.BytesIO()
    form = path.suffix[1:]
    # Without a date.
    metadata = {"svg": {"Date": None}, "png": {}}[form]
    figure.savefig(stream, format=form, dpi=RESOLUTION, metadata=metadata)
    write_atomically(path, stream.getvalue())
    return path
