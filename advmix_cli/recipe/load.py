"""A TOML file and the edits of `--set` -> a Recipe, or every problem at once, each with its position."""

import copy
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, cast

from pydantic import ValidationError

from advmix_cli.errors import RecipeError, printable
from advmix_cli.files import read_text
from advmix_cli.recipe import problems
from advmix_cli.recipe.positions import Path, Position, locate
from advmix_cli.recipe.schema import Recipe, derived_name
from advmix_cli.recipe.shipped import find_recipe

DEEPEST = 20
"""Tables in tables; a recipe has four."""
LARGEST, LONGEST, MOST_DOTS = 64 * 1024, 4_000, 100
"""Bytes of a file, characters and dots of a line: what the time and memory of parsing grow with the square of."""


@dataclass(frozen=True)
class Edit:
    """Put `value` at `path`; `where` is the place to name if it turns out wrong."""

    path: Path
    value: object
    where: Position


@dataclass(frozen=True)
class Document:
    """A parsed TOML file that remembers where each key stands."""

    data: dict[str, Any]
    where: dict[Path, Position]

    def edited(self, edits: Sequence[Edit]) -> "Document":
        """A copy with `edits` made in order. A table in the way is created, a value at the path is replaced. A name
        that an evaluator has by its fields, which a resolved recipe spells, is what they then make it."""
        data, where = copy.deepcopy(self.data), dict(self.where)
        if edits:
            _leave_names_to_fields(data.get("evaluators"))
        for edit in edits:
            _assign(data, edit)
            for path in [known for known in where if known[: len(edit.path)] == edit.path]:
                del where[path]
            for end in range(1, len(edit.path) + 1):
                where.setdefault(edit.path[:end], edit.where)
        return Document(data, where)

    def recipe(self) -> Recipe:
        """The recipe that this document spells, or RecipeError with a line for each problem."""
        try:
            return Recipe.model_validate(self.data)
        except ValidationError as error:
            raise RecipeError(*problems.describe(error, Recipe, self.where)) from None


def read(path: FilePath) -> Document:
    """Parse the TOML file at `path`; RecipeError with the position where it is not TOML or not UTF-8."""
    try:
        text = read_text(path, LARGEST).removeprefix("\ufeff").replace("\r\n", "\n")
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not a TOML file: byte {error.start} is not UTF-8") from None
    except ValueError as error:
        raise RecipeError(f"{path}: not a recipe: {error}") from None
    for number, line in enumerate(text.split("\n"), 1):
        if complaint := _excess(line):
            raise RecipeError(f"{path}:{number}:1: {complaint}")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(_syntax(str(path), text, str(error))) from None
    except (ValueError, RecursionError):
        raise RecipeError(f"{path}: a number has too many digits, or arrays are nested too deep") from None
    if _depth(data) > DEEPEST:
        raise RecipeError(f"{path}: tables are nested more than {DEEPEST} deep")
    return Document(data, locate(text, str(path)))


def _excess(line: str) -> str | None:
    """What of a line is too much to be parsed. Dots that follow a dot are no key's."""
    if len(line) > LONGEST:
        return f"the line has {len(line):,} characters, and at most {LONGEST:,} are read"
    if line.count(".") > MOST_DOTS and len(re.findall(r"(?<!\.)\.", line)) > MOST_DOTS:
        return f"keys are nested too deep: the line has more than {MOST_DOTS} dots"
    return None


def is_table(document: Document) -> bool:
    """Whether this is a table's file, and not a recipe's."""
    return bool({"rows", "base"} & set(document.data))


def _depth(data: dict[str, Any]) -> int:
    """Of tables in tables; without recursion, which has a limit of its own."""
    depth, level = 0, [data]
    while level:
        depth += 1
        level = [
            cast("dict[str, Any]", inner) for table in level for inner in table.values() if isinstance(inner, dict)
        ]
    return depth


