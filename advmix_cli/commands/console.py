"""Where the commands print: results on stdout, all else on stderr."""

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from advmix_cli.errors import printable

if TYPE_CHECKING:
    from advmix_cli.report.grid import Grid

out = Console()
err = Console(stderr=True)


def say(text: str) -> None:
    """A line of text on stderr, as it is: no markup, no colours, not wrapped."""
    err.print(printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)


class Format(StrEnum):
    """Of a table on stdout."""

    RICH = "rich"
    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"
    JSON = "json"


def print_table(form: Format, grid: "Grid", records: list[dict[str, Any]], **more: Any) -> None:
    """`more`: what JSON says beside the records."""
    from advmix_cli.report.grid import write_csv

    match form:
        case Format.RICH:
            grid.print(out)
        case Format.MARKDOWN:
            typer.echo(grid.markdown())
        case Format.LATEX:
            typer.echo(grid.latex())
        case Format.CSV:
            typer.echo(write_csv(records))
        case Format.JSON:
            print_json({"title": grid.title, "captions": grid.captions, **more, "cells": records})


def print_json(document: dict[str, Any]) -> None:
    """In UTF-8, or in ASCII where stdout is something else: what it cannot write would be question marks."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=out.encoding != "utf-8"))
