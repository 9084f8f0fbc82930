"""One recipe -> trained weights in a run directory, whatever stops it in between.

metrics.jsonl       a line an epoch
model.safetensors   the last epoch
best.safetensors    the best epoch on the validation images
average.safetensors, average-best.safetensors
                    the same of the average, where the recipe has one
state/              where an unfinished training goes on
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advmix_cli import build, checkpoint, engine, fitting, machine, seals, state
from advmix_cli.attacked import subject_of
from advmix_cli.checkpoint import Averaged, Checkpoint, name_of
from advmix_cli.course import Course, Weights, epoch_line, improved, lines_before
from advmix_cli.data.images import Dataset, Images
from advmix_cli.errors import (
    CheckpointError,
    DivergedError,
    EvaluationError,
    MemoryExhaustedError,
    RunDirectoryError,
    StoppedError,
)
from advmix_cli.evaluation.outcome import Evaluator
from advmix_cli.evaluation.predict import measured
from advmix_cli.evaluation.pristine import Pristine
from advmix_cli.evaluation.subject import Subject
from advmix_cli.files import append_line, write_atomically
from advmix_cli.measure.evaluate import share_correct
from advmix_cli.memory import is_out_of_memory, release
from advmix_cli.ranks.team import ALONE, Team
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report.progress import Watcher
from advmix_cli.rundir import METRICS, STATE
from advmix_cli.state import State
from advmix_cli.stopping import Stop
from advmix_cli.training import collapse, resuming
from advmix_cli.training.loop import Epoch, Progress, Training

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
            return _Fit(recipe, images, images.fingerprints(), place, directory, watch, keeping, team).run()
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
    fingerprints: dict[str, str]
    place: torch.device
    directory: Path
    watch: Watcher
    keeping: Keeping
    team: Team

    def run(self) -> None:
        known = None
        with self.team.together():
            if self.team.first:
                known = self._known()
        network = build.new_network(self.recipe, self.images, self.place, self.team)
        # Before it is restored, so that a resumed training is rehearsed on what a new one is rehearsed on.
        prepared = engine.prepare(self.recipe, self.images, network, self.place, self.team)
        self.watch.say(str(prepared))
        course = self._begun(prepared.training)
        with self.team.together():
            if known:
                self._restore(prepared.training, course, known)
        self._spread(prepared.training, course, known)
        here = {**machine.described(self.place), "engine": prepared.formulation}
        if self.team.world > 1:
            here["ranks"] = str(self.team.world)
        self._notice(course, here)
        self._epochs(prepared.training, course)

    def _known(self) -> State | None:
        """The state to go on from."""
        known = state.newest(self.directory / STATE, self.watch.say)
        if known is None and (self.directory / METRICS).exists():
            self.watch.say(
                f"an earlier training in {self.directory} was cut off before its first state: it starts again"
            )
        state.leave_only(known, self.directory / STATE)
        return known

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

    def _restore(self, training: Training, course: Course, known: State) -> None:
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
                self._save(weights, weights.selected_best, course)
            self._check_best(weights, before=at.epoch)
        self.watch.say(f"resumed at epoch {at.epoch}, after {at.done} of its {training.batches} batches")

    def _check_best(self, weights: Weights, before: int | None = None) -> Checkpoint | None:
        """What the file of the best epoch holds, if there is one. RunDirectoryError if that is another epoch, and not
        one from `before` on: after damage to the newest state such an epoch is trained anew."""
        best, path = weights.best, self.directory / name_of(weights.selected_best)
        if best is None:
            return None
        try:
            saved = checkpoint.load(path)
        except CheckpointError as error:
            raise RunDirectoryError(f"{error}; delete {self.directory} to start again") from None
        anew = before is not None and saved.epoch >= before
        if saved.weights != best.digest and not anew:
            raise RunDirectoryError(
                f"{path} is not the network of epoch {best.epoch}, the best one; delete {self.directory} to start again"
            )
        return saved

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
        judges = {
            "validation_accuracy": Pristine(batch_size=500),
            "validation_pgd_accuracy": build.validator(self.recipe),
        }
        judged = (self.images.test if self.recipe.validation.on == "test" else self.images.validation).first(
            self.recipe.validation.limit
        )
        an_image = sum(judge.passes(len(self.images.classes)) for judge in judges.values())
        passes = an_image * len(judged) * training.epochs
        subjects: list[Subject] = []
        with self.team.together():  # it may compile, and the others must not be in step with it then
            for weights in course.weights() if self.team.first else []:
                with measured(weights.network):
                    subjects.append(subject_of(self.recipe, weights.network, judged.first(500), passes, self.watch.say))
        started = saved_at = time.perf_counter()

        def seconds() -> float:
            return course.seconds + time.perf_counter() - started

        def save() -> None:
            nonlocal saved_at
            self.team.raise_if_apart(resuming.living(training), f"by epoch {course.at.epoch}")
            with self.team.together():
                if self.team.first:
                    self._state(training, course, seconds()).save(self.directory / STATE)
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
            write_atomically(self.directory / METRICS, course.metrics())
        self.watch.begin(self.recipe.title or "training", training.epochs * training.batches, "batches")
        self.watch.advance((course.at.epoch - 1) * training.batches + course.at.done)
        with self.keeping.stop.heard_at_checks():
            try:
                for epoch in training.run(between, course.at):
                    self.team.raise_if_apart(resuming.living(training), f"by the end of epoch {epoch.number}")
                    found, back = epoch.to_json(), None
                    with self.team.together():
                        if self.team.first:
                            found |= self._judged(epoch, course, judges, subjects, judged)
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
                        self._save(weights, weights.selected_best, course)
            except StoppedError:
                save()
                raise
            with self.team.together():
                if self.team.first:
                    self._finish(course, seconds())

    def _state(self, training: Training, course: Course, seconds: float) -> State:
        return State(
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
        )

    def _judged(
        self,
        epoch: Epoch,
        course: Course,
        judges: Mapping[str, Evaluator],
        subjects: Sequence[Subject],
        judged: Images,
    ) -> dict[str, float]:
        """The accuracies of all weights after an epoch."""
        found: dict[str, float] = {}
        with self.keeping.stop.heard_at_once():
            try:
                for weights, subject in zip(course.weights(), subjects, strict=True):
                    found |= _validated(weights, judges, subject, judged)
            except EvaluationError as error:
                raise DivergedError(f"{error} (in the validation after epoch {epoch.number})") from error
        return found

    def _noted(self, found: dict[str, Any], training: Training, course: Course) -> Mapping[str, Tensor] | None:
        """Write the line of an epoch; the weights to go back to, if it collapsed."""
        fallen = self._collapse(found, course)
        course.lines.append(json.dumps(found))
        append_line(self.directory / METRICS, course.lines[-1])
        self.watch.epoch(epoch_line(found, training.epochs))
        # Before a state is saved: it would know nothing of it.
        return self._after_collapse(fallen, found, course) if fallen else None

    def _finish(self, course: Course, seconds: float) -> None:
        """Write the checkpoints of the last epoch."""
        for weights in course.weights():
            self._check_best(weights)
        averaged = course.averaged
        if averaged:
            averaged = Averaged(self._save(averaged, averaged.selected_last, course).weights, averaged.best)
        # Last of all: where these are, the training has ended.
        last = {
            "seconds": round(seconds, 3),
            "best": course.own.best,
            "averaged": averaged,
            "collapsed": collapse.epochs(course.lines),
        }
        self._save(course.own, course.own.selected_last, course, **last)

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
        best = self._check_best(course.own) if "rolled_back_to" in found else None
        if best is None:
            self.watch.say(f"warning: {fallen}: its gradients may be hidden (advmix eval --diagnose)")
            return None
        self.watch.say(f"warning: {fallen}: it goes on from the weights of epoch {found['rolled_back_to']}")
        return best.state

    def _save(self, weights: Weights, selection: str, course: Course, **more: Any) -> Checkpoint:
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


def _validated(weights: Weights, judges: Mapping[str, Evaluator], subject: Subject, judged: Images) -> dict[str, float]:
    """The accuracies of an epoch; none without images."""
    if not len(judged):
        return {}
    with measured(weights.network):
        return {f"{weights.prefix}{name}": share_correct(judge, subject, judged) for name, judge in judges.items()}
