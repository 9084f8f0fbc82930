"""What is to be planned: a table, or a recipe as a table of one row."""

from collections.abc import Sequence

from advmix_cli.recipe.load import load, read
from advmix_cli.recipe.shipped import find_any
from advmix_cli.recipe.table import Row, Table, load_table


def load_subject(name: str, settings: Sequence[str] = ()) -> Table:
    """The recipe or table in the file or with the shipped name `name`, edited by `settings`."""
    path = find_any(name)
    if {"rows", "base"} & set(read(path).data):
        return load_table(str(path), settings)
    recipe = load(str(path), settings)
    return Table(path.stem, recipe.title, (Row(recipe.title or path.stem, recipe, {}),), tuple(settings))
