"""`advmix selftest`."""

from typing import Annotated

import typer

from advmix_cli.commands.console import out, say
from advmix_cli.commands.options import DeviceName, Settings
from advmix_cli.errors import AdvmixError

selftests = typer.Typer(no_args_is_help=True, help="Try here what the documentation promises.")


@selftests.command("resume")
def selftest_resume(
    recipe: Annotated[
        str, typer.Argument(metavar="[RECIPE]", help="A file or a shipped name. By default a short training of digits.")
    ] = "",
    kills: Annotated[int, typer.Option("--kills", min=1, metavar="N", help="Trainings to kill.")] = 1,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the moments.")] = 0,
    device: DeviceName = "auto",
    settings: Settings = None,
) -> None:
    """Kill a training at a random moment, go on, and compare every bit with one that was not killed."""
    from advmix_cli.recipe.load import load

    short = ["data.train_limit=512", "model.width=4", "schedule.epochs=4", "schedule.batch_size=32"]
    edits = [*([] if recipe else short), *(settings or [])]
    chosen = load(recipe or "digits", edits)

    from advmix_cli import build
    from advmix_cli.selftest import trials

    if build.device(device).type == "cuda" and not chosen.engine.deterministic:
        say("with engine.deterministic = true: without it no two trainings on a GPU have the same bits")
        chosen = load(recipe or "digits", [*edits, "engine.deterministic=true"])
    same = resumed = 0
    for trial in trials(chosen, kills, device, seed):
        same += not trial.different
        resumed += trial.resumed
        verdict = "bitwise identical" if not trial.different else f"DIFFERENT: {', '.join(trial.different[:5])}"
        say(f"[{trial.number}/{kills}] killed after {trial.after:.2f} s, newest state {trial.found}; ended {verdict}")
        if not trial.resumed:
            say("  and it did not go on from there")
    out.print(f"{resumed} of {kills} resumed, {same} of {kills} ended bitwise identical", highlight=False)
    if min(same, resumed) < kills:
        raise AdvmixError("a resumed training is not the one that was not stopped")
