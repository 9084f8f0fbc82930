"""A cell whose training another cell has done, and which is to be measured otherwise: it is not trained again, and what
both are to measure is not measured again."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from advmix_cli.ablation.cells import Cell
from advmix_cli.errors import CheckpointError, DataError, InUseError, RecipeError, RunDirectoryError
from advmix_cli.files import append_line, read_text, write_atomically
from advmix_cli.locks import held
from advmix_cli.recipe import load
from advmix_cli.recipe.schema import Evaluator, FolderData, Recipe
from advmix_cli.rundir import LAST, LOG, LONGEST_METRICS, METRICS, RECIPE, RESULTS, STATE, runs_in

if TYPE_CHECKING:
    from advmix_cli.checkpoint import Checkpoint
    from advmix_cli.evaluation.verdict_files import Record
    from advmix_cli.report.results import Measured


def trainings(table: Path) -> dict[str, list[Path]]:
    """The run directories of `table` whose training has ended, by the digests of their trainings."""
    found: dict[str, list[Path]] = {}
    for directory in runs_in(table):
        with suppress(RecipeError, OSError):
            if (directory / LAST).is_file() and (directory / RESULTS).is_file():
                found.setdefault(load.read(directory / RECIPE).recipe().training_digest(), []).append(directory)
    return found


def is_trained(cell: Cell, known: Mapping[str, Sequence[Path]]) -> bool:
    """Whether `take_over` finds its training among the `known` ones, if they are whole."""
    return cell.row.recipe.training_digest() in known


def take_over(cells: Sequence[Cell], say: Callable[[str], None]) -> None:
    """Give each of `cells`, which are prepared and in one directory, the networks and verdicts that are there under
    recipes that differ in what is measured; `say` is told. What is damaged or in use is left. OSError where it cannot
    be written."""
    todo = [cell for cell in cells if _is_to_train(cell)]
    known = trainings(todo[0].directory.parent) if todo else {}
    images = _Fingerprints(say)
    for cell in todo:
        sources = known.get(cell.row.recipe.training_digest(), [])
        for source in sources:
            try:
                with held(cell.directory):
                    if not _is_to_train(cell):  # any more
                        break
                    _take_over(cell, source, sources, images)
            except InUseError:
                break  # and is being trained
            except (CheckpointError, DataError, RunDirectoryError) as error:
                say(f"{cell.name}: cannot take over the training of {source}: {error}")
            else:
                said = f"trained as {source.name}: only measured"
                append_line(cell.directory / LOG, said)
                say(f"{cell.name}: {said}")
                break


def _is_to_train(cell: Cell) -> bool:
    return not (cell.directory / LAST).exists() and not cell.ended()


def _take_over(cell: Cell, source: Path, sources: Sequence[Path], images: "_Fingerprints") -> None:
    from advmix_cli import checkpoint, run  # with torch, which who only looks can do without
    from advmix_cli.report.results import Results

    recipe, directory = cell.row.recipe, cell.directory
    last, known = checkpoint.load(source / LAST), Results.load(source)
    if last.recipe.training_digest() != recipe.training_digest():
        raise RunDirectoryError("its last network is not of its recipe.toml")
    if known is None or known.digest != last.recipe.digest():
        raise RunDirectoryError("its results are gone, or not those of its recipe")
    # A folder may have changed under the same path; what is downloaded has its checksums.
    if isinstance(recipe.data, FolderData) and images.now(recipe) != last.images:
        raise RunDirectoryError("the images have changed since")
    networks, metrics = run.reported(_with_all_measured(recipe), last, source), _metrics(source, last)
    shutil.rmtree(directory / STATE, ignore_errors=True)  # of a training that goes on from other metrics
    write_atomically(directory / METRICS, metrics)
    for saved in networks:
        if saved is not last:
            replace(saved, recipe=recipe).save(directory / checkpoint.name_of(saved.selection))
    # run.execute takes the rest from the last network.
    measured = tuple(_measured(saved, recipe, directory, sources) for saved in run.reported(recipe, last, source))
    replace(known, title=recipe.title, digest=recipe.digest(), measured=measured, finished=False).save(directory)
    # Last of all: where this is, the training has ended.
    replace(last, recipe=recipe).save(directory / LAST)


@dataclass(frozen=True)
class _Fingerprints:
    """Of images as they are now, each looked at once."""

    say: Callable[[str], None]
    found: dict[object, dict[str, str]] = field(default_factory=dict)

    def now(self, recipe: Recipe) -> dict[str, str]:
        """DataError if they cannot be read."""
        import torch

        from advmix_cli import build

        same = recipe.data, recipe.validation.held_out
        if same not in self.found:
            self.found[same] = build.dataset(recipe, torch.device("cpu"), self.say).fingerprints()
        return self.found[same]


def _with_all_measured(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"validation": recipe.validation.model_copy(update={"report": "both"})})


def _metrics(source: Path, last: "Checkpoint") -> str:
    try:
        text = read_text(source / METRICS, LONGEST_METRICS)
        if json.loads(text.splitlines()[-1]) == last.metrics:
            return text
    except (OSError, ValueError, IndexError):
        pass
    raise RunDirectoryError(f"{METRICS} is gone, or not that of its last network")


def _measured(saved: "Checkpoint", recipe: Recipe, directory: Path, sources: Sequence[Path]) -> "Measured":
    """What the evaluators of `recipe` have found of `saved` in any of `sources`; their verdicts are written."""
    from advmix_cli import run
    from advmix_cli.report.results import Measured

    every = (next(filter(None, (_record(one, saved, source) for source in sources)), None) for one in recipe.evaluators)
    found = [record for record in every if record]
    for record in found:
        record.save(run.file_of(record.found.outcome, saved, directory))
    return Measured(saved.selection, saved.epoch, saved.weights, tuple(record.found.outcome for record in found))


def _record(chosen: Evaluator, saved: "Checkpoint", source: Path) -> "Record | None":
    """What `chosen` has found of `saved` in `source`; what is damaged is measured again."""
    from advmix_cli import run
    from advmix_cli.report.results import Results

    with suppress(RecipeError, RunDirectoryError):
        theirs, known = load.read(source / RECIPE).recipe(), Results.load(source)
        entry = known.of(saved.selection) if known and known.digest == theirs.digest() else None
        if entry and chosen in theirs.evaluators and (outcome := entry.outcome(chosen.name)):
            return run.recorded(outcome, saved, source)
    return None
