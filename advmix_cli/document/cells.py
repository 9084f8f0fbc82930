"""What cells of a table are there: by its name, or by what lies in a directory."""

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from advmix_cli.ablation.cells import Cell, cells, select
from advmix_cli.errors import RecipeError, UsageError
from advmix_cli.recipe import load
from advmix_cli.recipe.schema import Recipe
from advmix_cli.recipe.shipped import table_names
from advmix_cli.recipe.table import Row, Table, load_table
from advmix_cli.run import RECIPE, flat

MOST_SEEDS = 1000


class There(NamedTuple):
    """A `table` and its `cells` in `directory`. `name` is what `advmix ablate` calls it, None if that is not known;
    `damage` has a message for each recipe that cannot be read."""

    table: Table
    cells: list[Cell]
    directory: Path
    name: str | None
    rows: tuple[str, ...] = ()
    """Those that were asked for; all without."""
    damage: tuple[str, ...] = ()

    @property
    def seeds(self) -> int:
        """Of the row that has most of them."""
        names = [cell.row.name for cell in self.cells]
        return max(map(names.count, names))


def named(name: str, out: Path, settings: Sequence[str], rows: Sequence[str], seeds: int | None) -> There:
    """The cells that `advmix ablate` with these options has; without `seeds` as many as there are. UsageError if there
    is none."""
    table = select(load_table(name, settings), rows)
    directory = out / table.name
    todo = cells(table, seeds or 1, directory)
    while seeds is None and len(todo) < MOST_SEEDS * len(table.rows):
        more = cells(table, len(todo) // len(table.rows) + 1, directory)
        if not any(cell.directory.is_dir() for cell in more[len(todo) :]):
            break
        todo = more
    if not any(cell.directory.is_dir() for cell in todo):
        others = f", but others are: advmix report {directory}" if directory.is_dir() else ""
        raise UsageError(f"{directory}: no cell of this table is there{others}")
    return There(table, todo, directory, name, tuple(rows))


def is_table_directory(place: Path) -> bool:
    """Whether cells lie in it."""
    return any(place.glob(f"*/{RECIPE}"))


def in_directory(place: Path) -> There:
    """The cells in `place`. Where its name is that of a shipped table that they are rows of, edited or not, that is the
    table; otherwise the rows are what they are called. UsageError where cells of several edits lie, each of which
    has its own report."""
    found: list[tuple[Path, Recipe]] = []
    damage: list[str] = []
    for path in sorted(place.glob(f"*/{RECIPE}")):
        try:
            found.append((path.parent, load.read(path).recipe()))
        except RecipeError as error:
            damage.append(str(error).partition("\n")[0])
    if not found:
        raise UsageError("\n".join([f"{place}: none of its recipes can be read", *damage]))
    if place.name in table_names() and (known := _shipped(place, found)):
        return known._replace(damage=tuple(damage))
    return _by_title(place, found)._replace(damage=tuple(damage))


def _shipped(place: Path, found: Sequence[tuple[Path, Recipe]]) -> There | None:
    table = load_table(place.name)
    variants: dict[tuple[str, ...], int] = {}
    for _, recipe in found:
        row = next((row for row in table.rows if row.name == recipe.title), None)
        if row is None:
            return None
        edits = _edits(row.recipe, recipe)
        variants[edits] = variants.get(edits, 0) + 1
    if len(variants) > 1:
        lines = [f"  {_command(place, edits)}  ({count} of them)" for edits, count in variants.items()]
        raise UsageError("\n".join([f"{place} holds cells of {len(variants)} edits of this table; name one:", *lines]))
    (settings,) = variants
    there = {directory for directory, _ in found}
    try:
        known = named(place.name, place.parent, settings, (), None)
    except UsageError:  # what no row of the table can be made of
        return None
    return known if there <= {cell.directory for cell in known.cells} else None


def _command(place: Path, edits: Sequence[str]) -> str:
    words = ["advmix", "report", place.name, "--out", str(place.parent)]
    return shlex.join([*words, *(word for edit in edits for word in ("--set", edit))])


def _edits(row: Recipe, recipe: Recipe) -> tuple[str, ...]:
    """What --set makes `recipe` of `row`, but for seed and title."""
    ours, theirs = ({**one.resolved(), "seed": 0, "title": ""} for one in (row, recipe))
    return tuple(_differences(ours, theirs))


def _differences(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Field by field. What lacks a field is replaced as a whole, and so is an array."""
    for key in [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]:
        one, other, name = ours.get(key), theirs.get(key), f"{prefix}{key}"
        if isinstance(one, dict) and isinstance(other, dict) and set(one) <= set(other):
            yield from _differences(one, other, f"{name}.")
        else:
            yield f"{name}={_toml(other)}"


def _toml(value: object) -> str:
    """On one line."""
    match value:
        case dict():
            return f"{{{', '.join(f'{key}={_toml(inner)}' for key, inner in value.items())}}}"
        case list():
            return f"[{', '.join(map(_toml, value))}]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _by_title(place: Path, found: Sequence[tuple[Path, Recipe]]) -> There:
    rows: dict[str, Row] = {}
    own: list[Cell] = []
    for directory, recipe in sorted(found, key=lambda one: (one[1].seed, one[0])):
        name = recipe.title or directory.name
        row = rows.setdefault(name, Row(name, recipe, {}))
        if _edits(row.recipe, recipe):
            raise UsageError(
                f"{place}: two experiments are called '{name}': name the table's file, with its --set and "
                f"--out {place.parent}"
            )
        own.append(Cell(Row(name, recipe, {}), directory))
    return There(Table(place.name, place.name, tuple(rows.values())), own, place, None)


def changed(base: Recipe, other: Recipe) -> dict[str, Any]:
    """The fields in which `other` is not as `base`, with its values; None for one that it has not."""
    ours, theirs = flat(base.resolved()), flat(other.resolved())
    return {
        key: theirs.get(key)
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key) and key not in ("seed", "title")
    }
