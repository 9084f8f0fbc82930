"""`advmix ablate`."""

from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advmix_cli.commands.console import Format, err, print_table, say
from advmix_cli.commands.jobs import Jobs, wanted_slots
from advmix_cli.commands.options import DeviceName, SaveEvery, Settings, StopAfter, Track, trackers
from advmix_cli.commands.slurm import launch, show
from advmix_cli.commands.slurm_options import (
    Account,
    Cpus,
    Gpus,
    Launcher,
    LauncherName,
    Memory,
    Parallel,
    Partition,
    Qos,
    Status,
    Time,
    requested,
)
from advmix_cli.errors import CellsFailedError, DivergedError, InUseError, StoppedError, UsageError
from advmix_cli.stopping import stoppable

if TYPE_CHECKING:
    from advmix_cli.ablation.cells import Cell
    from advmix_cli.recipe.table import Table
    from advmix_cli.report.grid import Grid


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
    jobs: Jobs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and what is still to run.")] = False,
    status: Status = False,
    stop_after: StopAfter = None,
    save_every: SaveEvery = "5m",  # pyright: ignore[reportArgumentType] (the parser's to read)
    form: Annotated[Format, typer.Option("--format", help="Of the table on stdout.")] = Format.RICH,
    track: Track = None,
    device: DeviceName = "auto",
    settings: Settings = None,
    launcher: LauncherName = Launcher.LOCAL,
    partition: Partition = None,
    time: Time = None,
    gpus: Gpus = None,
    cpus: Cpus = None,
    mem: Memory = None,
    account: Account = None,
    qos: Qos = None,
    parallel: Parallel = None,
) -> None:
    """Run the rows of a table, and print it with the paper's numbers beside ours. What is done is not done again."""
    asked = Launcher.LOCAL if status else launcher  # whose --status is the same
    request = requested(
        asked, time, partition=partition, gpus=gpus, cpus=cpus, mem=mem, account=account, qos=qos, parallel=parallel
    )
    if status and (dry_run or jobs is not None or stop_after is not None or track):
        raise UsageError("--status starts nothing: --dry-run, --jobs, --stop-after and --track mean nothing to it")
    if request and stop_after is not None:
        raise UsageError("--stop-after: only with --launcher local; a task stops when its --time is up")
    if request and jobs is not None:
        raise UsageError("--jobs: only with --launcher local; --parallel says how many tasks run at once")

    from advmix_cli.recipe.table import load_table

    loaded = load_table(table, settings or [])

    from advmix_cli.ablation.cells import cells, select

    kinds = trackers(track)
    chosen = select(loaded, rows or [])
    todo = cells(chosen, seeds, directory / chosen.name)
    if status:
        show(chosen.title, todo, form)
        return

    from advmix_cli import build
    from advmix_cli.ablation.board import board, onlooker
    from advmix_cli.ablation.jobs import run_jobs
    from advmix_cli.ablation.plan import plan_grid, plan_records
    from advmix_cli.ablation.queue import run_cells
    from advmix_cli.fit import Keeping
    from advmix_cli.report.live import live_view

    if dry_run:
        print_table(form, plan_grid(chosen.title, todo), plan_records(todo))
        return
    known = [cell.results() for cell in todo]
    if request and not all(found and (found.finished or found.diverged) for found in known):
        launch(chosen.title, todo, request, device, save_every, kinds, form)
        return
    recipes = [row.recipe for row in chosen.rows]
    slots = None if jobs is None else wanted_slots(jobs, device, recipes, say)
    look = onlooker([(cell.row.name, cell.row.recipe, cell.directory) for cell in todo])
    started: frozenset[Path] = frozenset()
    drawn = 0.0

    def draw() -> Any:
        return board(chosen.title, look(started), len(slots or [1]), *err.size)

    try:
        with stoppable(stop_after) as stop, live_view(err, draw) as (watch, redraw):
            keeping = Keeping(save_every, stop)
            if slots is None:
                run_cells(todo, build.device(device), watch, lambda _: redraw(), keeping, kinds)
            else:

                def looked(running: frozenset[Path]) -> None:
                    nonlocal started, drawn
                    if running != started or monotonic() - drawn >= 1:
                        started = running
                        redraw()
                        drawn = monotonic()

                run_jobs(todo, slots, watch, looked, keeping, kinds)
    except StoppedError as stopped:
        print_table(form, *_filled(chosen, todo))
        raise StoppedError(f"unfinished: {stopped}; the same command does what is left", stopped.exit_code) from None
    except (InUseError, CellsFailedError):
        print_table(form, *_filled(chosen, todo))
        raise
    grid, records = _filled(chosen, todo)
    print_table(form, grid, records)
    diverged = [cell.row.name for cell in todo if (found := cell.results()) and found.diverged]
    if diverged:
        raise DivergedError(f"diverged: {', '.join(diverged)}; the other rows are measured")


def _filled(table: "Table", todo: "list[Cell]") -> "tuple[Grid, list[dict[str, Any]]]":
    from advmix_cli.ablation.lines import lines_of
    from advmix_cli.report.ablation import ablation_grid, ablation_records

    columns, lines = lines_of(table, todo)
    return ablation_grid(table.title, columns, lines, table.settings), ablation_records(columns, lines)