def load(name: str, settings: Sequence[str] = ()) -> Recipe:
    """The recipe in the file or with the shipped name `name`, edited by `settings`, each "a.b=VALUE"."""
    document = read(path := find_recipe(name))
    if is_table(document):
        raise RecipeError(f"{path}: this is a table, and a recipe is wanted")
    return document.edited([parse_setting(text) for text in settings]).recipe()


def parse_setting(text: str) -> Edit:
    """`a.b=VALUE`, as --set has it: a dotted key (an array's item by its number) and a TOML value."""
    shown = printable(text).replace("\n", "\\n")
    place = f"--set {shown if len(shown) <= 100 else shown[:97] + '...'}"
    key, equals, value = text.partition("=")
    if complaint := _excess(text):
        raise RecipeError(f"{place}: {complaint}")
    if not equals or not key.strip():
        raise RecipeError(f"{place}: write KEY=VALUE, for example --set maximizer.ascent.steps=10")
    try:
        parsed = toml_value(value)
    except ValueError:
        raise RecipeError(
            f"{place}: {value.strip()!r} is not a TOML value; a string needs quotes: '{key}=\"...\"'"
        ) from None
    path = tuple(int(part) if part.isdecimal() else part for part in key.strip().split("."))
    return Edit(path, parsed, Position(place))


def toml_value(text: str) -> object:
    """`text` as the right side of a key; ValueError if it is none, or more than one."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except RecursionError:
        raise ValueError("arrays are nested too deep") from None
    if list(parsed) != ["value"]:
        raise ValueError("more than one value")
    return parsed["value"]


def leaves(table: dict[str, Any], prefix: Path, where: dict[Path, Position]) -> list[Edit]:
    """The edits that a table of a file spells: one for each value in it that is not itself a table. RecipeError for an
    empty one, which says nothing."""
    edits: list[Edit] = []
    for key, value in table.items():
        if value == {}:
            name = ".".join(str(part) for part in (*prefix, key))
            raise RecipeError(f"{where[(*prefix, key)]}: {name} is an empty table, which changes nothing")
        if isinstance(value, dict):
            inner = leaves(cast("dict[str, Any]", value), (*prefix, key), where)
            edits += [Edit((key, *edit.path), edit.value, edit.where) for edit in inner]
        else:
            edits.append(Edit((key,), value, where[(*prefix, key)]))
    return edits


def _leave_names_to_fields(evaluators: object) -> None:
    for one in cast("list[Any]", evaluators) if isinstance(evaluators, list) else []:
        if isinstance(one, dict):
            found = cast("dict[str, Any]", one)
            # Names had no split once, and what was written then is there.
            if found.get("name") in (derived_name(found), derived_name({**found, "split": "test"})):
                found.pop("name", None)


def _assign(data: dict[str, Any], edit: Edit) -> None:
    here: Any = data
    for depth, part in enumerate(edit.path):
        last = depth == len(edit.path) - 1
        if isinstance(here, dict):
            table = cast("dict[str, Any]", here)
            if last:
                table[str(part)] = edit.value
            else:
                here = table.setdefault(str(part), {})
        elif isinstance(here, list) and isinstance(part, int):
            items = cast("list[Any]", here)
            if part >= len(items):
                name = ".".join(str(piece) for piece in edit.path[:depth])
                raise RecipeError(f"{edit.where}: {name} has {len(items)} items, the last is number {len(items) - 1}")
            if last:
                items[part] = edit.value
            else:
                here = items[part]
        else:
            name = ".".join(str(piece) for piece in edit.path[:depth])
            raise RecipeError(f"{edit.where}: {name} is {'an array' if isinstance(here, list) else 'not a table'}")


def _syntax(place: str, text: str, message: str) -> str:
    """tomllib ends its messages with "(at line 3, column 5)" or "(at end of document)"."""
    at = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if at:
        return f"{place}:{at[1]}:{at[2]}: not valid TOML: {message[: at.start()]}"
    lines = text.split("\n")
    reason = message.removesuffix(" (at end of document)")
    return f"{place}:{len(lines)}:{len(lines[-1]) + 1}: not valid TOML: {reason}"
