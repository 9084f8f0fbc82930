"""A network and an evaluator -> an outcome."""

import time
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from advmix_cli import build
from advmix_cli.checkpoint import Checkpoint
from advmix_cli.data.images import Dataset, Images
from advmix_cli.errors import CheckpointError, UsageError
from advmix_cli.evaluation.outcome import Evaluator, Outcome
from advmix_cli.evaluation.predict import measured
from advmix_cli.recipe import schema
from advmix_cli.recipe.load import Document, parse_setting
from advmix_cli.recipe.positions import Position
from advmix_cli.recipe.schema import Recipe
from advmix_cli.recipe.suggest import did_you_mean
from advmix_cli.report.progress import Watcher


def share_correct(judge: Evaluator, network: nn.Module, images: Images) -> float:
    """The accuracy of `network`, a fraction."""
    return float(judge(network, images, lambda _done, _note: None).double().mean())


def evaluate(
    chosen: schema.Evaluator, threat: schema.Threat, network: nn.Module, images: Dataset, watch: Watcher
) -> Outcome:
    """Measure `network` with one evaluator."""
    wanted = images.part(chosen.split).first(chosen.limit)
    evaluator = build.evaluator(chosen, threat)
    watch.begin(f"measuring {chosen.name}", len(wanted))
    started = time.perf_counter()
    with measured(network):
        correct = int(evaluator(network, wanted, watch.advance).sum())
    settings = {"split": chosen.split, **evaluator.settings(len(images.classes))}
    return Outcome(chosen.name, len(wanted), correct, time.perf_counter() - started, settings)


def recipe_to_measure(
    saved: Checkpoint, place: str, settings: Sequence[str], names: Sequence[str], limit: int | None
) -> Recipe:
    """The recipe of a checkpoint with other evaluators (edited by `settings`, then only those in `names`, then on the
    first `limit` images) or another place of its data. UsageError for everything else: it is what was trained."""
    edits = [parse_setting(text) for text in settings]
    for edit in edits:
        if edit.path[0] != "evaluators" and edit.path != ("data", "root"):
            raise UsageError(f"{edit.where}: a checkpoint is what it is; only evaluators and data.root can be set here")
    recipe = Document(saved.recipe.resolved(), {(): Position(place)}).edited(edits).recipe()
    known = [evaluator.name for evaluator in recipe.evaluators]
    for name in names:
        if name not in known:
            raise UsageError(
                f"--evaluator '{name}' is none of the recipe's{did_you_mean(name, known)} (it has {', '.join(known)}; "
                '--set \'evaluators=[{kind="pgd", steps=20, step_size="2/255"}]\' measures something else)'
            )
    wanted = [one for one in recipe.evaluators if not names or one.name in names]
    if not wanted:
        raise UsageError(
            f"{place}: its recipe has no evaluators; give some with --set 'evaluators=[{{kind=\"pristine\"}}]'"
        )
    limits = {} if limit is None else {"limit": limit}
    return recipe.model_copy(update={"evaluators": tuple(one.model_copy(update=limits) for one in wanted)})


def evaluate_checkpoint(saved: Checkpoint, recipe: Recipe, place: torch.device, watch: Watcher) -> Iterator[Outcome]:
    """Measure a checkpoint with the evaluators and the data of `recipe`, one after the other.

    CheckpointError if the data are of another shape or of other classes than those that the network was trained on.
    """
    build.arithmetic(recipe)
    images = build.dataset(recipe, place, watch.say)
    for what, trained, there in (
        ("images of shape", saved.image_shape, images.image_shape),
        ("classes", saved.classes, images.classes),
    ):
        if trained != there:
            raise CheckpointError(f"the checkpoint was trained on {what} {trained}, the data has {there}")
    network = build.saved_network(saved, place)
    for chosen in recipe.evaluators:
        yield evaluate(chosen, recipe.threat, network, images, watch)
