"""`advmix eval`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from advmix_cli.commands.console import err, out, print_json, say
from advmix_cli.commands.diagnose import diagnosed
from advmix_cli.commands.options import DeviceName, Json, Settings, StopAfter
from advmix_cli.errors import StoppedError, UsageError
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
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="DIR", help="Keep the verdicts on each image in this directory."),
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
    stop_after: StopAfter = None,
    device: DeviceName = "auto",
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Measure a checkpoint. It carries its recipe; --set can change the evaluators and data.root."""
    from platformdirs import user_cache_path

    from advmix_cli import build
    from advmix_cli import checkpoint as checkpoints
    from advmix_cli.evaluation import verdict_files
    from advmix_cli.evaluation.outcome import Measurement
    from advmix_cli.evaluation.verdict_files import Record
    from advmix_cli.evaluation.worst import worst_case
    from advmix_cli.measure import Findings, evaluate_checkpoint, recipe_to_measure
    from advmix_cli.recipe.schema import WORST
    from advmix_cli.report.progress import watcher
    from advmix_cli.report.results import Measured
    from advmix_cli.report.tables import outcome_grid

    path = checkpoints.find(checkpoint)
    if diagnose:
        diagnosed(path, transfer, limit or 200, stop_after, device, settings or [], as_json=as_json)
        return
    saved = checkpoints.load(path)
    chosen = recipe_to_measure(saved, str(path), settings or [], evaluators or [], limit)
    place = build.device(device)
    told: set[int | None] = set()

    def unwritable(error: OSError) -> None:
        if error.errno not in told:
            say(f"warning: {error.filename}: {error.strerror}: if this is interrupted, it starts again")
        told.add(error.errno)

    target = save or (path.parent / "adversarial" if save_adversarial else None)
    if target:
        target.mkdir(parents=True, exist_ok=True)
        if not os.access(target, os.W_OK):  # or it is only found after the first attack
            raise UsageError(f"{target} cannot be written")

    def keep(one: Measurement, split: str) -> None:
        if target:
            file = verdict_files.place(target, one.outcome.name, saved.epoch, saved.weights)
            Record(one, saved.weights, saved.images[split], saved.classes).save(file)
            say(f"verdicts: {file}")

    cache = user_cache_path("advmix") / "findings"
    findings = Findings(cache, saved, chosen, place, unwritable, images=save_adversarial)
    found: list[Measurement] = []
    try:
        with stoppable(stop_after), watcher(err) as watch:
            for one in evaluate_checkpoint(saved, chosen, place, watch, findings.of):
                found.append(one)
                keep(one, one.outcome.settings["split"])
    except StoppedError as stopped:
        after = "the same command goes on with the attack and the batch where it was"
        raise StoppedError(f"unfinished: {stopped}; {after}", stopped.exit_code) from None
    if worst := worst_case(WORST, found, chosen.threat.epsilon):
        found.append(worst)
        keep(worst, "test")
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
