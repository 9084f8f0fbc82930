"""`advmix compare`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from advmix_cli.commands.console import out, print_json
from advmix_cli.commands.options import Json

HELP = "A run directory, a checkpoint in one, or verdicts that `advmix eval --save` kept."


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help=HELP)],
    b: Annotated[Path, typer.Argument(metavar="B", help=HELP)],
    selection: Annotated[
        Literal["last", "best", "averaged last", "averaged best"] | None,
        typer.Option("--selection", help="The weights of which epoch of a directory. By default a run's last."),
    ] = None,
    as_json: Json = False,
) -> None:
    """What B gained and lost against A, image by image, with the chance that it is noise."""
    from advmix_cli.report.comparison import collapsed, compared, comparison_grids, corrected, records

    first, second = records(a, selection), records(b, selection)
    found = compared(first, second)
    alone = sorted(first.keys() ^ second.keys()) if len(first) > 1 or len(second) > 1 else []
    fallen = collapsed(a), collapsed(b)
    if as_json:
        p_holm = corrected(found)
        compared_ones = [one.to_json(p_holm) for one in found]
        by_side = dict(zip("ab", fallen, strict=True))
        print_json({"a": str(a), "b": str(b), "collapsed": by_side, "evaluators": compared_ones, "of_one_alone": alone})
        return
    for grid in comparison_grids(found, (str(a), str(b)), alone, fallen):
        grid.print(out)
