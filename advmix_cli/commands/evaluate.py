"""`advmix eval`."""

from pathlib import Path
from typing import Annotated

import typer

from advmix_cli.commands import foreign_options as foreign
from advmix_cli.commands.console import err, out, print_json
from advmix_cli.commands.evaluate_foreign import evaluate_foreign
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
    if model is not None:
        from advmix_cli.recipe.measurement import measurement

        described = measurement(model, model_args, input_range, normalize, data, recipe, settings or [])
        evaluate_foreign(described, checkpoint, evaluators or [], limit, stop_after, device, as_json)
        return
    foreign.raise_if_given(model_args, input_range, normalize, data, recipe)
    if checkpoint is None:
        raise UsageError("advmix eval wants a CHECKPOINT, or --model")

    from platformdirs import user_cache_path

    from advmix_cli import build
    from advmix_cli import checkpoint as checkpoints
    from advmix_cli.measure import Findings, evaluate_checkpoint, recipe_to_measure
    from advmix_cli.report.progress import watcher
    from advmix_cli.report.results import Measured
    from advmix_cli.report.tables import outcome_grid

    path = checkpoints.find(checkpoint)
    saved = checkpoints.load(path)
    chosen = recipe_to_measure(saved, str(path), settings or [], evaluators or [], limit)
    place = build.device(device)
    findings = Findings(user_cache_path("advmix") / "verdicts", saved, chosen, place, said_once())
    with going_on(), stoppable(stop_after), watcher(err) as watch:
        outcomes = tuple(evaluate_checkpoint(saved, chosen, place, watch, findings.of))
    measured = Measured(saved.selection, saved.epoch, saved.weights, outcomes)
    if as_json:
        print_json(
            {"checkpoint": str(path), "digest": saved.recipe.digest(), "machines": saved.machines, **measured.to_json()}
        )
    else:
        outcome_grid(saved.recipe.title or str(path), measured, saved.machines).print(out)
    out.file.flush()
    findings.discard()  # it has been told
