"""What `advmix eval --diagnose` prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from advmix_cli.commands.console import out, print_json
from advmix_cli.errors import AdvmixError

if TYPE_CHECKING:
    from advmix_cli.diagnosis.battery import Check

DIAGNOSED = 200
"""Images, without --limit."""


def told(title: str, checks: "Sequence[Check]", n: int, place: str, *, as_json: bool) -> None:
    """Print the checks; AdvmixError if any of them failed."""
    from advmix_cli.diagnosis.diagnose import diagnosis_grids

    if as_json:
        document = [{**vars(check), "verdict": check.verdict} for check in checks]
        print_json({"checkpoint": place, "n": n, "checks": document})
    else:
        for grid in diagnosis_grids(title, checks, n):
            grid.print(out)
    failed = [check.name for check in checks if check.passed is False]
    if failed:
        raise AdvmixError(f"its accuracies under attack cannot be believed: {'; '.join(failed)}")
