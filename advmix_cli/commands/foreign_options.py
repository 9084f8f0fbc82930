"""The options of `advmix eval` for a network of others."""

from typing import Annotated

import typer

from advmix_cli.errors import UsageError

_PANEL = "A network of others"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="FACTORY",
        rich_help_panel=_PANEL,
        help="package.module:name or path/to/file.py:name, which makes a torch module. This runs its code.",
    ),
]
ModelArgs = Annotated[
    str | None,
    typer.Option(
        "--model-args",
        metavar="TABLE",
        rich_help_panel=_PANEL,
        help="Keyword arguments of the factory, as TOML: '{num_classes=10}'.",
    ),
]
InputRange = Annotated[
    str | None,
    typer.Option(
        "--input-range",
        metavar="LOW,HIGH",
        rich_help_panel=_PANEL,
        help="What black and white are to the module; 0,1 by default.",
    ),
]
Normalize = Annotated[
    str | None,
    typer.Option(
        "--normalize",
        metavar="MEAN/STD",
        rich_help_panel=_PANEL,
        help="Of each channel, in units of the input range: 0.49,0.48,0.45/0.25,0.24,0.26. None by default.",
    ),
]
DataName = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        rich_help_panel=_PANEL,
        help="digits, cifar10, cifar100, fashion-mnist or folder; --set edits data.root and the rest.",
    ),
]
JudgedBy = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        rich_help_panel=_PANEL,
        help="Whose data, threat, evaluators and threads are used; by default pristine, PGD20, AutoAttack at 8/255.",
    ),
]


def raise_if_given(
    model_args: str | None, input_range: str | None, normalize: str | None, data: str | None, recipe: str | None
) -> None:
    """UsageError for an option that means nothing without --model."""
    given = {
        "--model-args": model_args, "--input-range": input_range, "--normalize": normalize, "--data": data,
        "--recipe": recipe,
    }  # fmt: skip
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"{name} is for a network of others: it has no meaning without --model")
