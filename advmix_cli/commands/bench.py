"""`advmix bench`."""

from enum import StrEnum
from typing import Annotated

import typer

from advmix_cli.commands.console import err, out, print_json
from advmix_cli.commands.options import DeviceName, Json, RecipeName, Settings


class Arm(StrEnum):
    """The field's loops, and the engine's formulations."""

    TEXTBOOK = "textbook"
    MIXUP = "textbook-mixup"
    BF16 = "textbook-bf16"
    DELTA_ONLY = "delta-only"
    EAGER = "eager"
    COMPILED = "compiled"
    CAPTURED = "captured"
    REDUCE_OVERHEAD = "reduce-overhead"


Arms = Annotated[
    list[Arm] | None,
    typer.Option(
        "--arm",
        help="Race only this one. Can be repeated. By default all that the device has.",
    ),
]


def bench(
    recipe: RecipeName,
    arm: Arms = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, metavar="N", help="Measurements of each arm.")] = 7,
    device: DeviceName = "auto",
    profile: Annotated[bool, typer.Option("--profile", help="Say where the time of a batch goes, too.")] = False,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Measure the training speed of a recipe beside the loops that the field writes, on images of noise."""
    from advmix_cli.recipe.load import load

    chosen = load(recipe, settings or [])

    from advmix_cli import build
    from advmix_cli.bench.bench import bench as measure
    from advmix_cli.bench.show import grids
    from advmix_cli.report.progress import watcher

    place = build.device(device)
    with watcher(err) as watch:
        found = measure(chosen, place, rounds, watch, [one.value for one in arm or []], profiled=profile)
    if as_json:
        print_json(found.to_json())
    else:
        for grid in grids(found):
            grid.print(out)
    if found.race.stopped:
        raise found.race.stopped
