"""`advmix status`."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advmix_cli.commands.console import out, print_json
from advmix_cli.commands.options import Json
from advmix_cli.errors import AdvmixError, RecipeError, UsageError, printable

if TYPE_CHECKING:
    from advmix_cli.ablation.board import Entry

UNBOUNDED = 1000
"""Columns of what is no terminal."""


def status(
    place: Annotated[Path, typer.Argument(metavar="DIR", help="A run, a table's directory, or one of tables.")] = Path(
        "runs"
    ),
    as_json: Json = False,
) -> None:
    """Show how runs stand, while they go on or afterwards: from their files alone, and without touching them."""
    from advmix_cli.ablation.board import board, problems, record, runs_of, summary
    from advmix_cli.ablation.eta import etas, total

    tables = _tables(place)
    if not tables:
        raise UsageError(
            f"{place} holds no run, nor do the directories in it: name a run, a table's directory, or one of tables"
        )
    document: list[dict[str, object]] = []
    for directory, entries in tables:
        jobs = sum(one.state == "running" for one in entries)
        left = iter(etas(runs_of(entries)))
        records = [record(one, next(left) if one.standing else None) for one in entries]
        eta = total(runs_of(entries), jobs)
        document.append({
            "directory": str(directory),
            "runs": records,
            "summary": summary(entries, jobs),
            "eta_seconds": eta and eta.seconds,
            "eta_at_least": eta and eta.at_least,
        })  # fmt: skip
        if not as_json:
            with _whole_lines():
                out.print(board(str(directory), entries, jobs, out.width))
            for line in problems(entries):
                out.print(printable(line), markup=False, highlight=False, soft_wrap=True)
            out.print()
    if as_json:
        print_json({"tables": document})
    damaged = [one.directory for _, entries in tables for one in entries if one.problem]
    if damaged:
        raise AdvmixError(f"damaged: {', '.join(map(str, damaged))}")


@contextmanager
def _whole_lines() -> Iterator[None]:
    """Within, a file or a pipe gets lines that are as long as they need to be."""
    before = out.width
    if not out.is_terminal:
        out.width = UNBOUNDED
    yield
    out.width = before


def _tables(place: Path) -> "list[tuple[Path, list[Entry]]]":
    """The runs in `place`: itself, those right in it, those in the directories in it; with the directory of each."""
    from advmix_cli.ablation.order import kept_order
    from advmix_cli.rundir import is_run, runs_in

    if is_run(place):
        return [(place, _entries([place], []))]
    if not place.is_dir():
        raise UsageError(f"{place} is not {'a directory' if place.exists() else 'there'}")
    inside = [path for path in sorted(place.iterdir()) if path.is_dir() and os.access(path, os.R_OK | os.X_OK)]
    found = [(directory, runs_in(directory)) for directory in (place, *inside)]
    return [(directory, _entries(runs, kept_order(directory))) for directory, runs in found if runs]


def _entries(runs: list[Path], order: list[str]) -> "list[Entry]":
    """Seed by seed, those that are called as in `order` in that order, the others behind them by their names."""
    from advmix_cli.ablation.board import Entry, entry
    from advmix_cli.recipe.load import read
    from advmix_cli.rundir import RECIPE

    found: list[Entry] = []
    for directory in runs:
        try:
            recipe = read(directory / RECIPE).recipe()
        except RecipeError as error:
            found.append(Entry(directory.name, directory, None, None, str(error)))
            continue
        found.append(entry(recipe.title or directory.name, recipe, directory))
    places = {name: number for number, name in enumerate(order)}
    found.sort(key=lambda one: (one.recipe.seed if one.recipe else 0, places.get(one.name, len(places)), one.name))
    # Two edits of a row, and runs of one recipe in several places, are told apart by their directories.
    named = Counter(one.title for one in found)
    return [replace(one, name=one.directory.name) if named[one.title] > 1 else one for one in found]
