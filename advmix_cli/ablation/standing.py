"""How a cell stands, from its files alone."""

import json
from dataclasses import dataclass
from pathlib import Path

from advmix_cli import state
from advmix_cli.checkpoint import LAST
from advmix_cli.locks import in_use
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report.results import Results


@dataclass(frozen=True)
class Standing:
    state: str
    epoch: int
    epochs: int
    error: str | None = None


def standing(recipe: Recipe, directory: Path) -> Standing:
    known = Results.load(directory)
    reached = state.reached(directory / "state")
    epochs = recipe.schedule.epochs
    trained = (directory / LAST).is_file()
    epoch = epochs if trained else (reached[0] - 1 if reached else 0)
    if known and known.finished:
        return Standing("done", epoch, epochs)
    if known and known.diverged:
        return Standing("diverged", epoch, epochs, known.diverged)
    if in_use(directory):
        return Standing("running", epoch, epochs)
    if (directory / "failure.json").is_file():
        return Standing("failed", epoch, epochs, json.loads((directory / "failure.json").read_text())["error"])
    return Standing("stopped" if reached or trained else "waiting", epoch, epochs)
