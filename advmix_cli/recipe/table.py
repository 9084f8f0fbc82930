"""A table file: a base recipe, rows with what they change, and the paper's numbers to print beside ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from advmix_cli.errors import RecipeError, UsageError, printable
from advmix_cli.recipe import problems
from advmix_cli.recipe.fields import Section, Title
from advmix_cli.recipe.load import Document, Edit, is_table, leaves, parse_setting, read
from advmix_cli.recipe.schema import Recipe
from advmix_cli.recipe.shipped import find_any, find_recipe, find_table
from advmix_cli.recipe.suggest import did_you_mean

Percent = Annotated[float, Field(ge=0, le=100)]


class _Row(Section):
    name: Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
    set: dict[str, Any] = Field(default_factory=dict)
    """Leaves of the base recipe, with the values that this row gives them."""
    paper: dict[str, Percent] = Field(default_factory=dict)
    """The published accuracy in percent, by the evaluator's name."""


class _TableFile(Section):
    title: Title = ""
    base: str
    """A shipped recipe, or a path relative to this file."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Leaves of the base recipe, with the values that all rows give them, before their own."""
    rows: Annotated[list[_Row], Field(min_length=1)]


@dataclass(frozen=True)
class Row:
    """A line of the table: one recipe, and the published accuracy in percent by the evaluator's name."""

    name: str
    recipe: Recipe
    paper: dict[str, float]


@dataclass(frozen=True)
class Table:
    """An ablation: rows that are all measured by the same evaluators. `settings` are the edits that the file knows
    nothing of: with them the published numbers are those of another experiment."""

    name: str
    title: str
    rows: tuple[Row, ...]
    settings: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the evaluators."""
        return tuple(evaluator.name for evaluator in self.rows[0].recipe.evaluators)


def load_table(name: str, settings: Sequence[str] = ()) -> Table:
    """The table in the file or with the shipped name `name`; `settings` ("a.b=VALUE") edit every row, after its own."""
    document = read(path := find_table(name))
    if not is_table(document) and "maximizer" in document.data:
        raise RecipeError(f"{path}: this is a recipe, and a table is wanted")
    return _table(path, document, settings)


def load_any(name: str, settings: Sequence[str] = ()) -> Table:
    """The table in the file or with the shipped name `name`, or the recipe there as a table of one row."""
    path = find_any(name)
    document = read(path)
    if is_table(document):
        return _table(path, document, settings)
    recipe = document.edited([parse_setting(text) for text in settings]).recipe()
    name = printable(path.stem)
    return Table(_directory(path), recipe.title, (Row(recipe.title or name, recipe, {}),), tuple(settings))


def check_file(path: Path) -> str:
    """What the recipe or table file at `path` is, in a word or two; RecipeError with all of its problems."""
    document = read(path)
    if is_table(document):
        return f"a table of {len(_table(path, document, []).rows)} rows"
    return f"a recipe, digest {document.recipe().digest()[:12]}"


def _table(path: Path, document: Document, settings: Sequence[str]) -> Table:
    try:
        file = _TableFile.model_validate(document.data)
    except ValidationError as error:
        raise RecipeError(*problems.describe(error, _TableFile, document.where)) from None
    try:
        base = read(place := find_recipe(file.base, beside=path.parent))
    except RecipeError:
        raise
    except UsageError as error:
        raise RecipeError(f"{document.where['base',]}: {error}") from None
    if is_table(base):
        raise RecipeError(f"{document.where['base',]}: base = {place} is a table, and a recipe is wanted")
    # The file is checked as it stands, so that what `settings` do to it is told apart from what is wrong in it.
    rows = _rows(document, file, base, [])
    columns = [evaluator.name for evaluator in rows[0].recipe.evaluators]
    _raise_if(
        [
            f"{document.where['rows', index]}: row '{row.name}' gives the paper's '{name}', which is no evaluator"
            f"{did_you_mean(name, columns)} (there are: {', '.join(columns)})"
            for index, row in enumerate(rows)
            for name in row.paper
            if name not in columns
        ]
    )
    if settings:
        rows = _rows(document, file, base, [parse_setting(text) for text in settings])
    return Table(_directory(path), file.title, tuple(rows), tuple(settings))


def _directory(path: Path) -> str:
    """A table's name is that of the directory of its cells; the stem of "...toml" is ".."."""
    return printable(path.stem).strip(".") or "table"


def _rows(document: Document, file: _TableFile, base: Document, edits: Sequence[Edit]) -> list[Row]:
    """The rows of `file`, each edited by what all have in common, then by its own, then by `edits`; RecipeError with
    every fault, a line each. Rows can stand in one table if their names and recipes differ and their evaluators do
    not."""
    faults: list[str] = []
    rows: list[Row] = []
    common = leaves(file.set, ("set",), document.where)
    for index, row in enumerate(file.rows):
        try:
            own = leaves(row.set, ("rows", index, "set"), document.where)
            rows.append(Row(row.name, base.edited([*common, *own, *edits]).recipe(), row.paper))
        except RecipeError as error:
            # A fault of the base is every row's: say it once.
            faults += [line for line in str(error).splitlines() if line not in faults]
    if faults and _is_whole(base):
        faults = [f"{line}{STAYS}" if _is_left_over(line, base) else line for line in faults]
    _raise_if(faults)
    names: dict[str, Row] = {}
    digests: dict[str, Row] = {}
    for index, row in enumerate(rows):
        where, digest = document.where["rows", index], row.recipe.digest()
        if row.recipe.evaluators != rows[0].recipe.evaluators:
            faults.append(f"{where}: row '{row.name}' has other evaluators than row '{rows[0].name}'")
        if row.name in names:
            faults.append(f"{where}: two rows are called '{row.name}'")
        if digest in digests:
            faults.append(f"{where}: row '{row.name}' is the same experiment as row '{digests[digest].name}'")
        names.setdefault(row.name, row)
        digests.setdefault(digest, row)
    _raise_if(faults)
    return rows


STAYS = "; a row keeps what its base has: for rows of several kinds take a base without it"


def _is_whole(base: Document) -> bool:
    try:
        base.recipe()
    except RecipeError:
        return False
    return True


def _is_left_over(fault: str, base: Document) -> bool:
    """Whether it is of a field that the base has for the kind that it has."""
    return fault.startswith(f"{base.where[()].place}:") and problems.NO_MEANING in fault


def _raise_if(faults: Sequence[str]) -> None:
    if faults:
        raise RecipeError(*faults)
