"""The options that several commands have."""

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from advmix_cli.report.tracking import Kind

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A .toml file, or the name of a shipped recipe.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a field; VALUE is TOML. Can be repeated."),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, max=2**31 - 1, metavar="N", help="Instead of the recipe's.")]
DeviceName = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]


def _seconds(text: str) -> float:
    """ "90s", "9m", "1.5h", or a number of seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not found:
        raise typer.BadParameter(f"{text!r} is no time; write 90s, 9m or 1.5h")
    seconds = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]
    if seconds > 1e8:
        raise typer.BadParameter(f"{text!r} is more than three years")
    return seconds


def some_seconds(text: str) -> float:
    """As `_seconds`, and more than none."""
    seconds = _seconds(text)
    if not seconds:
        raise typer.BadParameter(f"{text!r} is no time to work in; write 90s, 9m or 1.5h")
    return seconds


StopAfter = Annotated[
    float | None,
    typer.Option("--stop-after", metavar="TIME", parser=some_seconds, help="Stop by then (90s, 9m), all work saved."),
]
SaveEvery = Annotated[
    float,
    typer.Option("--save-every", metavar="TIME", parser=_seconds, help="How often to save an unfinished training."),
]


class Tracker(StrEnum):
    """Of a training's epochs."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"


Track = Annotated[
    list[Tracker] | None,
    typer.Option(
        "--track",
        help="Copy what metrics.jsonl has of each epoch, and the results, into tensorboard/ of the run's directory, "
        "or into an offline run in its wandb/; nothing is sent. Can be repeated.",
    ),
]


def trackers(track: list[Tracker] | None) -> "list[Kind]":
    """What `report.tracking` calls them; UsageError if a package is missing."""
    from advmix_cli.report.tracking import check

    kinds: list[Kind] = [cast("Any", one.value) for one in track or []]
    check(kinds)
    return kinds


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
