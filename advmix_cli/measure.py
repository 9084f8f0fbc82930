"""A network and an evaluator -> an outcome."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from advmix_cli import build, machine, seals
from advmix_cli.attacked import subject_of
from advmix_cli.checkpoint import Checkpoint
from advmix_cli.data.images import Dataset, Images
from advmix_cli.errors import CheckpointError, MemoryExhaustedError, UsageError
from advmix_cli.evaluation.notebook import Blank, Notebook, Written, fail
from advmix_cli.evaluation.outcome import Evaluated, Evaluator, Tick
from advmix_cli.evaluation.predict import measured
from advmix_cli.evaluation.subject import Subject
from advmix_cli.evaluation.verdicts import Verdicts
from advmix_cli.memory import is_out_of_memory, release
from advmix_cli.recipe import schema
from advmix_cli.recipe.load import Document, parse_setting
from advmix_cli.recipe.measurement import Measuring
from advmix_cli.recipe.positions import Position
from advmix_cli.recipe.schema import Recipe
from advmix_cli.recipe.suggest import did_you_mean
from advmix_cli.report.progress import Watcher
from advmix_cli.training.accelerate import forget_compiled

log = logging.getLogger("advmix")


def share_correct(judge: Evaluator, subject: Subject, images: Images) -> float:
    """The accuracy of the network, a fraction."""
    return float(_verdicts(judge, subject, images, lambda _done, _note: None, Blank()).robust.double().mean())


def evaluate(
    evaluators: Sequence[schema.Evaluator],
    recipe: Measuring,
    network: nn.Module,
    images: Dataset,
    watch: Watcher,
    notes: Callable[[schema.Evaluator], Notebook] = lambda _: Blank(),
) -> Iterator[Evaluated]:
    """Measure `network` with one evaluator after the other, on the engine of `recipe`; `notes` has for each of them
    what it has found before."""
    if not evaluators:
        return
    wanted = [images.part(chosen.split).first(chosen.limit) for chosen in evaluators]
    made = [build.evaluator(chosen, recipe.threat) for chosen in evaluators]
    passes = [one.passes(len(images.classes)) * len(own) for one, own in zip(made, wanted, strict=True)]
    largest = passes.index(max(passes))
    forget_compiled()
    with measured(network):
        batch = wanted[largest].first(made[largest].batch_size)
        subject = subject_of(recipe, network, batch, sum(passes), watch.say)
    for chosen, evaluator, own in zip(evaluators, made, wanted, strict=True):
        watch.begin(f"measuring {chosen.name}", len(own), "images")
        notebook, started = notes(chosen), time.perf_counter()
        with measured(network):
            verdicts = _verdicts(evaluator, subject, own, watch.advance, notebook)
        seconds = time.perf_counter() - started + notebook.recalled
        settings = {"split": chosen.split, **evaluator.settings(len(images.classes))}
        here = machine.described(own.pixels.device)
        yield Evaluated.of(chosen.name, verdicts, own.labels, seconds, settings, here)


def _verdicts(evaluator: Evaluator, subject: Subject, images: Images, tick: Tick, notes: Notebook) -> Verdicts:
    """Where the memory does not hold a batch, it goes through the network in halves of halves, and the evaluator starts
    again: its noise, and upstream's, are those of the batch that was asked for."""
    size = min(evaluator.batch_size, len(images))
    fitting = subject
    while True:
        try:
            return evaluator(fitting, images, tick, notes)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if size == 1:
            raise MemoryExhaustedError("out of memory in evaluation, with one image at a time")
        size = (size + 1) // 2
        log.warning(
            "out of memory: the evaluation starts again with %d images at a time; its verdicts stay the same", size
        )
        release()
        fitting = subject.in_chunks(size)


def recipe_to_measure(
    saved: Checkpoint, place: str, settings: Sequence[str], names: Sequence[str], limit: int | None
) -> Recipe:
    """The recipe of a checkpoint with other evaluators (edited by `settings`, then only those in `names`, then on the
    first `limit` images), another place of its data or more test images. UsageError for everything else: it is what was
    trained."""
    recipe = edited_to_measure(saved, place, settings)
    return recipe.model_copy(update={"evaluators": wanted(recipe.evaluators, place, names, limit)})


def edited_to_measure(saved: Checkpoint, place: str, settings: Sequence[str]) -> Recipe:
    """That recipe with all of its evaluators, or none."""
    edits = [parse_setting(text) for text in settings]
    for edit in edits:
        if edit.path[0] != "evaluators" and edit.path not in (("data", "root"), ("data", "test_limit")):
            raise UsageError(
                f"{edit.where}: a checkpoint is what it is; only evaluators, data.root and data.test_limit can be set "
                "here"
            )
    recipe = Document(saved.recipe.resolved(), {(): Position(place)}).edited(edits).recipe()
    least, asked = saved.recipe.data.test_limit, recipe.data.test_limit
    if asked is not None and (least is None or asked < least):
        raise UsageError(
            f"data.test_limit = {asked}: its recipe has {least or 'all'} test images, and fewer are measured with "
            "--limit"
        )
    return recipe


