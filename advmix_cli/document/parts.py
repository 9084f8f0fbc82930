"""What a document consists of, whatever it is written in. All text is as it came: who writes it escapes it."""

from dataclasses import dataclass
from pathlib import Path

from advmix_cli.report.grid import Grid


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Listing:
    """Lines that keep their breaks: a recipe, commands. `language` as Markdown names it."""

    text: str
    language: str = ""


@dataclass(frozen=True)
class Drawing:
    """A figure of ours, as PNG and SVG beside each other; `path` is that of the PNG, `says` what it shows, for those
    who do not see it too."""

    path: Path
    says: str


@dataclass(frozen=True)
class Photograph:
    """A PNG that another command has drawn."""

    path: Path
    says: str


Part = Text | Listing | Drawing | Photograph | Grid


@dataclass(frozen=True)
class Section:
    """Under a heading."""

    heading: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Document:
    """`about`: a line on what this is of. `stamps`: what everyone who takes a number from it must have read, each with
    its word in capitals first. `damage`: a message for each file that could not be read."""

    title: str
    about: str
    stamps: tuple[str, ...]
    damage: tuple[str, ...]
    sections: tuple[Section, ...]
