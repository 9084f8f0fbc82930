"""What cells of a table are there: by its name, or by what lies in a directory."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from advmix_cli import seals
from advmix_cli.ablation.cells import Cell, cells, select
from advmix_cli.ablation.order import kept_order
from advmix_cli.errors import RecipeError, UsageError
from advmix_cli.recipe import load
from advmix_cli.recipe.schema import Recipe
from advmix_cli.recipe.shipped import table_names
from advmix_cli.recipe.table import Row, Table, load_table
from advmix_cli.rundir import RECIPE, runs_in

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
    part: str = ""
    """Of an edit, or of some of the rows or seeds that are there: eight digits, the same for the same cells."""
    damage: tuple[str, ...] = ()

    @property
    def seeds(self) -> int:
        """Of the row that has most of them."""
        names = [cell.row.name for cell in self.cells]
        return max(map(names.count, names))


def named(name: str, out: Path, settings: Sequence[str], rows: Sequence[str], seeds: int | None) -> There:
    """The cells that `advmix ablate` with these options has; without `seeds` as many as there are. Without `settings`,
    where the only cells are those of one edit, these. UsageError, with a command for each edit that is there, if there
    is nothing of what is asked for."""
    if there := _asked(name, out, settings, rows, seeds):
        return there
    table = select(load_table(name), rows)
    directory = out / table.name
    found, _ = _recipes(directory)
    names = {row.name for row in table.rows}
    edits = _edits_in(table, [one for one in found if one[1].title in names])
    if not settings and len(edits) == 1:
        (only,) = edits
        if there := _asked(name, out, only, rows, seeds):
            return there
    what = "this edit" if settings else "this table"
    options = [*(word for row in rows for word in ("--rows", row)), *(["--seeds", str(seeds)] if seeds else [])]
    lines = _commands(name, out, edits, options)
    others = ", but of others:" if edits else f", but others are: advmix report {directory}" if found else ""
    raise UsageError("\n".join([f"{directory}: no cell of {what} is there{others}", *lines]))


def _asked(name: str, out: Path, settings: Sequence[str], rows: Sequence[str], seeds: int | None) -> There | None:
    """Just that; None if no cell of it is there."""
    table = select(load_table(name, settings), rows)
    directory = out / table.name
    there = _seeds_there(table, directory)
    todo = cells(table, seeds or there or 1, directory)
    if not any(cell.directory.is_dir() for cell in todo):
        return None
    part = _part(table, load_table(name), seeds if seeds and seeds < there else None)
    return There(table, todo, directory, name, tuple(rows), part)


def _seeds_there(table: Table, directory: Path) -> int:
    """How many there are, without a gap."""
    count, rows = 0, len(table.rows)
    while count < MOST_SEEDS:
        if not any(cell.directory.is_dir() for cell in cells(table, count + 1, directory)[count * rows :]):
            break
        count += 1
    return count


def _part(table: Table, whole: Table, seeds: int | None) -> str:
    """`There.part`. It is of what the rows are, not of how that was asked for."""
    rows, all_rows = ([[row.name, row.recipe.digest()] for row in one.rows] for one in (table, whole))
    if rows == all_rows and seeds is None:
        return ""
    return seals.digest(json.dumps([rows, seeds]))[:8]


def is_table_directory(place: Path) -> bool:
    """Whether cells lie in it."""
    return bool(runs_in(place))


def in_directory(place: Path) -> There:
    """The cells in `place`. Where its name is that of a shipped table that they are rows of, edited or not, that is the
    table; otherwise the rows are what they are called, in the order in which `ablate` last ran them. UsageError where
    cells of several edits lie, each of which has its own report."""
    found, damage = _recipes(place)
    if not found:
        raise UsageError("\n".join([f"{place}: none of its recipes can be read", *damage]))
    if place.name in table_names() and (known := _shipped(place, found)):
        return known._replace(damage=damage)
    return _by_title(place, found)._replace(damage=damage)


def _recipes(place: Path) -> tuple[list[tuple[Path, Recipe]], tuple[str, ...]]:
    """Of the cells in `place`, and a message for each that cannot be read."""
    found: list[tuple[Path, Recipe]] = []
    damage: list[str] = []
    for directory in runs_in(place):
        try:
            found.append((directory, load.read(directory / RECIPE).recipe()))
        except RecipeError as error:
            damage.append(str(error).partition("\n")[0])
    return found, tuple(damage)


def _shipped(place: Path, found: Sequence[tuple[Path, Recipe]]) -> There | None:
    table = load_table(place.name)
    if not {recipe.title for _, recipe in found} <= {row.name for row in table.rows}:
        return None
    edits = _edits_in(table, found)
    if len(edits) > 1:
        lines = _commands(place.name, place.parent, edits)
        raise UsageError("\n".join([f"{place} holds cells of {len(edits)} edits of this table; name one:", *lines]))
    (settings,) = edits
    try:
        known = _asked(place.name, place.parent, settings, (), None)
    except UsageError:  # what no row of the table can be made of
        return None
    there = {directory for directory, _ in found}
    return known if known and there <= {cell.directory for cell in known.cells} else None


def _edits_in(table: Table, found: Sequence[tuple[Path, Recipe]]) -> dict[tuple[str, ...], int]:
    """The edits of `table` whose cells these are, and how many each has. All have the names of its rows."""
    by_name = {row.name: row.recipe for row in table.rows}
    seeds: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for _, recipe in found:
        row = by_name[recipe.title]
        seeds.setdefault(_edits(row, recipe), []).append((recipe.seed, row.seed))
    # The seeds count up from the row's own, unless that was edited, too.
    return {
        edits if any(own == first for own, first in those) else (f"seed={min(those)[0]}", *edits): len(those)
        for edits, those in seeds.items()
    }


def _commands(name: str, out: Path, edits: Mapping[tuple[str, ...], int], options: Sequence[str] = ()) -> list[str]:
    """One for each of the edits."""
    found: list[str] = []
    for settings, count in edits.items():
        words = ["advmix", "report", name, "--out", str(out), *options]
        line = shlex.join([*words, *(word for setting in settings for word in ("--set", setting))])
        found.append(f"  {line}  ({count} of them)")
    return found


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
    places = {name: number for number, name in enumerate(kept_order(place))}
    rows: dict[str, Row] = {}
    own: list[Cell] = []

    def place_of(name: str) -> int:
        return places.get(name, len(places))

    named = [(recipe.title or directory.name, directory, recipe) for directory, recipe in found]
    for name, directory, recipe in sorted(named, key=lambda one: (one[2].seed, place_of(one[0]), one[1])):
        row = rows.setdefault(name, Row(name, recipe, {}))
        if _edits(row.recipe, recipe):
            raise UsageError(
                f"{place}: two experiments are called '{name}': name the table's file, with its --set and "
                f"--out {place.parent}"
            )
        own.append(Cell(Row(name, recipe, {}), directory))
    # A row may lack its first seeds.
    first = min(recipe.seed for _, recipe in found)
    whole = [Row(row.name, row.recipe.model_copy(update={"seed": first}), {}) for row in rows.values()]
    in_order = sorted(whole, key=lambda row: place_of(row.name))
    return There(Table(place.name, place.name, tuple(in_order)), own, place, None)
