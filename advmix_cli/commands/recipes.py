"""`advmix recipe`."""

from typing import Annotated

import typer

from advmix_cli.commands.console import print_json
from advmix_cli.commands.options import RecipeName, Settings
from advmix_cli.errors import RecipeError, UsageError

recipes = typer.Typer(no_args_is_help=True, help="Check, show and list recipes.")


@recipes.command("check")
def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Recipe or table files, or shipped names.")],
) -> None:
    """Check recipes and tables, and show every problem with its position."""
    from advmix_cli.recipe.shipped import find_any
    from advmix_cli.recipe.table import check_file

    faults: list[str] = []
    for name in files:
        try:
            typer.echo(f"{name}: ok, {check_file(find_any(name))}")
        except UsageError as error:
            faults.append(str(error))
    if faults:
        raise RecipeError(*faults)


@recipes.command("show")
def show(recipe: RecipeName, settings: Settings = None) -> None:
    """Print a recipe with every field resolved, as TOML."""
    import tomli_w

    from advmix_cli.recipe.load import load

    typer.echo(tomli_w.dumps(load(recipe, settings or []).resolved()), nl=False)


@recipes.command("list")
def list_shipped() -> None:
    """List the shipped recipes and tables."""
    from advmix_cli.recipe.load import read
    from advmix_cli.recipe.shipped import find_recipe, find_table, recipe_names, table_names

    for what, names, find in (("recipes", recipe_names(), find_recipe), ("tables", table_names(), find_table)):
        typer.echo(f"{what}:")
        for name in names:
            typer.echo(f"  {name:<24} {read(find(name)).data.get('title', '')}")


@recipes.command("schema")
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from advmix_cli.recipe.schema import Recipe

    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()})
