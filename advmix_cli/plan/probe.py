"""How fast a training and its evaluators are on a device, measured on images of noise."""

import itertools
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from advmix_cli import build, engine, fitting, machine
from advmix_cli.attacked import worth_compiling
from advmix_cli.data.images import Dataset, Images
from advmix_cli.data.outline import Outline
from advmix_cli.errors import MemoryExhaustedError
from advmix_cli.evaluation.outcome import Evaluator
from advmix_cli.evaluation.predict import tf32_convolutions
from advmix_cli.evaluation.subject import Looking
from advmix_cli.memory import is_out_of_memory, release
from advmix_cli.plan.estimate import Estimate
from advmix_cli.plan.largest import Largest, largest_batch
from advmix_cli.plan.looks import seconds_a_pass
from advmix_cli.plan.timing import median_seconds
from advmix_cli.recipe.schema import Recipe
from advmix_cli.recipe.table import Row
from advmix_cli.report.progress import Watcher
from advmix_cli.training.accelerate import Formulation

SAME_FROM = 1e8
"""FLOPs of a forward pass from which on two methods with the same passes take the same time, to a few percent: next to
such a network what else they compute is nothing."""


@dataclass(frozen=True)
class Speed:
    """Of a training."""

    formulation: Formulation
    preparation_seconds: float
    """Went into compiling, capturing and rehearsing it, once."""
    images_per_second: float
    peak_bytes: int | None
    """Of a GPU's memory, the rehearsal included, or since the capture where there was one; None on a CPU."""
    largest: Largest | None


@dataclass(frozen=True)
class EvaluatorTime:
    """Of one evaluator on one set of weights: the network's passes over all images, though broken images get no more of
    them. What an attack computes beside is left out: next to all but the smallest networks it is little. Of an attack
    all passes are as fast as those in which it looks, also the few by which its images are judged."""

    name: str
    images: int
    passes: int
    """Of an image; those by which AutoAttack starts its attacks and judges come on top, some per cent."""
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """All that a network is judged by."""

    validation: EvaluatorTime
    """After each epoch."""
    evaluators: tuple[EvaluatorTime, ...]


@dataclass(frozen=True)
class Probe:
    """What was measured for a row; each part on `trained`, or `judged`, the first row to which it applies."""

    device: str
    trained: str
    speed: Speed
    judged: str
    evaluation: Evaluation


def probes(rows: Sequence[Row], estimates: Sequence[Estimate], place: torch.device, watch: Watcher) -> list[Probe]:
    """One for each row, on `place`; nothing is measured again for a row to which it makes no difference.

    MemoryExhaustedError if a batch of a training, or one image of an evaluation, does not fit.
    """
    trained: dict[object, tuple[str, Speed]] = {}
    judged: dict[object, tuple[str, Evaluation]] = {}
    found: list[Probe] = []
    device = machine.device_name(place)
    for row, estimate in zip(rows, estimates, strict=True):
        recipe, counted = row.recipe, estimate.cost
        build.arithmetic(recipe)
        evaluation = (recipe.data, recipe.model, recipe.engine, recipe.validation, recipe.evaluators, estimate.outline)
        method = None if counted.forward >= SAME_FROM else recipe.maximizer
        long = counted.training >= engine.WORTH_COMPILING  # what a CPU decides by
        training = (*evaluation, recipe.optimizer, recipe.averaging, counted.batch_size, counted.image, method, long)
        if training not in trained:
            watch.say(f"measuring the training of '{row.name}'")
            trained[training] = row.name, _speed(recipe, estimate, place, watch)
        # A GPU's validations look in TF32 where all of them together are long.
        judging = (*evaluation, recipe.schedule.epochs if place.type == "cuda" else None)
        if judging not in judged:
            watch.say(f"measuring the evaluation of '{row.name}'")
            judged[judging] = row.name, _evaluation(recipe, estimate.outline, place)
        found.append(Probe(device, *trained[training], *judged[judging]))
    return found


