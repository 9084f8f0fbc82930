"""The files of a training in its run directory: where it goes on from, and what it writes.

metrics.jsonl       a line an epoch
model.safetensors   the last epoch
best.safetensors    the best epoch on the validation images
average.safetensors, average-best.safetensors
                    the same of the average, where the recipe has one
state/              where an unfinished training goes on
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advmix_cli import checkpoint, seals, state
from advmix_cli.checkpoint import Averaged, Checkpoint, name_of
from advmix_cli.course import Course, Weights, lines_before
from advmix_cli.data.images import Dataset
from advmix_cli.errors import CheckpointError, RunDirectoryError
from advmix_cli.files import append_line, write_atomically
from advmix_cli.recipe.schema import Recipe
from advmix_cli.rundir import METRICS, STATE
from advmix_cli.state import State
from advmix_cli.training import collapse, resuming
from advmix_cli.training.loop import Training


@dataclass(frozen=True)
class TrainingFiles:
    """Of a training of `recipe` on `images` in `directory`; `say` is told what was found there."""

    directory: Path
    recipe: Recipe
    images: Dataset
    fingerprints: dict[str, str]
    say: Callable[[str], None]

    def newest_state(self) -> State | None:
        """The state to go on from; all others are removed."""
        known = state.newest(self.directory / STATE, self.say)
        if known is None and (self.directory / METRICS).exists():
            self.say(f"{self.directory} holds an earlier training and no state of it: it starts again")
        state.leave_only(known, self.directory / STATE)
        return known

    def restore(self, training: Training, course: Course, known: State) -> None:
        """Bring the training to where it was; RunDirectoryError if the files beside the state are not those of then."""
        if (known.recipe, known.images) != (self.recipe.digest(), self.fingerprints):
            raise RunDirectoryError(f"{self.directory / STATE} belongs to another recipe or other images")
        course.lines = lines_before(self.directory / METRICS, known.epoch, known.metrics)
        course.machines, course.seconds = known.machines, known.seconds
        try:
            course.at = at = resuming.restore(training, known.tensors, known.epoch, known.done, known.names)
        except ValueError as error:
            raise RunDirectoryError(f"{self.directory / STATE} is not a state of this recipe: {error}") from None
        # Without an average there is none of its best epochs either.
        for weights, best in zip(course.weights(), (known.best, known.averaged_best), strict=False):
            weights.best = best
            if best and (best.epoch + 1, 0) == (at.epoch, at.done):
                # The state was saved before its weights were written as the best: here they are.
                self.save(weights, weights.selected_best, course)
            self.best(weights, before=at.epoch)
        self.say(f"resumed at epoch {at.epoch}, after {at.done} of its {training.batches} batches")

    def best(self, weights: Weights, before: int | None = None) -> Checkpoint | None:
        """What the file of the best epoch holds, if there is one. RunDirectoryError if that is another epoch, and not
        one from `before` on: after damage to the newest state such an epoch is trained anew."""
        best, path = weights.best, self.directory / name_of(weights.selected_best)
        if best is None:
            return None
        try:
            saved = checkpoint.load(path)
        except CheckpointError as error:
            # What the disk does not give may be whole.
            after = "" if isinstance(error.__cause__, OSError) else f"; delete {self.directory} to start again"
            raise RunDirectoryError(f"{error}{after}") from None
        anew = before is not None and saved.epoch >= before
        if saved.weights != best.digest and not anew:
            raise RunDirectoryError(
                f"{path} is not the network of epoch {best.epoch}, the best one; delete {self.directory} to start again"
            )
        return saved

    def save_state(self, training: Training, course: Course, seconds: float) -> None:
        """Write where the training is; `seconds` are all that it took so far."""
        State(
            recipe=self.recipe.digest(),
            images=self.fingerprints,
            epoch=course.at.epoch,
            done=course.at.done,
            names=course.at.names,
            best=course.own.best,
            averaged_best=course.averaged and course.averaged.best,
            metrics=seals.digest(course.metrics()),
            seconds=seconds,
            machines=course.machines,
            tensors=resuming.tensors(training, course.at),
        ).save(self.directory / STATE)

    def begin(self, course: Course) -> None:
        """Write metrics.jsonl as far as the training is."""
        write_atomically(self.directory / METRICS, course.metrics())

    def append(self, line: str) -> None:
        """Another line of metrics.jsonl."""
        append_line(self.directory / METRICS, line)

    def finish(self, course: Course, seconds: float) -> None:
        """Write the checkpoints of the last epoch."""
        for weights in course.weights():
            self.best(weights)
        averaged = course.averaged
        if averaged:
            averaged = Averaged(self.save(averaged, averaged.selected_last, course).weights, averaged.best)
        # Last of all: where these are, the training has ended.
        last = {
            "seconds": round(seconds, 3),
            "best": course.own.best,
            "averaged": averaged,
            "collapsed": collapse.epochs(course.lines),
        }
        self.save(course.own, course.own.selected_last, course, **last)

    def save(self, weights: Weights, selection: str, course: Course, **more: Any) -> Checkpoint:
        """Write the weights as they are after the last epoch that is done."""
        line = json.loads(course.lines[-1])
        saved = Checkpoint(
            recipe=self.recipe,
            state=weights.network.state_dict(),
            classes=self.images.classes,
            image_shape=self.images.image_shape,
            images=self.fingerprints,
            selection=selection,
            epoch=line["epoch"],
            machines=course.machines,
            metrics=line,
            **more,
        )
        saved.save(self.directory / name_of(selection))
        return saved
