"""A network and an evaluator -> an outcome."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence

from torch import nn

from advmix_cli import build, machine
from advmix_cli.attacked import subject_of
from advmix_cli.checkpoint import Checkpoint
from advmix_cli.data.images import Dataset, Images
from advmix_cli.evaluation.halves import as_it_fits
from advmix_cli.evaluation.notebook import Blank, Notebook
from advmix_cli.evaluation.outcome import Evaluated, Evaluator, Tick
from advmix_cli.evaluation.predict import measured
from advmix_cli.evaluation.pristine import Pristine
from advmix_cli.evaluation.subject import Subject
from advmix_cli.evaluation.verdicts import Verdicts
from advmix_cli.recipe import schema
from advmix_cli.recipe.measurement import Measuring
from advmix_cli.recipe.schema import Recipe
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
        looked_at = "eager" if isinstance(evaluator, Pristine) else subject.engine
        here = {**machine.described(own.pixels.device), "engine": looked_at}
        yield Evaluated.of(chosen.name, verdicts, own.labels, seconds, settings, here)


def evaluate_checkpoint(
    saved: Checkpoint, recipe: Recipe, images: Dataset, watch: Watcher,
    notes: Callable[[schema.Evaluator], Notebook] = lambda _: Blank(),
) -> Iterator[Evaluated]:  # fmt: skip
    """Measure a checkpoint on `images`, where they are, with the evaluators of `recipe`, one after the other."""
    network = build.saved_network(saved, images.train.pixels.device)
    yield from evaluate(recipe.evaluators, recipe, network, images, watch, notes)


def _verdicts(evaluator: Evaluator, subject: Subject, images: Images, tick: Tick, notes: Notebook) -> Verdicts:
    """Where the memory does not hold a batch, the evaluator starts again on smaller parts of it: its noise, and
    upstream's, are those of the batch that was asked for."""

    def halved(size: int) -> None:
        log.warning(
            "out of memory: the evaluation starts again with %d images at a time; its verdicts stay the same", size
        )

    size = min(evaluator.batch_size, len(images))
    return as_it_fits(subject, size, lambda fitting: evaluator(fitting, images, tick, notes), halved)
