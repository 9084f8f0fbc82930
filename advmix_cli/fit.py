"""One recipe -> trained weights in a run directory, whatever stops it in between.

metrics.jsonl       a line an epoch
model.safetensors   the last epoch
best.safetensors    the best epoch on the validation images
state/              where an unfinished training goes on
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advmix_cli import build, checkpoint, engine, fitting, state
from advmix_cli.attacked import subject_of
from advmix_cli.checkpoint import BEST, LAST, Checkpoint
from advmix_cli.data.images import Dataset, Images
from advmix_cli.engine import Prepared
from advmix_cli.errors import MemoryExhaustedError, RunDirectoryError, StoppedError
from advmix_cli.evaluation.outcome import Evaluator
from advmix_cli.evaluation.predict import measured
from advmix_cli.evaluation.pristine import Pristine
from advmix_cli.evaluation.subject import Subject
from advmix_cli.files import write_atomically
from advmix_cli.measure import share_correct
from advmix_cli.memory import is_out_of_memory, release
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report.progress import Watcher
from advmix_cli.state import State
from advmix_cli.stopping import Stop
from advmix_cli.training import resuming
from advmix_cli.training.loop import Progress, Training

METRICS = "metrics.jsonl"
STATE = "state"


@dataclass(frozen=True)
class Keeping:
    """When the state of a training is saved: `every` so many seconds, and at a `stop`."""

    every: float = 300.0
    stop: Stop = field(default_factory=Stop)


def fit(
    recipe: Recipe, images: Dataset, fingerprint: str, place: torch.device, directory: Path, watch: Watcher,
    keeping: Keeping, done: Callable[[str, float], None],
) -> None:  # fmt: skip
    """Train to the end, from the newest state in `directory` if there is one. `done` is told the engine and the seconds
    in all, before the last weights are written: where they are, it has been told. StoppedError after the state has been
    saved; MemoryExhaustedError says which batch fits."""
    try:
        return _Fit(recipe, images, fingerprint, place, directory, watch, keeping, done).run()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # Here nothing refers to the network any more: the search has the memory that the training had.
    release()
    raise MemoryExhaustedError(fitting.advice(recipe, images, place))


@dataclass(frozen=True)
class _Fit:
    recipe: Recipe
    images: Dataset
    fingerprint: str
    place: torch.device
    directory: Path
    watch: Watcher
    keeping: Keeping
    done: Callable[[str, float], None]

    def run(self) -> None:
        known = state.newest(self.directory / STATE, self.watch.say)
        state.leave_only(known, self.directory / STATE)
        network = build.new_network(self.recipe, self.images, self.place)
        # Before it is restored, so that a resumed training is rehearsed on what a new one is rehearsed on.
        prepared = engine.prepare(self.recipe, self.images, network, self.place)
        self.watch.say(str(prepared))
        machine = self._machine(prepared)
        start, best, before = Progress(), -1.0, 0.0
        if known:
            start, best, before = self._restored(prepared.training, known, machine), known.best, known.seconds
        self._epochs(prepared, start, best, before, machine)

    def _machine(self, prepared: Prepared) -> dict[str, str]:
        """What the bits of a training depend on, beside its recipe."""
        return {
            **checkpoint.versions(),
            "device": build.device_name(self.place),
            "CPU capability": torch.backends.cpu.get_cpu_capability(),
            "engine": prepared.formulation,
        }

    def _restored(self, training: Training, known: State, machine: dict[str, str]) -> Progress:
        if (known.recipe, known.images) != (self.recipe.digest(), self.fingerprint):
            raise RunDirectoryError(f"{self.directory / STATE} belongs to another recipe or other images")
        differ = [name for name in machine if known.machine.get(name) != machine[name]]
        if differ:
            changes = "; ".join(f"{name} was {known.machine.get(name)}, is {machine[name]}" for name in differ)
            self.watch.say(f"warning: not bit for bit what an uninterrupted training would be: {changes}")
        if known.best >= 0 and not (self.directory / BEST).is_file():
            raise RunDirectoryError(f"{self.directory / BEST} is gone; delete {self.directory} to start again")
        start = resuming.restore(training, known.tensors, known.epoch, known.done, known.names)
        self.watch.say(f"resumed at epoch {start.epoch}, after {start.done} of its {training.batches} batches")
        return start

    def _epochs(self, prepared: Prepared, start: Progress, best: float, before: float, machine: dict[str, str]) -> None:
        """Write metrics.jsonl and the checkpoints of the best and of the last epoch. From the first batch to the last
        checkpoint a signal waits until nothing is lost by it."""
        training = prepared.training
        network, on_test = training.network, self.recipe.validation.on == "test"
        judges = {
            "validation_accuracy": Pristine(batch_size=500),
            "validation_pgd_accuracy": build.validator(self.recipe),
        }
        judged = (self.images.test if on_test else self.images.validation).first(self.recipe.validation.limit)
        with measured(network):
            an_image = sum(judge.passes(len(self.images.classes)) for judge in judges.values())
            passes = an_image * len(judged) * training.epochs
            subject = subject_of(self.recipe, network, judged.first(500), passes, self.watch.say)
        started = saved_at = time.perf_counter()
        at = start

        def save() -> None:
            nonlocal saved_at
            State(
                recipe=self.recipe.digest(),
                images=self.fingerprint,
                epoch=at.epoch,
                done=at.done,
                names=at.names,
                best=best,
                seconds=before + time.perf_counter() - started,
                machine=machine,
                tensors=resuming.tensors(training, at),
            ).save(self.directory / STATE)
            saved_at = time.perf_counter()

        def between(progress: Progress) -> None:
            nonlocal at
            at = progress
            self.watch.advance(1)
            self.keeping.stop.check()
            if time.perf_counter() - saved_at >= self.keeping.every:
                save()

        write_atomically(self.directory / METRICS, _lines_before(self.directory / METRICS, start.epoch))
        self.watch.begin(self.recipe.title or "training", training.epochs * training.batches)
        self.watch.advance((start.epoch - 1) * training.batches + start.done)
        with self.keeping.stop.heard_at_checks(), (self.directory / METRICS).open("a", encoding="utf-8") as metrics:
            try:
                for epoch in training.run(between, start):
                    with self.keeping.stop.heard_at_once():
                        line = epoch.to_json() | _validated(network, judges, subject, judged)
                    metrics.write(json.dumps(line) + "\n")
                    metrics.flush()
                    os.fsync(metrics.fileno())
                    self.watch.epoch(_epoch_line(line, training.epochs))
                    if line.get("validation_pgd_accuracy", -1.0) > best:
                        best = line["validation_pgd_accuracy"]
                        self._save(network, BEST, "best on test" if on_test else "best on validation", line)
            except StoppedError:
                save()
                raise
            self.done(str(prepared), before + time.perf_counter() - started)
            line = json.loads((self.directory / METRICS).read_text(encoding="utf-8").splitlines()[-1])
            self._save(network, LAST, "last", line)

    def _save(self, network: nn.Module, name: str, selection: str, line: dict[str, Any]) -> None:
        Checkpoint(
            recipe=self.recipe,
            state=network.state_dict(),
            classes=self.images.classes,
            image_shape=self.images.image_shape,
            selection=selection,
            epoch=line["epoch"],
            metrics=line,
        ).save(self.directory / name)


def _validated(
    network: nn.Module, judges: Mapping[str, Evaluator], subject: Subject, judged: Images
) -> dict[str, float]:
    """The accuracies of an epoch; none without images."""
    if not len(judged):
        return {}
    with measured(network):
        return {name: share_correct(judge, subject, judged) for name, judge in judges.items()}


def _lines_before(path: Path, epoch: int) -> str:
    """The lines of the epochs before `epoch`, without one that was cut off. RunDirectoryError if one is missing."""
    if epoch == 1:
        return ""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)[: epoch - 1]
        whole = [json.loads(line)["epoch"] for line in lines] == list(range(1, epoch))
    except (OSError, ValueError, KeyError, TypeError):
        whole, lines = False, []
    if not whole:
        raise RunDirectoryError(f"{path} lacks an epoch that has been trained; delete {path.parent} to start again")
    return "".join(lines)


def _epoch_line(line: dict[str, Any], epochs: int) -> str:
    parts = [f"loss {line['loss']:.4f}"]
    if "inner_loss_before" in line:
        parts.append(f"inner {line['inner_loss_before']:.4f} -> {line['inner_loss_after']:.4f}")
    parts.append(f"λ {line['ratio']:.3f}")
    if "validation_accuracy" in line:
        pristine, robust = (100 * line[name] for name in ("validation_accuracy", "validation_pgd_accuracy"))
        parts.append(f"validation {pristine:.1f} %, under PGD {robust:.1f} %")
    parts += [f"lr {line['lr']:.3g}", f"{line['images_per_second']:,.0f} images/s"]
    return f"epoch {line['epoch']}/{epochs}: {' · '.join(parts)}"
