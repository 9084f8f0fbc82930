"""An SVG of ours -> the same within a page, whose style sheet gives it its colours, and so those of the dark."""

import re

from advmix_cli.report.escapes import html
from advmix_cli.report.figures import GREY, GRID, INK, LINES

# Of a figure's colours: the variable, and its value in the light and in the dark. Okabe and Ito's, whose dark ones are
# lighter in the dark.
VARIABLES = {
    "blue": ("#0072b2", "#56b4e9"),
    "amber": ("#e69f00", "#e69f00"),
    "green": ("#009e73", "#2bc59a"),
    "vermilion": ("#d55e00", "#ff8433"),
    "pink": ("#cc79a7", "#dd94bd"),
}
_NAMES = {
    INK: "currentColor",
    "#ffffff": "var(--paper)",
    GREY: "var(--grey)",
    GRID: "var(--grid)",
    **{light: f"var(--{name})" for name, (light, _) in VARIABLES.items()},
}
assert {colour.lower() for colour, *_ in LINES} <= set(_NAMES)
SMALLEST, LARGEST = 0.85, 1.25
"""Of a figure's natural size: below the first its letters cannot be read, and it scrolls in its box instead."""


def inlined(svg: str, name: str, says: str) -> str:
    """`svg` as matplotlib writes it. `name` is in front of its ids, which are those of other figures too; `says` is
    read to those who do not see it."""
    inner = svg[svg.index("<svg") :]
    inner = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", inner, flags=re.DOTALL)
    opening, inner = inner[: inner.index(">") + 1], inner[inner.index(">") + 1 :]
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)
    assert box
    inner = inner.replace("xlink:href", "href")
    inner = re.sub(r'\bid="', f'id="{name}-', inner)
    inner = re.sub(r'\bhref="#', f'href="#{name}-', inner)
    inner = inner.replace("url(#", f"url(#{name}-")
    inner = re.sub(r"#[0-9a-f]{6}\b(?=[;\"])", lambda found: _NAMES.get(found[0], found[0]), inner)
    inner = re.sub(r"\n\s*", "\n", inner)
    size = sized(float(box[1]) * 4 / 3)  # a point is 4/3 of CSS's pixels
    return f'<svg role="img" aria-label="{html(says)}" viewBox="{box[0][9:-1]}" style="{size}">{inner}'


def sized(width: float) -> str:
    """The style of a figure of so many pixels of CSS."""
    return f"min-width: {SMALLEST * width:.0f}px; max-width: {LARGEST * width:.0f}px"
