"""`advmix eval`."""

from pathlib import Path
from typing import Annotated

import typer

from advmix_cli.commands import foreign_options as foreign
from advmix_cli.commands import measuring
from advmix_cli.commands.foreign_network import ForeignNetwork
from advmix_cli.commands.options import DeviceName, Json, Settings, StopAfter
from advmix_cli.commands.own_network import OwnNetwork
from advmix_cli.commands.places import raise_unless_writable
from advmix_cli.errors import UsageError


def evaluate(
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="CHECKPOINT", help="A run directory or a .safetensors file.")
    ] = None,
    evaluators: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluator",
            metavar="NAME",
            help="Only this one of the recipe's, by its name. Can be repeated.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N images.")] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save", metavar="DIR", help="Keep the verdicts on each image, or the diagnosis, in this directory."
        ),
    ] = None,
    save_adversarial: Annotated[
        bool,
        typer.Option(
            "--save-adversarial",
            help="Keep the images that the attacks end with, too: in adversarial/ beside the checkpoint, or in --save.",
        ),
    ] = False,
    diagnose: Annotated[
        bool,
        typer.Option(
            "--diagnose", help="Instead: are its accuracies under attack to be believed? On 200 images, or --limit."
        ),
    ] = False,
    transfer: Annotated[
        Path | None,
        typer.Option("--transfer", metavar="CHECKPOINT", help="For --diagnose: attack it from this one."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="DIR", help="For --diagnose: draw the accuracy against ε, as PNG and SVG."),
    ] = None,
    stop_after: StopAfter = None,
    device: DeviceName = "auto",
    settings: Settings = None,
    as_json: Json = False,
    model: foreign.Model = None,
    model_args: foreign.ModelArgs = None,
    input_range: foreign.InputRange = None,
    normalize: foreign.Normalize = None,
    data: foreign.DataName = None,
    recipe: foreign.JudgedBy = None,
) -> None:
    """Measure a checkpoint. It carries its recipe; --set can change the evaluators, data.root and data.test_limit.

    With --model it measures a network of others: any torch module that maps images to logits.
    """
    for flag, value in (("--transfer", transfer), ("--figures", figures)):
        if value is not None and not diagnose:
            raise UsageError(f"{flag} is for --diagnose: it has no meaning without it")
    if diagnose and (save_adversarial or evaluators):
        raise UsageError("--diagnose has its own checks: --evaluator and --save-adversarial mean nothing to it")
    if diagnose and save is not None:
        raise_unless_writable(save, "--save")
    if figures is not None:
        raise_unless_writable(figures, "--figures")
    if model is not None:
        from advmix_cli import build
        from advmix_cli.recipe.measurement import measurement

        described = measurement(model, model_args, input_range, normalize, data, recipe, settings or [])
        if transfer is not None:
            raise UsageError("--transfer has no meaning with --model: a checkpoint of advmix is for its own images")
        network = ForeignNetwork(described, checkpoint, build.device(device))
    else:
        foreign.raise_if_given(model_args, input_range, normalize, data, recipe)
        if checkpoint is None:
            raise UsageError("advmix eval wants a CHECKPOINT, or --model")
        network = OwnNetwork.load(checkpoint, settings or [], device, transfer)
    if diagnose:
        measuring.diagnose(network, limit, stop_after, save, figures, as_json=as_json)
    else:
        asked = measuring.Asked(evaluators or [], limit, save, save_adversarial)
        measuring.measure(network, asked, stop_after, as_json=as_json)
