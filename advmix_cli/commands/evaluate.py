"""`advmix eval`."""

from pathlib import Path
from typing import Annotated

import typer

from advmix_cli.commands import foreign_options as foreign
from advmix_cli.commands.console import err, out, print_json
from advmix_cli.commands.diagnosis import DIAGNOSED, told
from advmix_cli.commands.evaluate_foreign import evaluate_foreign
from advmix_cli.commands.keeping import keeper, with_the_worst
from advmix_cli.commands.options import DeviceName, Json, Settings, StopAfter
from advmix_cli.commands.unfinished import going_on, said_once
from advmix_cli.errors import UsageError
from advmix_cli.stopping import stoppable


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
    """Measure a checkpoint. It carries its recipe; --set can change the evaluators and data.root.

    With --model it measures a network of others: any torch module that maps images to logits.
    """
    for flag, value in (("--transfer", transfer), ("--figures", figures)):
        if value is not None and not diagnose:
            raise UsageError(f"{flag} is for --diagnose: it has no meaning without it")
    if diagnose and (save_adversarial or evaluators):
        raise UsageError("--diagnose has its own checks: --evaluator and --save-adversarial mean nothing to it")
    if model is not None:
        from advmix_cli.recipe.measurement import measurement

        described = measurement(model, model_args, input_range, normalize, data, recipe, settings or [])
        if transfer is not None:
            raise UsageError("--transfer has no meaning with --model: a checkpoint of advmix is for its own images")
        evaluate_foreign(
            described, checkpoint, evaluators or [], limit, stop_after, device,
            save=save, save_adversarial=save_adversarial, diagnose=diagnose, figures=figures, as_json=as_json,
        )  # fmt: skip
        return
    foreign.raise_if_given(model_args, input_range, normalize, data, recipe)
    if checkpoint is None:
        raise UsageError("advmix eval wants a CHECKPOINT, or --model")

    from platformdirs import user_cache_path

    from advmix_cli import build
    from advmix_cli import checkpoint as checkpoints
    from advmix_cli.diagnosis.diagnose import diagnose_checkpoint
    from advmix_cli.evaluation.verdict_files import ADVERSARIAL
    from advmix_cli.measure import Findings, evaluate_checkpoint, recipe_to_measure
    from advmix_cli.report.progress import watcher
    from advmix_cli.report.results import Measured
    from advmix_cli.report.tables import outcome_grid

    path = checkpoints.find(checkpoint)
    saved = checkpoints.load(path)
    chosen = recipe_to_measure(saved, str(path), settings or [], evaluators or [], limit)
    place = build.device(device)
    if diagnose:
        other = checkpoints.load(transfer) if transfer else None
        with stoppable(stop_after), watcher(err) as watch:
            diagnosis = diagnose_checkpoint(saved, chosen, place, watch, limit or DIAGNOSED, other)
        told(str(path), diagnosis, saved.weights, save, figures, as_json=as_json)
        return
    keep = keeper(
        save or (path.parent / ADVERSARIAL if save_adversarial else None),
        saved.weights, saved.images, saved.classes, saved.epoch, saved.selection,
    )  # fmt: skip
    cache = user_cache_path("advmix") / "findings"
    findings = Findings(cache, saved, chosen, place, said_once(), images=save_adversarial)
    with going_on(), stoppable(stop_after), watcher(err) as watch:
        evaluated = evaluate_checkpoint(saved, chosen, place, watch, findings.of)
        found = with_the_worst(evaluated, chosen.threat.epsilon, keep)
    outcomes = tuple(one.outcome for one in found)
    measured = Measured(saved.selection, saved.epoch, saved.weights, outcomes)
    if as_json:
        print_json(
            {"checkpoint": str(path), "digest": saved.recipe.digest(), "machines": saved.machines, **measured.to_json()}
        )
    else:
        outcome_grid(saved.recipe.title or str(path), measured, saved.machines, saved.collapsed).print(out)
    out.file.flush()
    findings.discard()  # it has been told
