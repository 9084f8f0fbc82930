"""Where `advmix eval` keeps what it found of each image, if it is asked to."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from advmix_cli.commands.console import say
from advmix_cli.commands.places import raise_unless_writable
from advmix_cli.errors import AdvmixError

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
    network: str = "",
) -> "Callable[[Evaluated], None]":
    """Writes verdicts into `directory`, or nothing at all; a file for each evaluator, settings, number of images and
    `identity` of what was measured; `network` as a `Record` has it. UsageError if it cannot be written, which would
    otherwise be found after the first attack."""
    from advmix_cli.evaluation import verdict_files
    from advmix_cli.evaluation.verdict_files import Record
    from advmix_cli.seals import digest

    if directory is not None:
        raise_unless_writable(directory, "verdicts into")

    def keep(one: "Evaluated") -> None:
        if directory is not None:
            made_of = digest(json.dumps([one.outcome.settings, one.outcome.n, identity]))
            file = verdict_files.place(directory, f"{one.outcome.name} {made_of[:8]}", epoch, weights)
            try:
                shown = images[one.outcome.settings["split"]]
                Record(one, weights, shown, classes, selection, network).save(file)
            except OSError as error:  # the disk's, and not that of the code that is measured
                raise AdvmixError(f"{error.filename}: {error.strerror}") from error
            say(f"verdicts: {file}")

    return keep


def with_the_worst(
    found: "Iterable[Evaluated]", epsilon: float, keep: "Callable[[Evaluated], None]"
) -> "Iterator[Evaluated]":
    """What is found, kept as it comes, and at its end the worst case over attacks with `epsilon`, if there is one."""
    from advmix_cli.evaluation.worst import worst_case
    from advmix_cli.recipe.schema import WORST

    kept: list[Evaluated] = []
    for one in found:
        kept.append(one)
        keep(one)
        yield one
    if worst := worst_case(WORST, kept, epsilon):
        keep(worst)
        yield worst
