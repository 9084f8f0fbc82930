"""`advmix train`."""

import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from advmix_cli.commands.console import err, out, print_json, say
from advmix_cli.commands.options import (
    DeviceName,
    Json,
    RecipeName,
    SaveEvery,
    Seed,
    Settings,
    StopAfter,
    Track,
    trackers,
)
from advmix_cli.commands.unfinished import unfinished
from advmix_cli.errors import AdvmixError, RunDirectoryError, StoppedError
from advmix_cli.stopping import stoppable

if TYPE_CHECKING:
    from advmix_cli.recipe.schema import Recipe
    from advmix_cli.report.results import Results


OUT = "The run directory. By default runs/NAME-seedN-DIGEST; with --resume and a run's own recipe.toml, that run."


def train(
    recipe: RecipeName,
    directory: Annotated[Path | None, typer.Option("--out", metavar="DIR", help=OUT)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was stopped.")] = False,
    seed: Seed = None,
    stop_after: StopAfter = None,
    save_every: SaveEvery = "5m",  # pyright: ignore[reportArgumentType] (the parser's to read)
    track: Track = None,
    device: DeviceName = "auto",
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train a recipe, measure what came out, and keep both in a run directory."""
    from advmix_cli.ranks.joining import joined
    from advmix_cli.ranks.torchrun import launched

    with joined(launched()) as team:
        with team.together():
            from advmix_cli.recipe.load import load

            chosen = load(recipe, [*(settings or []), *([f"seed={seed}"] if seed is not None else [])])
            from advmix_cli import build

            place = build.device(device, team)
            kinds = trackers(track)
        team.raise_if_different(chosen.digest(), "recipes: give all the same file")
        team.raise_if_different(build.kind_of(place), "devices or versions")
        beside = _run_of(recipe) if resume else None
        target = directory or beside or Path("runs") / f"{Path(recipe).stem}-seed{chosen.seed}-{chosen.digest()[:12]}"

        from advmix_cli import run
        from advmix_cli.fit import Keeping
        from advmix_cli.report.progress import watcher
        from advmix_cli.report.tracking import tracked
        from advmix_cli.rundir import METRICS

        if not team.first:
            with stoppable(stop_after) as stop, watcher(Console(quiet=True)) as watch:
                with team.together():
                    pass  # the directory is the first rank's to look at
                run.assist(chosen, target, place, watch, Keeping(save_every, stop), team)
            return
        with team.together():
            known = _raise_if_unfinished(chosen, target, resume=resume)
        if resume and known is None:
            say(f"nothing to go on with yet: {target}")
        if directory is None and known is None:
            _say_if_trained_beside(chosen, target)
        try:
            with (
                stoppable(stop_after) as stop,
                watcher(err) as watch,
                tracked(kinds, chosen, target, METRICS, watch) as told,
            ):
                results = run.execute(chosen, target, place, told, Keeping(save_every, stop), team)
        except StoppedError as stopped:
            raise _unfinished(stopped, target, as_json=as_json) from None
        except OSError as error:
            what = f"{error.filename or target}: {error.strerror or error}"
            saved = "; what was saved before is whole, and the same command with --resume goes on"
            raise AdvmixError(f"{what}{saved if _is_begun(target) else ''}") from None
    _show(chosen, results, target, name=Path(recipe).stem, as_json=as_json)


def _run_of(recipe: str) -> Path | None:
    """The run directory that was begun with this file, its own recipe."""
    from advmix_cli.locks import LOCK
    from advmix_cli.rundir import LAST, METRICS, RECIPE, STATE

    place = Path(recipe)
    is_begun = any((place.parent / name).exists() for name in (LOCK, METRICS, STATE, LAST))
    return place.parent if place.name == RECIPE and is_begun else None


def _raise_if_unfinished(chosen: "Recipe", target: Path, *, resume: bool) -> "Results | None":
    """What is known of `target`; RunDirectoryError if it holds what only --resume goes on with."""
    from advmix_cli import run
    from advmix_cli.locks import held
    from advmix_cli.report.results import Results
    from advmix_cli.rundir import LAST, STATE

    run.check_directory(chosen, target)
    known = Results.load(target)
    if (target / STATE).exists() and not (target / LAST).exists() and not resume and not (known and known.diverged):
        with held(target):  # or say who works in it
            raise RunDirectoryError(
                f"{target} holds an unfinished training: go on with --resume, or choose another --out"
            )
    return known


def _say_if_trained_beside(chosen: "Recipe", target: Path) -> None:
    """The digest in a default name is another one with other evaluators, though the training is the same."""
    from advmix_cli.ablation.trained_before import trainings

    others: list[Path] = []
    with suppress(OSError):  # a look that is nobody's wish
        others = trainings(target.parent).get(chosen.training_digest(), [])
    if others:
        again = shlex.join(["advmix", "eval", str(others[0]), "--set", "evaluators=[...]"])
        say(f"{others[0]} is this training, measured otherwise. It is done again; this would only measure it:")
        say(f"  {again}")


def _unfinished(stopped: StoppedError, target: Path, *, as_json: bool) -> StoppedError:
    """How to go on."""
    from advmix_cli.report.results import Results

    if as_json:
        so_far = Results.load(target)
        print_json({**(so_far.to_json() if so_far else {}), **unfinished(stopped)})
    after = f"the same command with --resume goes on in {target}" if _is_begun(target) else "nothing was trained yet"
    return StoppedError(f"unfinished: {stopped}; {after}", stopped.exit_code)


def _is_begun(target: Path) -> bool:
    """Whether there is something to go on with."""
    from advmix_cli.rundir import LAST, STATE, manifests

    return bool(manifests(target / STATE)) or (target / LAST).exists()


def _show(chosen: "Recipe", results: "Results", target: Path, *, name: str, as_json: bool) -> None:
    from advmix_cli.report.differences import gaps
    from advmix_cli.report.tables import gap_line, outcome_grid

    if as_json:
        found = {name: gap.to_json() for name, gap in gaps(results, target).items()}
        print_json({**results.to_json(), "gap": found})
    else:
        if not chosen.evaluators:
            say("nothing was measured: the recipe has no evaluators")
        for entry in (one for one in results.measured if one.outcomes):
            outcome_grid(results.title or name, entry, results.machines, results.collapsed).print(out)
        if found := gaps(results, target):
            out.print(gap_line(found), highlight=False, markup=False)
    say(f"run directory: {target}")
