"""The commands: parse, call, print, exit code. torch is imported inside the commands that need it, and only there."""

import json
import logging
import re
import sys
import traceback
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from typer.core import TyperGroup

from advmix_cli import __version__
from advmix_cli.errors import (
    AdvmixError,
    DivergedError,
    RecipeError,
    RunDirectoryError,
    StoppedError,
    UsageError,
    printable,
)
from advmix_cli.stopping import stoppable

if TYPE_CHECKING:
    from advmix_cli.ablation.cells import Cell
    from advmix_cli.recipe.table import Table
    from advmix_cli.report.grid import Grid

out = Console()
err = Console(stderr=True)


class Commands(TyperGroup):
    """Turns what went wrong into a message on stderr and an exit code; a traceback only with --debug."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with stoppable():
                return super().invoke(ctx)
        except AdvmixError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            count = error.count if isinstance(error, RecipeError) else 1
            err.print(f"error: {count:,} problems\n" if count > 1 else "error: ", style="red", end="")
            err.print(printable(str(error)), markup=False, emoji=False, highlight=False, soft_wrap=True)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            # A full disk, a place that may not be written, a closed pipe: the machine's fault, and not the program's.
            if ctx.params.get("debug"):
                raise
            err.print(f"error: {printable(str(error))}", markup=False, emoji=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from None
        except StoppedError as stopped:
            err.print(printable(str(stopped)), markup=False, emoji=False, highlight=False, soft_wrap=True)
            raise typer.Exit(stopped.exit_code) from None
        except KeyboardInterrupt:
            err.print("stopped at once")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipes = typer.Typer(no_args_is_help=True, help="Check, show and list recipes.")
app.add_typer(recipes, name="recipe")
selftests = typer.Typer(no_args_is_help=True, help="Try here what the documentation promises.")
app.add_typer(selftests, name="selftest")

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A .toml file, or the name of a shipped recipe.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a field; VALUE is TOML. Can be repeated."),
]
DeviceName = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]


def _seconds(text: str) -> float:
    """ "90s", "9m", "1.5h", or a number of seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not found:
        raise typer.BadParameter(f"{text!r} is no time; write 90s, 9m or 1.5h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _some_seconds(text: str) -> float:
    """As `_seconds`, and more than none."""
    seconds = _seconds(text)
    if not seconds:
        raise typer.BadParameter(f"{text!r} is no time to work in; write 90s, 9m or 1.5h")
    return seconds


StopAfter = Annotated[
    float | None,
    typer.Option("--stop-after", metavar="TIME", parser=_some_seconds, help="Stop by then (90s, 9m), all work saved."),
]
SaveEvery = Annotated[
    float,
    typer.Option("--save-every", metavar="TIME", parser=_seconds, help="How often to save an unfinished training."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]


class Format(StrEnum):
    """Of a table on stdout."""

    RICH = "rich"
    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"
    JSON = "json"


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"advmix {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,  # noqa: ARG001
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Adversarially robust training, with mixup inside the adversary's optimisation."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=err, show_time=False, show_path=False)],
    )


@app.command()
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
    from advmix_cli.checkpoint import LAST
    from advmix_cli.fit import STATE, Keeping
    from advmix_cli.report.progress import watcher
    from advmix_cli.report.results import Results
    from advmix_cli.report.tables import outcome_grid

    place = build.device(device)
    target = directory or Path("runs") / f"{Path(recipe).stem}-seed{chosen.seed}-{chosen.digest()[:12]}"
    run.check_directory(chosen, target)
    known = Results.load(target)
    if (target / STATE).exists() and not (target / LAST).exists() and not resume and not (known and known.diverged):
        raise RunDirectoryError(f"{target} holds an unfinished training: go on with --resume, or choose another --out")
    try:
        with stoppable(stop_after) as stop, watcher(err) as watch:
            results = run.execute(chosen, target, place, watch, Keeping(save_every, stop))
    except StoppedError as stopped:
        if as_json:
            so_far = Results.load(target)
            _print_json({**(so_far.to_json() if so_far else {"finished": False}), "unfinished": str(stopped)})
        raise StoppedError(
            f"unfinished: {stopped}; the same command with --resume goes on in {target}",
            stopped.exit_code,
        ) from None
    if as_json:
        _print_json(results.to_json())
    else:
        if not chosen.evaluators:
            err.print("nothing was measured: the recipe has no evaluators")
        for entry in (one for one in results.measured if one.outcomes):
            outcome_grid(results.title or Path(recipe).stem, entry).print(out)
    err.print(f"run directory: {target}", markup=False, emoji=False, highlight=False, soft_wrap=True)


@app.command("eval")
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
    device: DeviceName = "auto",
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Measure a checkpoint. It carries its recipe; --set can change the evaluators and data.root."""
    from advmix_cli import build
    from advmix_cli import checkpoint as checkpoints
    from advmix_cli.measure import evaluate_checkpoint, recipe_to_measure
    from advmix_cli.report.progress import watcher
    from advmix_cli.report.results import Measured
    from advmix_cli.report.tables import outcome_grid

    path = checkpoints.find(checkpoint)
    saved = checkpoints.load(path)
    chosen = recipe_to_measure(saved, str(path), settings or [], evaluators or [], limit)
    place = build.device(device)
    with watcher(err) as watch:
        outcomes = tuple(evaluate_checkpoint(saved, chosen, place, watch))
    measured = Measured(saved.selection, saved.epoch, outcomes)
    if as_json:
        _print_json({"checkpoint": str(path), "digest": saved.recipe.digest(), **measured.to_json()})
    else:
        outcome_grid(saved.recipe.title or str(path), measured).print(out)


@app.command()
def ablate(
    table: Annotated[
        str, typer.Argument(metavar="[TABLE]", help="A .toml file, or the name of a shipped table.")
    ] = "digits",
    directory: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the cells lie.")] = Path("runs"),
    seeds: Annotated[int, typer.Option("--seeds", min=1, metavar="N", help="Runs of each row.")] = 1,
    rows: Annotated[
        list[str] | None,
        typer.Option("--rows", metavar="ROW", help="Only this row, by its name or number. Can be repeated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and what is still to run.")] = False,
    stop_after: StopAfter = None,
    save_every: SaveEvery = "5m",  # pyright: ignore[reportArgumentType] (the parser's to read)
    form: Annotated[Format, typer.Option("--format", help="Of the table on stdout.")] = Format.RICH,
    device: DeviceName = "auto",
    settings: Settings = None,
) -> None:
    """Run the rows of a table, and print it with the paper's numbers beside ours. What is done is not done again."""
    from advmix_cli.recipe.table import load_table

    loaded = load_table(table, settings or [])

    from advmix_cli import build
    from advmix_cli.ablation.cells import cells, select
    from advmix_cli.ablation.plan import plan_grid, plan_records
    from advmix_cli.ablation.queue import run_cells
    from advmix_cli.fit import Keeping
    from advmix_cli.report.live import live_table

    chosen = select(loaded, rows or [])
    todo = cells(chosen, seeds, directory / chosen.name)
    if dry_run:
        _print_table(form, plan_grid(chosen.title, todo), plan_records(todo))
        return
    place = build.device(device)
    try:
        with stoppable(stop_after) as stop, live_table(err, lambda: _filled(chosen, todo)[0]) as (watch, redraw):
            run_cells(todo, place, watch, lambda _: redraw(), Keeping(save_every, stop))
    except StoppedError as stopped:
        _print_table(form, *_filled(chosen, todo))
        raise StoppedError(f"unfinished: {stopped}; the same command does what is left", stopped.exit_code) from None
    grid, records = _filled(chosen, todo)
    _print_table(form, grid, records)
    diverged = [cell.row.name for cell in todo if (found := cell.results()) and found.diverged]
    if diverged:
        raise DivergedError(f"diverged: {', '.join(diverged)}; the other rows are measured")


@app.command()
def plan(
    name: Annotated[
        str, typer.Argument(metavar="RECIPE|TABLE", help="A .toml file, or the name of a shipped recipe or table.")
    ],
    probe: Annotated[
        bool, typer.Option("--probe", help="Measure on the device, on noise: how long it takes, and what fits.")
    ] = False,
    device: DeviceName = "auto",
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Count what a recipe or a table costs, before it is run: FLOPs, memory, and, with --probe, time."""
    from advmix_cli.recipe.table import load_any

    table = load_any(name, settings or [])

    from advmix_cli import build
    from advmix_cli.plan.grids import plan_grids
    from advmix_cli.plan.lines import plan_lines
    from advmix_cli.plan.records import plan_document
    from advmix_cli.report.progress import watcher

    place = build.device(device)
    with watcher(err) as watch:
        lines = plan_lines(table.rows, place if probe else None, watch)
    if as_json:
        _print_json(plan_document(table, lines))
    else:
        for grid in plan_grids(table, lines):
            grid.print(out)


def _filled(table: "Table", todo: "list[Cell]") -> "tuple[Grid, list[dict[str, Any]]]":
    from advmix_cli.report.tables import Line, ablation_grid, ablation_records

    lines = [
        Line(row.name, tuple(cell.results() for cell in todo if cell.row.name == row.name), row.paper)
        for row in table.rows
    ]
    return ablation_grid(table.title, table.columns, lines, table.settings), ablation_records(table.columns, lines)


def _print_table(form: Format, grid: "Grid", records: list[dict[str, Any]]) -> None:
    from advmix_cli.report.grid import write_csv

    match form:
        case Format.RICH:
            grid.print(out)
        case Format.MARKDOWN:
            typer.echo(grid.markdown())
        case Format.LATEX:
            typer.echo(grid.latex())
        case Format.CSV:
            typer.echo(write_csv(records))
        case Format.JSON:
            _print_json({"title": grid.title, "captions": grid.captions, "cells": records})


def _print_json(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


@app.command()
def bench(
    recipe: RecipeName,
    rounds: Annotated[int, typer.Option("--rounds", min=1, metavar="N", help="Measurements of each arm.")] = 7,
    device: DeviceName = "auto",
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
        found = measure(chosen, place, rounds, watch)
    if as_json:
        _print_json(found.to_json())
    else:
        for grid in grids(found):
            grid.print(out)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A .pt or .pth file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to write.")],
) -> None:
    """Take the tensors out of a file that torch has pickled, without running what is in it."""
    if target.exists():
        raise UsageError(f"{target} is there already")

    from safetensors.torch import save

    from advmix_cli.files import write_atomically
    from advmix_cli.foreign import tensors

    found = tensors(source)
    write_atomically(target, save(found, metadata={"format": "pt"}))
    err.print(
        f"{len(found)} tensors: {printable(str(target))}", markup=False, emoji=False, highlight=False, soft_wrap=True
    )


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
    chosen = load(recipe or "digits", [*([] if recipe else short), *(settings or [])])

    from advmix_cli.selftest import trials

    same = 0
    for trial in trials(chosen, kills, device, seed):
        same += not trial.different
        verdict = "bitwise identical" if not trial.different else f"DIFFERENT: {', '.join(trial.different[:5])}"
        err.print(
            f"[{trial.number}/{kills}] killed after {trial.after:.2f} s, newest state {trial.found}; ended {verdict}",
            markup=False, emoji=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    out.print(f"{kills} of {kills} resumed, {same} of {kills} ended bitwise identical", highlight=False)
    if same < kills:
        raise AdvmixError("a resumed training is not the one that was not stopped")


@recipes.command("check")
def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Recipe or table files, or shipped names.")],
) -> None:
    """Check recipes and tables, and show every problem with its position."""
    from advmix_cli.recipe.shipped import find_any
    from advmix_cli.recipe.table import check_file

    faults: list[str] = []
    for name in files:
        try:
            typer.echo(f"{name}: ok, {check_file(find_any(name))}")
        except UsageError as error:
            faults.append(str(error))
    if faults:
        raise RecipeError(*faults)


@recipes.command("show")
def show(recipe: RecipeName, settings: Settings = None) -> None:
    """Print a recipe with every field resolved, as TOML."""
    import tomli_w

    from advmix_cli.recipe.load import load

    typer.echo(tomli_w.dumps(load(recipe, settings or []).resolved()), nl=False)


@recipes.command("list")
def list_shipped() -> None:
    """List the shipped recipes and tables."""
    from advmix_cli.recipe.load import read
    from advmix_cli.recipe.shipped import find_recipe, find_table, recipe_names, table_names

    for what, names, find in (("recipes", recipe_names(), find_recipe), ("tables", table_names(), find_table)):
        typer.echo(f"{what}:")
        for name in names:
            typer.echo(f"  {name:<24} {read(find(name)).data.get('title', '')}")


@recipes.command("schema")
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from advmix_cli.recipe.schema import Recipe

    _print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()})


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no λ still gets its numbers
    app()
