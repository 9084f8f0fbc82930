"""The options of `advmix ablate` that ask for a SLURM cluster."""

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advmix_cli.commands.options import some_seconds
from advmix_cli.errors import UsageError

if TYPE_CHECKING:
    from advmix_cli.ablation.slurm.submit import Request

PANEL = "With --launcher slurm"


class Launcher(StrEnum):
    """Who runs the cells."""

    LOCAL = "local"
    SLURM = "slurm"


LauncherName = Annotated[
    Launcher, typer.Option("--launcher", help="local: this process; slurm: a job array, submitted from here.")
]
Status = Annotated[
    bool, typer.Option("--status", help="Show each cell, from its files and SLURM's queue, and start nothing.")
]
Partition = Annotated[
    str | None, typer.Option("--partition", metavar="NAME", help="Where to queue.", rich_help_panel=PANEL)
]
Time = Annotated[
    float | None,
    typer.Option(
        "--time", metavar="TIME", parser=some_seconds, rich_help_panel=PANEL,
        help="Of a task (90m, 4h), which then saves and is queued again. Must be given.",
    ),
]  # fmt: skip
Gpus = Annotated[
    int | None,
    typer.Option("--gpus", min=0, max=1, metavar="N", help="Of a cell: 0 or 1.", rich_help_panel=PANEL),
]
Cpus = Annotated[
    int | None, typer.Option("--cpus", min=1, metavar="N", help="Cores, and threads, of a cell.", rich_help_panel=PANEL)
]
Memory = Annotated[
    str | None, typer.Option("--mem", metavar="SIZE", help="Memory of a cell (16G).", rich_help_panel=PANEL)
]
Account = Annotated[
    str | None, typer.Option("--account", metavar="NAME", help="Who is charged.", rich_help_panel=PANEL)
]
Qos = Annotated[str | None, typer.Option("--qos", metavar="NAME", help="Quality of service.", rich_help_panel=PANEL)]
Parallel = Annotated[
    int | None,
    typer.Option("--parallel", min=1, metavar="N", help="Most cells at once.", rich_help_panel=PANEL),
]


def requested(launcher: Launcher, time: float | None, **given: Any) -> "Request | None":
    """What SLURM is asked for, or None for another launcher; UsageError for options that have no meaning."""
    if launcher != Launcher.SLURM:
        useless = [f"--{name}" for name, value in {"time": time, **given}.items() if value is not None]
        if useless:
            raise UsageError(f"{', '.join(useless)}: only with --launcher slurm")
        return None
    if time is None:
        raise UsageError("--launcher slurm needs --time, how long a task may run at a time: --time 4h")

    from advmix_cli.ablation.slurm.submit import Request

    return Request(minutes=math.ceil(time / 60), **given)
