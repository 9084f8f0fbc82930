"""`advmix ablate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advmix_cli.commands.console import Format, err, print_table
from advmix_cli.commands.options import DeviceName, SaveEvery, Settings, StopAfter
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
from advmix_cli.errors import DivergedError, InUseError, StoppedError, UsageError
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and what is still to run.")] = False,
    status: Status = False,
    stop_after: StopAfter = None,
    save_every: SaveEvery = "5m",  # pyright: ignore[reportArgumentType] (the parser's to read)
    form: Annotated[Format, typer.Option("--format", help="Of the table on stdout.")] = Format.RICH,
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
    request = requested(
        launcher, time, partition=partition, gpus=gpus, cpus=cpus, mem=mem, account=account, qos=qos, parallel=parallel
    )
    if request and stop_after is not None:
        raise UsageError("--stop-after: only with --launcher local; a task stops when its --time is up")

    from advmix_cli.recipe.table import load_table

    loaded = load_table(table, settings or [])

    from advmix_cli.ablation.cells import cells, select

    chosen = select(loaded, rows or [])
    todo = cells(chosen, seeds, directory / chosen.name)
    if status:
        show(chosen.title, todo, form)
        return

    from advmix_cli import build
    from advmix_cli.ablation.plan import plan_grid, plan_records
    from advmix_cli.ablation.queue import run_cells
    from advmix_cli.fit import Keeping
    from advmix_cli.report.live import live_table

    if dry_run:
        print_table(form, plan_grid(chosen.title, todo), plan_records(todo))
        return
    known = [cell.results() for cell in todo]
    if request and not all(found and (found.finished or found.diverged) for found in known):
        launch(chosen.title, todo, request, device, save_every, form)
        return
    place = build.device(device)
    try:
        with stoppable(stop_after) as stop, live_table(err, lambda: _filled(chosen, todo)[0]) as (watch, redraw):
            run_cells(todo, place, watch, lambda _: redraw(), Keeping(save_every, stop))
    except StoppedError as stopped:
        print_table(form, *_filled(chosen, todo))
        raise StoppedError(f"unfinished: {stopped}; the same command does what is left", stopped.exit_code) from None
    except InUseError:
        print_table(form, *_filled(chosen, todo))
        raise
    grid, records = _filled(chosen, todo)
    print_table(form, grid, records)
    diverged = [cell.row.name for cell in todo if (found := cell.results()) and found.diverged]
    if diverged:
        raise DivergedError(f"diverged: {', '.join(diverged)}; the other rows are measured")


def _filled(table: "Table", todo: "list[Cell]") -> "tuple[Grid, list[dict[str, Any]]]":
    from advmix_cli.recipe.schema import WORST
    from advmix_cli.report.ablation import Line, ablation_grid, ablation_records

    lines: list[Line] = []
    for row in table.rows:
        own = [cell for cell in todo if cell.row.name == row.name]
        lines.append(Line(row.name, tuple(c.results() for c in own), tuple(c.directory for c in own), row.paper))
    worst = [WORST] if any(line.outcomes("last", WORST) for line in lines) else []
    columns = [*table.columns, *worst]
    return ablation_grid(table.title, columns, lines, table.settings), ablation_records(columns, lines)
