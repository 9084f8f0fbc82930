"""The names in a run directory, and what they tell alone: without torch, for who only looks."""

import os
import re
from pathlib import Path

RECIPE = "recipe.toml"
METRICS = "metrics.jsonl"
RESULTS = "results.json"
STATE = "state"
VERDICTS = "verdicts"
FINDINGS = "findings"
LAST = "model.safetensors"
LOG = "log.txt"
"""What the process of a cell said; appended."""
FAILURE = "failure.json"
"""Why a cell was given up."""

LONGEST_METRICS = 2**30
"""Bytes; the million epochs that a recipe can have need a third of it."""
LONGEST_MANIFEST = 2**20
"""Bytes; it has a thousand, and a few hundred more for each machine that the training moved to."""
LONGEST_RESULTS = 2**26
"""Bytes."""


def runs_in(place: Path) -> list[Path]:
    """The directories in `place` that are runs, or may be; none where there is no such directory."""
    return [path for path in sorted(place.iterdir()) if is_run(path)] if place.is_dir() else []


def is_run(directory: Path) -> bool:
    """Whether it holds a recipe, or may: of a directory that cannot be read that is said, and the others are shown."""
    is_closed = directory.is_dir() and not os.access(directory, os.R_OK | os.X_OK)
    return is_closed or (directory / RECIPE).is_file()


STEM = r"\d{6,7}-\d{6,9}"
"""Of the files of a state: epoch and batches."""


def manifests(directory: Path) -> list[Path]:
    """Those of the states in `directory`, the newest first."""
    try:
        named = [path for path in directory.glob("*.json") if re.fullmatch(STEM, path.stem)]
    except FileNotFoundError:  # a training that has just ended has removed it
        return []
    return sorted(named, key=place, reverse=True)


def place(manifest: Path) -> tuple[int, int]:
    """The epoch and the batches of a state, by its name."""
    epoch, _, done = manifest.stem.partition("-")
    return int(epoch), int(done)


def reached(directory: Path) -> tuple[int, int] | None:
    """The epoch and the batches of the newest state, if there is one."""
    return next((place(manifest) for manifest in manifests(directory)), None)
