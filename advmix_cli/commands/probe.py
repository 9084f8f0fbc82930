"""`advmix probe`."""

from pathlib import Path
from typing import Annotated

import typer

from advmix_cli.commands.console import err, out, print_json, say
from advmix_cli.commands.options import DeviceName, Json, RecipeName, Seed, Settings
from advmix_cli.commands.places import raise_unless_writable


def probe(
    recipe: RecipeName,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CHECKPOINT]", help="A run directory or a .safetensors file; without it the untrained network."
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=2, metavar="N", help="Images in the batch, instead of the recipe's.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="DIR", help="Draw the path of the loss and pairs of images, as PNG and SVG."),
    ] = None,
    seed: Seed = None,
    device: DeviceName = "auto",
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Put the first batch of a training through its inner maximizer, and through the other algorithms, and look."""
    from advmix_cli.recipe.load import load

    chosen = load(recipe, [*(settings or []), *([f"seed={seed}"] if seed is not None else [])])
    if figures is not None:
        raise_unless_writable(figures, "--figures")

    from advmix_cli import build
    from advmix_cli import checkpoint as checkpoints
    from advmix_cli.probing.probe import probe as look
    from advmix_cli.probing.show import grids
    from advmix_cli.report.progress import watcher

    place = build.device(device)
    saved = checkpoints.load(checkpoint) if checkpoint else None
    with watcher(err) as watch:
        found = look(chosen, saved, batch, place, watch)
    if as_json:
        print_json(found.to_json())
    else:
        for grid in grids(found):
            grid.print(out)
    if figures is not None:
        from advmix_cli.probing.figures import draw

        for path in draw(found, figures):
            say(f"figure: {path}")
