"""A document in Markdown. Its figures stay where they are, named relative to where it goes."""

import os
import re
from pathlib import Path
from typing import assert_never
from urllib.parse import quote

from advmix_cli.document.parts import Document, Drawing, Listing, Part, Photograph, Text
from advmix_cli.errors import printable
from advmix_cli.report.escapes import markdown
from advmix_cli.report.grid import Grid


def to_markdown(document: Document, beside: Path) -> str:
    """`beside`: the directory that it will lie in."""
    blocks = [f"# {markdown(document.title)}", markdown(document.about)]
    stamps = [*document.stamps, *(f"DAMAGED: {text}" for text in document.damage)]
    blocks += ["\n".join(f"- **{markdown(word)}**{colon}{markdown(rest)}" for word, colon, rest in _parted(stamps))]
    for section in document.sections:
        blocks += [f"## {markdown(section.heading)}", *(_part(part, beside) for part in section.parts)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _parted(stamps: list[str]) -> list[tuple[str, str, str]]:
    return [stamp.partition(":") for stamp in stamps]


def _part(part: Part, beside: Path) -> str:
    match part:
        case Text():
            return markdown(part.text)
        case Listing():
            text = printable(part.text).rstrip("\n")
            longest = max((len(run) for run in re.findall("`+", text)), default=0)
            fence = "`" * max(3, longest + 1)
            return f"{fence}{part.language}\n{text}\n{fence}"
        case Grid():
            return part.markdown()
        case Drawing():
            return _image(part.path.with_suffix(".svg"), part.says, beside)
        case Photograph():
            return _image(part.path, part.says, beside)
        case _:
            assert_never(part)


def _image(path: Path, says: str, beside: Path) -> str:
    return f"![{markdown(says)}]({quote(os.path.relpath(path, beside))})"
