"""`advmix eval --diagnose`."""

from pathlib import Path

from advmix_cli.commands.console import err, out, print_json
from advmix_cli.errors import AdvmixError
from advmix_cli.stopping import stoppable


def diagnosed(
    path: Path,
    transfer: Path | None,
    limit: int,
    stop_after: float | None,
    device: str,
    settings: list[str],
    *,
    as_json: bool,
) -> None:  # fmt: skip
    """Print the checks of the checkpoint at `path`; AdvmixError if any of them fails."""
    from advmix_cli import build, checkpoint
    from advmix_cli.diagnosis.diagnose import diagnose, diagnosis_grids
    from advmix_cli.measure import recipe_to_measure
    from advmix_cli.report.progress import watcher

    saved = checkpoint.load(path)
    other = checkpoint.load(transfer) if transfer else None
    recipe = recipe_to_measure(saved, str(path), settings, [], None)
    place = build.device(device)
    with stoppable(stop_after), watcher(err) as watch:
        found = diagnose(saved, recipe, place, watch, limit, other)
    failed = [check.name for check in found if check.passed is False]
    if as_json:
        checks = [{**vars(check), "verdict": check.verdict} for check in found]
        print_json({"checkpoint": str(path), "weights": saved.weights, "n": limit, "checks": checks})
    else:
        for grid in diagnosis_grids(saved.recipe.title or str(path), found, limit):
            grid.print(out)
    if failed:
        raise AdvmixError(f"its accuracies under attack cannot be believed: {'; '.join(failed)}")
