"""Where `advmix eval` keeps what it found of each image, if it is asked to."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from advmix_cli.commands.console import say
from advmix_cli.errors import UsageError

if TYPE_CHECKING:
    from advmix_cli.evaluation.outcome import Evaluated


def keeper(
    directory: Path | None,
    weights: str,
    images: dict[str, str],
    classes: tuple[str, ...],
    epoch: int | None = None,
    selection: str = "",
) -> "Callable[[Evaluated], None]":
    """Writes verdicts into `directory`, or nothing at all; UsageError if it cannot be written, which would otherwise be
    found after the first attack."""
    from advmix_cli.evaluation import verdict_files
    from advmix_cli.evaluation.verdict_files import Record

    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise UsageError(f"{directory} cannot be written")

    def keep(one: "Evaluated") -> None:
        if directory is not None:
            file = verdict_files.place(directory, one.outcome.name, epoch, weights)
            Record(one, weights, images[one.outcome.settings["split"]], classes, selection).save(file)
            say(f"verdicts: {file}")

    return keep
