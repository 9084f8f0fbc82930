"""What `advmix eval --diagnose` prints."""

from pathlib import Path
from typing import TYPE_CHECKING

from advmix_cli.commands.console import out, print_json, say
from advmix_cli.errors import AdvmixError

if TYPE_CHECKING:
    from advmix_cli.diagnosis.diagnose import Diagnosis

DIAGNOSED = 200
"""Images, without --limit."""


def told(
    title: str, diagnosis: "Diagnosis", weights: str, save: Path | None, figures: Path | None, *, as_json: bool
) -> None:
    """Print the checks, keep them in `save` as those of the network of these `weights`, and draw their curve into
    `figures`; AdvmixError if any of them failed."""
    from advmix_cli.diagnosis.diagnose import diagnosis_grids

    if as_json:
        document = [{**vars(check), "verdict": check.verdict} for check in diagnosis.checks]
        print_json({"checkpoint": title, "n": diagnosis.n, "checks": document, "finished": True})
    else:
        for grid in diagnosis_grids(title, diagnosis):
            grid.print(out)
    if save:
        from advmix_cli.diagnosis.kept import Kept

        say(f"diagnosis: {Kept(diagnosis, weights).save(save)}")
    if figures:
        from advmix_cli.diagnosis.figure import draw

        for path in draw(title, diagnosis, figures):
            say(f"figure: {path}")
    failed = [check.name for check in diagnosis.checks if check.passed is False]
    if failed:
        raise AdvmixError(f"its accuracies under attack cannot be believed: {'; '.join(failed)}")
