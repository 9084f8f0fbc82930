"""`advmix ablate`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advmix_cli.commands.console import Format, print_table
from advmix_cli.commands.jobs import Jobs, run_at_once
from advmix_cli.commands.one_by_one import run_here
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
    slurm = {"partition": partition, "gpus": gpus, "cpus": cpus, "mem": mem, "account": account, "qos": qos}
    # "The same command with --status" may have all that was asked of SLURM.
    asks = not status or launcher == Launcher.LOCAL
    request = requested(launcher, time, **slurm, parallel=parallel) if asks else None
    if status and (dry_run or jobs is not None or stop_after is not None):
        raise UsageError("--status starts nothing: --dry-run, --jobs and --stop-after mean nothing to it")
    if request and stop_after is not None:
        raise UsageError("--stop-after: only with --launcher local; a task stops when its --time is up")
    if request and jobs is not None:
        raise UsageError("--jobs: only with --launcher local; --parallel says how many tasks run at once")

    from advmix_cli.ablation.cells import cells, select
    from advmix_cli.recipe.table import load_table

    loaded = load_table(table, settings or [])
    chosen, kinds = select(loaded, rows or []), trackers(track)
    todo = cells(chosen, seeds, directory / chosen.name)
    if status:
        show(chosen.title, todo, form)
        return
    if dry_run:
        from advmix_cli.ablation.plan import plan_grid, plan_records

        print_table(form, plan_grid(chosen.title, todo), plan_records(todo))
        return
    left = [cell for cell in todo if not cell.ended()]
    if request and left:
        from advmix_cli.ablation.order import keep_order

        launch(chosen.title, todo, request, device, save_every, kinds, form)
        keep_order([row.name for row in loaded.rows], todo[0].directory.parent)
        return

    from advmix_cli.fit import Keeping

    with _table_at_the_end(chosen, todo, form), stoppable(stop_after) as stop:
        keeping = Keeping(save_every, stop)
        if left:  # else there is only a table to print, and the device need not be here
            if jobs is None:
                run_here(loaded, todo, device, keeping, kinds)
            else:
                run_at_once(loaded, todo, jobs, device, keeping, kinds)


@contextmanager
def _table_at_the_end(table: "Table", todo: "list[Cell]", form: Format) -> Iterator[None]:
    """Print what the cells have found, however the work within has ended; the errors that it ends with are said after
    that, and DivergedError names the rows that did."""
    from advmix_cli.ablation.lines import lines_of
    from advmix_cli.report.ablation import ablation_grid, ablation_records

    def show_table() -> None:
        columns, lines = lines_of(table, todo)
        grid = ablation_grid(table.title, columns, lines, table.settings)
        print_table(form, grid, ablation_records(columns, lines), finished=all(cell.ended() for cell in todo))

    try:
        yield
    except StoppedError as stopped:
        show_table()
        raise StoppedError(f"unfinished: {stopped}; the same command does what is left", stopped.exit_code) from None
    except (InUseError, CellsFailedError):
        show_table()
        raise
    show_table()
    diverged = [cell.listed for cell in todo if (found := cell.results()) and found.diverged]
    if diverged:
        others = "; the other rows are measured" if len(diverged) < len(todo) else ""
        raise DivergedError(f"diverged: {', '.join(diverged)}{others}")
