"""The recipes and tables that come with advmix. A name is a file's stem."""

from collections.abc import Sequence
from pathlib import Path

from advmix_cli.errors import UsageError
from advmix_cli.recipe.suggest import did_you_mean

# Inside a wheel the recipes lie in the package; in a checkout they are the top-level folder beside it.
_PACKAGED = Path(__file__).parent.parent / "recipes"
_CHECKOUT = Path(__file__).parent.parent.parent / "recipes"
ROOT = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT


def recipe_names() -> list[str]:
    """The names of the shipped recipes, sorted."""
    return sorted(path.stem for path in ROOT.glob("*.toml"))


def table_names() -> list[str]:
    """The names of the shipped tables, sorted."""
    return sorted(path.stem for path in (ROOT / "tables").glob("*.toml"))


def find_recipe(name: str, beside: Path | None = None) -> Path:
    """The file of a recipe given as a path (relative to `beside`, or to here) or as a shipped name."""
    return _find(name, beside, ROOT, recipe_names(), "recipe")


def find_table(name: str) -> Path:
    """The file of a table given as a path or as a shipped name."""
    return _find(name, None, ROOT / "tables", table_names(), "table")


def find_any(name: str) -> Path:
    """The file of a recipe or of a table; a name that both have is the recipe's, and tables/NAME the table's."""
    kind, slash, stem = name.partition("/")
    if slash and kind == "tables" and stem in table_names():
        return find_table(stem)
    if name in table_names() and name not in recipe_names():
        return find_table(name)
    return _find(name, None, ROOT, recipe_names(), "recipe", also=table_names())


def _find(name: str, beside: Path | None, folder: Path, names: list[str], what: str, also: Sequence[str] = ()) -> Path:
    if name in names:
        return folder / f"{name}.toml"
    path = (beside or Path()) / name
    if path.is_file():
        return path
    if path.suffix == ".toml" or path.name != name:
        raise UsageError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")
    others = {"recipe": table_names, "table": recipe_names}[what]()
    hint = (
        f": it is a {'table' if what == 'recipe' else 'recipe'}"
        if name in others and not also
        else did_you_mean(name, [*names, *also])
    )
    shipped = ", ".join(dict.fromkeys([*names, *also]))
    raise UsageError(f"no shipped {what} is called '{name}'{hint} (shipped: {shipped}; a file ends in .toml)")
