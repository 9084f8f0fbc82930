"""One recipe -> trained weights in a run directory, whatever stops it in between."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advmix_cli import build, engine, fitting, machine
from advmix_cli.course import Course, Weights, epoch_line, improved
from advmix_cli.data.images import Dataset
from advmix_cli.errors import (
    DivergedError,
    EvaluationError,
    MemoryExhaustedError,
    StoppedError,
)
from advmix_cli.memory import is_out_of_memory, release
from advmix_cli.ranks.team import ALONE, Team
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report.progress import Watcher
from advmix_cli.state import State
from advmix_cli.stopping import Stop
from advmix_cli.training import collapse, resuming
from advmix_cli.training.loop import Epoch, Progress, Training
from advmix_cli.training_files import TrainingFiles
from advmix_cli.validation import Validation

NOT_THE_SAME = "not bit for bit what an uninterrupted training would be"


@dataclass(frozen=True)
class Keeping:
    """When the state of a training is saved: `every` so many seconds, and at a `stop`."""

    every: float = 300.0
    stop: Stop = field(default_factory=Stop)


def fit(
    recipe: Recipe,
    images: Dataset,
    place: torch.device,
    directory: Path,
    watch: Watcher,
    keeping: Keeping,
    team: Team = ALONE,
) -> None:
    """Train to the end, from the newest state in `directory` if there is one; the last weights, written at the very
    end, say all that is to be known of it. StoppedError after the state has been saved; MemoryExhaustedError says which
    batch fits.

    All ranks of `team` do so; the first one alone looks at `directory`, judges and saves.
    """
    try:
        with machine.deterministic(recipe.engine.deterministic):
            files = TrainingFiles(directory, recipe, images, images.fingerprints(), watch.say)
            return _Fit(recipe, images, files, place, watch, keeping, team).run()
    except DivergedError as error:
        error.said = not team.first  # the figures of all ranks are the same
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    if team.world > 1:
        # A search for what fits would keep the others waiting.
        raise MemoryExhaustedError(
            f"out of memory on {place}, with {recipe.schedule.batch_size // team.world} images in each of {team.world} "
            "ranks: start more of them, or choose a smaller schedule.batch_size"
        )
    # Here nothing refers to the network any more: the search has the memory that the training had.
    release()
    raise MemoryExhaustedError(fitting.advice(recipe, images, place))


@dataclass(frozen=True)
class _Fit:
    recipe: Recipe
    images: Dataset
    files: TrainingFiles
    place: torch.device
    watch: Watcher
    keeping: Keeping
    team: Team

    def run(self) -> None:
        known = None
        with self.team.together():
            if self.team.first:
                known = self.files.newest_state()
        network = build.new_network(self.recipe, self.images, self.place, self.team)
        # Before it is restored, so that a resumed training is rehearsed on what a new one is rehearsed on.
        prepared = engine.prepare(self.recipe, self.images, network, self.place, self.team)
        self.watch.say(str(prepared))
        course = self._begun(prepared.training)
        with self.team.together():
            if known:
                self.files.restore(prepared.training, course, known)
        self._spread(prepared.training, course, known)
        here = {**machine.described(self.place), "engine": prepared.formulation}
        if self.team.world > 1:
            here["ranks"] = str(self.team.world)
        self._notice(course, here)
        self._epochs(prepared.training, course)

    def _spread(self, training: Training, course: Course, known: State | None) -> None:
        """Where the first rank goes on, all do."""
        epoch, done, names = self.team.from_first((course.at.epoch, course.at.done, course.at.names))
        if self.team.from_first(known is not None):
            saved = self.team.tensors_from_first(known.tensors if known else None)
            if not self.team.first:
                course.at = resuming.restore(training, saved, epoch, done, names)

    def _begun(self, training: Training) -> Course:
        best = "best on test" if self.recipe.validation.on == "test" else "best on validation"
        own, average = Weights(training.network, "", "last", best), training.average
        averaged = average and Weights(average.network, "average_", "averaged last", f"averaged {best}")
        return Course(own, averaged)

    def _notice(self, course: Course, here: dict[str, str]) -> None:
        """Say what is not as it was, and note it."""
        last = course.machines[-1] if course.machines else here
        names = dict.fromkeys([*here, "ranks"])
        differ = [name for name in names if machine.said(last, name) != machine.said(here, name)]
        if differ:
            changes = "; ".join(
                f"{name} was {machine.said(last, name)}, is {machine.said(here, name)}" for name in differ
            )
            self.watch.say(f"warning: {NOT_THE_SAME}: {changes}")
        elif course.machines and self.place.type == "cuda" and not self.recipe.engine.deterministic:
            self.watch.say(f"warning: {NOT_THE_SAME}: a GPU's are only with engine.deterministic = true")
        elif len(course.machines) > 1:
            self.watch.say(f"warning: {NOT_THE_SAME}: {len(course.machines)} machines have trained it")
        if differ or not course.machines:
            course.machines += ({"from_epoch": course.at.epoch, "from_batches": course.at.done, **here},)

    def _epochs(self, training: Training, course: Course) -> None:
        """Write metrics.jsonl and the checkpoints of the best and of the last epoch. From the first batch to the last
        checkpoint a signal waits until nothing is lost by it."""
        with self.team.together():  # it may compile, and the others must not be in step with it then
            own = course.weights() if self.team.first else []
            validation = Validation.of(self.recipe, self.images, own, training.epochs, self.watch.say)
        started = saved_at = time.perf_counter()

        def seconds() -> float:
            return course.seconds + time.perf_counter() - started

        def save() -> None:
            nonlocal saved_at
            self.team.raise_if_apart(resuming.living(training), f"by epoch {course.at.epoch}")
            with self.team.together():
                if self.team.first:
                    self.files.save_state(training, course, seconds())
            saved_at = time.perf_counter()

        def between(progress: Progress) -> None:
            course.at = progress
            self.watch.advance(1)
            due = time.perf_counter() - saved_at >= self.keeping.every
            number, due = self.team.highest(self.keeping.stop.number, due)
            if number:
                self.keeping.stop.hear(number)
            self.keeping.stop.check()
            if due:
                save()

        if self.team.first:
            self.files.begin(course)
        self.watch.begin(self.recipe.title or "training", training.epochs * training.batches, "batches")
        self.watch.advance((course.at.epoch - 1) * training.batches + course.at.done)
        with self.keeping.stop.heard_at_checks():
            try:
                for epoch in training.run(between, course.at):
                    self.team.raise_if_apart(resuming.living(training), f"by the end of epoch {epoch.number}")
                    found, back = epoch.to_json(), None
                    with self.team.together():
                        if self.team.first:
                            found |= self._judged(epoch, validation)
                            back = self._noted(found, training, course)
                    course.at = Progress(epoch.number + 1)
                    if self.team.from_first(back is not None):
                        resuming.roll_back(training, self.team.tensors_from_first(back))
                    # The weights of an epoch that was rolled back are gone, and its average with them.
                    better = [] if back else [one for one in course.weights() if improved(one, found)]
                    if self.team.from_first(bool(better)):
                        # First the state, whose weights are the best ones: a kill between the two loses neither.
                        save()
                    for weights in better:
                        self.files.save(weights, weights.selected_best, course)
            except StoppedError:
                save()
                raise
            with self.team.together():
                if self.team.first:
                    self.files.finish(course, seconds())

    def _judged(self, epoch: Epoch, validation: Validation) -> dict[str, float]:
        """The accuracies of all weights after an epoch."""
        with self.keeping.stop.heard_at_once():
            try:
                return validation.accuracies()
            except EvaluationError as error:
                raise DivergedError(f"{error} (in the validation after epoch {epoch.number})") from error

    def _noted(self, found: dict[str, Any], training: Training, course: Course) -> Mapping[str, Tensor] | None:
        """Write the line of an epoch; the weights to go back to, if it collapsed."""
        fallen = self._collapse(found, course)
        course.lines.append(json.dumps(found))
        self.files.append(course.lines[-1])
        self.watch.epoch(epoch_line(found, training.epochs))
        # Before a state is saved: it would know nothing of it.
        return self._after_collapse(fallen, found, course) if fallen else None

    def _collapse(self, found: dict[str, Any], course: Course) -> str | None:
        """What happened, if the epoch of the line `found` collapsed; the line is told of it."""
        before, after = collapse.before(course.lines), found.get(collapse.ACCURACY)
        if not collapse.is_collapse(before, after, len(self.images.classes)):
            return None
        found["collapsed"] = True
        # After the last epoch nothing is trained any more, and the best one is there beside it.
        ended = found["epoch"] == self.recipe.schedule.epochs
        if self.recipe.schedule.on_collapse == "rollback" and course.own.best and not ended:
            found["rolled_back_to"] = course.own.best.epoch
        fell = " to ".join(f"{100 * accuracy:.1f} %" for accuracy in (before, after) if accuracy is not None)
        return f"the accuracy under the validation's attack fell from {fell} within epoch {found['epoch']}"

    def _after_collapse(self, fallen: str, found: dict[str, Any], course: Course) -> Mapping[str, Tensor] | None:
        """The weights to go back to, if the recipe says so and there are some."""
        if self.recipe.schedule.on_collapse == "stop":
            raise DivergedError(f'{fallen}, and schedule.on_collapse is "stop"')
        best = self.files.best(course.own) if "rolled_back_to" in found else None
        if best is None:
            self.watch.say(f"warning: {fallen}: its gradients may be hidden (advmix eval --diagnose)")
            return None
        self.watch.say(f"warning: {fallen}: it goes on from the weights of epoch {found['rolled_back_to']}")
        return best.state
