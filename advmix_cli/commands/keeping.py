"""Where `advmix eval` keeps what it found of each image, if it is asked to."""

import json
import os
from collections.abc import Callable, Iterable
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
    identity: str = "",
) -> "Callable[[Evaluated], None]":
    """Writes verdicts into `directory`, or nothing at all; a file for each evaluator, settings, number of images and
    `identity` of what was measured. UsageError if it cannot be written, which would otherwise be found after the first
    attack."""
    from advmix_cli.evaluation import verdict_files
    from advmix_cli.evaluation.verdict_files import Record
    from advmix_cli.seals import digest

    if directory is not None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{directory} cannot be written: {error.strerror}") from None
        if not os.access(directory, os.W_OK):
            raise UsageError(f"{directory} cannot be written")

    def keep(one: "Evaluated") -> None:
        if directory is not None:
            made_of = digest(json.dumps([one.outcome.settings, one.outcome.n, identity]))
            file = verdict_files.place(directory, f"{one.outcome.name} {made_of[:8]}", epoch, weights)
            Record(one, weights, images[one.outcome.settings["split"]], classes, selection).save(file)
            say(f"verdicts: {file}")

    return keep


def with_the_worst(
    found: "Iterable[Evaluated]", epsilon: float, keep: "Callable[[Evaluated], None]"
) -> "list[Evaluated]":
    """What is found, kept as it comes, and at its end the worst case over attacks with `epsilon`, if there is one."""
    from advmix_cli.evaluation.worst import worst_case
    from advmix_cli.recipe.schema import WORST

    kept: list[Evaluated] = []
    for one in found:
        kept.append(one)
        keep(one)
    if worst := worst_case(WORST, kept, epsilon):
        kept.append(worst)
        keep(worst)
    return kept
