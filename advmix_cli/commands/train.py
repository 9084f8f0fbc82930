"""`advmix train`."""

from pathlib import Path
from typing import Annotated

import typer

from advmix_cli.commands.console import err, out, print_json, say
from advmix_cli.commands.options import DeviceName, Json, RecipeName, SaveEvery, Settings, StopAfter
from advmix_cli.errors import AdvmixError, RunDirectoryError, StoppedError
from advmix_cli.stopping import stoppable


def train(
    recipe: RecipeName,
    directory: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="The run directory. By default runs/NAME-seedN-DIGEST.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was stopped.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Instead of the recipe's.")] = None,
    stop_after: StopAfter = None,
    save_every: SaveEvery = "5m",  # pyright: ignore[reportArgumentType] (the parser's to read)
    device: DeviceName = "auto",
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train a recipe, measure what came out, and keep both in a run directory."""
    from advmix_cli.recipe.load import load

    chosen = load(recipe, [*(settings or []), *([f"seed={seed}"] if seed is not None else [])])

    from advmix_cli import build, run
    from advmix_cli.fit import Keeping
    from advmix_cli.locks import held
    from advmix_cli.report.differences import gaps
    from advmix_cli.report.progress import watcher
    from advmix_cli.report.results import Results
    from advmix_cli.report.tables import gap_line, outcome_grid
    from advmix_cli.rundir import LAST, STATE

    place = build.device(device)
    target = directory or Path("runs") / f"{Path(recipe).stem}-seed{chosen.seed}-{chosen.digest()[:12]}"
    run.check_directory(chosen, target)
    known = Results.load(target)
    if (target / STATE).exists() and not (target / LAST).exists() and not resume and not (known and known.diverged):
        with held(target):  # or say who works in it
            raise RunDirectoryError(
                f"{target} holds an unfinished training: go on with --resume, or choose another --out"
            )
    if resume and known is None:
        say(f"nothing to go on with yet: {target}")
    try:
        with stoppable(stop_after) as stop, watcher(err) as watch:
            results = run.execute(chosen, target, place, watch, Keeping(save_every, stop))
    except StoppedError as stopped:
        if as_json:
            so_far = Results.load(target)
            print_json({**(so_far.to_json() if so_far else {"finished": False}), "unfinished": str(stopped)})
        begun = any((target / STATE).glob("*.json")) or (target / LAST).exists()
        after = f"the same command with --resume goes on in {target}" if begun else "nothing was trained yet"
        raise StoppedError(f"unfinished: {stopped}; {after}", stopped.exit_code) from None
    except OSError as error:
        what = f"{error.filename or target}: {error.strerror or error}"
        raise AdvmixError(
            f"{what}; what was saved before is whole, and the same command with --resume goes on"
        ) from None
    if as_json:
        found = {name: gap.to_json() for name, gap in gaps(results, target).items()}
        print_json({**results.to_json(), "gap": found})
    else:
        if not chosen.evaluators:
            say("nothing was measured: the recipe has no evaluators")
        for entry in (one for one in results.measured if one.outcomes):
            outcome_grid(results.title or Path(recipe).stem, entry, results.machines, results.collapsed).print(out)
        if found := gaps(results, target):
            out.print(gap_line(found), highlight=False, markup=False)
    say(f"run directory: {target}")
