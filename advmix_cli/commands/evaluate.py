"""`advmix eval`."""

from pathlib import Path
from typing import Annotated

import typer

from advmix_cli.commands.console import err, out, print_json, say
from advmix_cli.commands.options import DeviceName, Json, Settings, StopAfter
from advmix_cli.errors import StoppedError
from advmix_cli.stopping import stoppable


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A run directory or a .safetensors file.")],
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
) -> None:
    """Measure a checkpoint. It carries its recipe; --set can change the evaluators and data.root."""
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
    told: set[str] = set()

    def unwritable(error: OSError) -> None:
        if str(error) not in told:
            say(f"warning: {error.filename}: {error.strerror}: if this is interrupted, it starts again")
        told.add(str(error))

    findings = Findings(user_cache_path("advmix") / "verdicts", saved, chosen, place, unwritable)
    try:
        with stoppable(stop_after), watcher(err) as watch:
            outcomes = tuple(evaluate_checkpoint(saved, chosen, place, watch, findings.of))
    except StoppedError as stopped:
        after = "the same command goes on with the attack and the batch where it was"
        raise StoppedError(f"unfinished: {stopped}; {after}", stopped.exit_code) from None
    measured = Measured(saved.selection, saved.epoch, saved.weights, outcomes)
    if as_json:
        print_json(
            {"checkpoint": str(path), "digest": saved.recipe.digest(), "machines": saved.machines, **measured.to_json()}
        )
    else:
        outcome_grid(saved.recipe.title or str(path), measured, saved.machines).print(out)
    out.file.flush()
    findings.discard()  # it has been told