def stand_in(outline: Outline) -> Dataset:
    """Noise with as many images in each part as the dataset has."""
    noise = outline.noise(max(outline.train, outline.validation, outline.test))
    return noise._replace(
        train=noise.train.first(outline.train),
        validation=noise.test.first(outline.validation),
        test=noise.test.first(outline.test),
    )


def _speed(recipe: Recipe, estimate: Estimate, place: torch.device, watch: Watcher) -> Speed:
    images = stand_in(estimate.outline).to(place)
    try:
        with machine.deterministic(recipe.engine.deterministic):
            speed = _measured_speed(recipe, images, place, watch)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        speed = None
    release()
    if speed is None:
        raise MemoryExhaustedError(fitting.advice(recipe, images, place))
    if place.type == "cuda":
        watch.say("looking for the largest batch")
    return replace(speed, largest=largest_batch(recipe, estimate, images, place))


def _measured_speed(recipe: Recipe, images: Dataset, place: torch.device, watch: Watcher) -> Speed:
    on_gpu = place.type == "cuda"
    if on_gpu:
        # Before it is prepared: what a captured graph works on is taken once, and replaying it takes no more.
        torch.cuda.reset_peak_memory_stats(place)
    started = time.perf_counter()
    prepared = engine.prepare(recipe, images, build.new_network(recipe, images, place), place)
    preparation = time.perf_counter() - started
    watch.say(str(prepared))
    training = prepared.training
    order, indices = training.order(1), itertools.cycle(range(training.batches))

    def a_batch() -> object:
        training.set_rate(0.0)
        return training.train_on(order, epoch=1, index=next(indices))

    seconds = median_seconds(a_batch, place)
    peak = torch.cuda.max_memory_allocated(place) if on_gpu else None
    return Speed(prepared.formulation, preparation, training.batch_size / seconds, peak, largest=None)


def _evaluation(recipe: Recipe, outline: Outline, place: torch.device) -> Evaluation:
    images = stand_in(outline).to(place)
    network = build.new_network(recipe, images, place)
    of_a_pass: dict[tuple[int, Looking], float] = {}

    def looking(passes: int) -> Looking:
        long = place.type == "cuda" and worth_compiling(recipe, network, images.train, passes)
        return tf32_convolutions if long else nullcontext

    def timed(one: _Work, looking: Looking) -> EvaluatorTime:
        together = one.images.first(one.batch_size)
        if (key := (len(together), looking)) not in of_a_pass:
            of_a_pass[key] = seconds_a_pass(network, together, place, looking) if len(together) else 0.0
        return EvaluatorTime(one.name, len(one.images), one.passes, one.all_passes * of_a_pass[key])

    def work(name: str, wanted: Images, judge: Evaluator, more_passes: int = 0) -> _Work:
        return _Work(name, wanted, judge.batch_size, judge.passes(outline.classes) + more_passes)

    on = "test" if recipe.validation.on == "test" else "validation"
    # It also looks at the images as they are.
    validation = work("validation", images.part(on).first(recipe.validation.limit), build.validator(recipe), 1)
    evaluators = [
        work(chosen.name, images.part(chosen.split).first(chosen.limit), build.evaluator(chosen, recipe.threat))
        for chosen in recipe.evaluators
    ]
    together = looking(sum(one.all_passes for one in evaluators))
    return Evaluation(
        timed(validation, looking(validation.all_passes * recipe.schedule.epochs)),
        # Images as they are, which take one pass, are only judged.
        tuple(timed(one, together if one.passes > 1 else nullcontext) for one in evaluators),
    )


class _Work(NamedTuple):
    """An evaluator's, `passes` of each of `images`."""

    name: str
    images: Images
    batch_size: int
    passes: int

    @property
    def all_passes(self) -> int:
        return self.passes * len(self.images)