def wanted(
    evaluators: Sequence[schema.Evaluator], place: str, names: Sequence[str], limit: int | None
) -> tuple[schema.Evaluator, ...]:
    """Those in `names`, or all of them, on the first `limit` images."""
    known = [evaluator.name for evaluator in evaluators]
    for name in names:
        if name not in known:
            raise UsageError(
                f"--evaluator '{name}' is none of the recipe's{did_you_mean(name, known)} "
                f"(it has {', '.join(known) or 'none'}; "
                '--set \'evaluators=[{kind="pgd", steps=20, step_size="2/255"}]\' measures something else)'
            )
    chosen = [one for one in evaluators if not names or one.name in names]
    if not chosen:
        raise UsageError(
            f"{place}: its recipe has no evaluators; give some with --set 'evaluators=[{{kind=\"pristine\"}}]'"
        )
    limits = {} if limit is None else {"limit": limit}
    return tuple(one.model_copy(update=limits) for one in chosen)


@dataclass(frozen=True)
class Known:
    """By what findings know a network without a checkpoint: its own digest, and that of each part of its images."""

    weights: str
    images: dict[str, str]


@dataclass
class Findings:
    """What the evaluators have found so far of one checkpoint, in a directory: one in it for each of them, which is
    that of the same weights, images, settings, machine and versions alone. `unwritable` is told where it cannot be
    kept; `images`: whether the images that attacks end with are kept, too."""

    directory: Path
    saved: Checkpoint | Known
    recipe: Measuring
    place: torch.device
    unwritable: Callable[[OSError], None] = fail
    images: bool = False
    _made: list[Written] = field(default_factory=list)

    def of(self, chosen: schema.Evaluator) -> Written:
        """Those of an evaluator, to be asked for on the threads that it will run on."""
        parts = (self.recipe.model, self.recipe.threat, self.recipe.engine, chosen)
        settings = [part.model_dump(mode="json") for part in parts]
        made_with = [machine.described(self.place), version("pyautoattack")]
        owner = json.dumps([self.saved.weights, self.saved.images, settings, made_with])
        path = self.directory / f"{chosen.name} {seals.digest(owner)[:16]}"
        self._made.append(Written(path, owner, self.place, self.unwritable, images=self.images))
        return self._made[-1]

    def discard(self) -> None:
        """All is found, and has been told."""
        for written in self._made:
            written.discard()


def check_images(saved: Checkpoint, images: Dataset) -> None:
    """CheckpointError unless `images` are those that the checkpoint was trained with, or begin with its test images."""
    theirs = images._replace(test=images.test.first(saved.recipe.data.test_limit))
    if theirs.fingerprints() != saved.images:
        raise CheckpointError(f"{changed(saved.images, theirs)} since the checkpoint was trained")


def changed(known: Mapping[str, str], images: Dataset) -> str:
    """Which parts of a dataset are not those that are `known`: the start of a sentence."""
    *others, last = [part for part, now in images.fingerprints().items() if now != known.get(part)]
    return f"the {' and '.join([*([', '.join(others)] if others else []), last])} images have changed"


def images_to_measure(saved: Checkpoint, recipe: Recipe, place: torch.device, say: Callable[[str], None]) -> Dataset:
    """The images of `recipe`, on `place`, for the network of `saved`; `say` is told of slow work.

    CheckpointError if they are not those that it was trained on.
    """
    build.arithmetic(recipe)
    images = build.dataset(recipe, place, say)
    for what, trained, there in (
        ("images of shape", saved.image_shape, images.image_shape),
        ("classes", saved.classes, images.classes),
    ):
        if trained != there:
            raise CheckpointError(f"the checkpoint was trained on {what} {trained}, the data has {there}")
    check_images(saved, images)
    return images


def evaluate_checkpoint(
    saved: Checkpoint, recipe: Recipe, images: Dataset, watch: Watcher,
    notes: Callable[[schema.Evaluator], Notebook] = lambda _: Blank(),
) -> Iterator[Evaluated]:  # fmt: skip
    """Measure a checkpoint on `images`, where they are, with the evaluators of `recipe`, one after the other."""
    network = build.saved_network(saved, images.train.pixels.device)
    yield from evaluate(recipe.evaluators, recipe, network, images, watch, notes)
