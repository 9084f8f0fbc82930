"""`advmix plan`."""

from typing import Annotated

import typer

from advmix_cli.commands.console import err, out, print_json
from advmix_cli.commands.options import DeviceName, Json, Settings


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
        print_json(plan_document(table, lines))
    else:
        for grid in plan_grids(table, lines):
            grid.print(out)
