"""A recipe, and perhaps a checkpoint -> what its inner maximizer does with one batch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from advmix_cli import build, machine
from advmix_cli.checkpoint import Checkpoint
from advmix_cli.data.images import Dataset
from advmix_cli.errors import CheckpointError, MemoryExhaustedError, UsageError
from advmix_cli.evaluation.predict import check_finite
from advmix_cli.measure.same_images import others
from advmix_cli.memory import is_out_of_memory
from advmix_cli.probing.climb import Climb, climb
from advmix_cli.probing.compare import Standing, first_batch, standings
from advmix_cli.probing.look import Look, look
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report.progress import Watcher


@dataclass(frozen=True)
class Probe:
    """`x` (B, C, H, W) and `y` (B, K) are the first batch of a training of `recipe`."""

    recipe: Recipe
    network: str
    """Which one, in words."""
    weights: str | None
    """The digest of a checkpoint's."""
    device: str
    classes: tuple[str, ...]
    x: Tensor
    y: Tensor
    climb: Climb
    look: Look
    standings: list[Standing]

    def to_json(self) -> dict[str, Any]:
        """All figures; the images are left to the pictures."""
        return {
            "title": self.recipe.title,
            "digest": self.recipe.digest(),
            "seed": self.recipe.seed,
            "network": self.network,
            "weights": self.weights,
            "device": self.device,
            "batch_size": len(self.x),
            "epsilon": self.recipe.threat.epsilon,
            "maximizer": self.recipe.maximizer.model_dump(mode="json"),
            **self.look.to_json(),
            "algorithms": [standing.to_json() for standing in self.standings],
        }


def probe(recipe: Recipe, saved: Checkpoint | None, batch: int | None, place: torch.device, watch: Watcher) -> Probe:
    """The first batch of a training of `recipe`, or of one with batches of `batch` images, through the network of
    `saved`, or through the one that the training would start with. Eagerly, whatever the recipe's engine.

    CheckpointError if the network is another one, or its weights are not finite; UsageError for more images than there
    are; EvaluationError if a loss is not finite; MemoryExhaustedError.
    """
    build.arithmetic(recipe)
    images = build.dataset(recipe, place, watch.say)
    if batch is not None:
        if batch > len(images.train):
            raise UsageError(f"--batch {batch}: there are only {len(images.train):,} training images")
        recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"batch_size": batch})})
    network = _network(recipe, saved, images, place, watch)
    try:
        with machine.deterministic(recipe.engine.deterministic):
            first = first_batch(recipe, images, network)
            found = climb(*first)
            return Probe(
                recipe=recipe,
                network=_described(saved, recipe),
                weights=saved.weights if saved else None,
                device=machine.device_name(place),
                classes=images.classes,
                x=first.x,
                y=first.y,
                climb=found,
                look=look(found, first.y, recipe.threat.epsilon),
                standings=standings(recipe, images, network),
            )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    size = min(recipe.schedule.batch_size, len(images.train))
    raise MemoryExhaustedError(f"out of memory on {place} with a batch of {size} images: take fewer with --batch")


def _network(
    recipe: Recipe, saved: Checkpoint | None, images: Dataset, place: torch.device, watch: Watcher
) -> nn.Module:
    if saved is None:
        return build.new_network(recipe, images, place)
    for what, trained, wanted in (
        ("model", _model(saved.recipe), _model(recipe)),
        ("image shape", str(saved.image_shape), str(images.image_shape)),
        ("classes", _names(saved.classes), _names(images.classes)),
    ):
        if trained != wanted:
            raise CheckpointError(
                f"the checkpoint does not fit the recipe; its {what}: {trained}; the recipe's: {wanted}"
            )
    check_finite(saved.state)
    now = images.fingerprints()
    if any(saved.images.get(part) != now[part] for part in now if part != "test"):  # which are not looked at here
        watch.say(
            f"note: the recipe's {others(saved.images, images)} are not those that the checkpoint was trained with"
        )
    return build.saved_network(saved, place)


def _model(recipe: Recipe) -> str:
    return ", ".join(f"{name} = {value}" for name, value in recipe.model.model_dump().items())


def _names(classes: tuple[str, ...]) -> str:
    return f"{len(classes)}, {', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}"


def _described(saved: Checkpoint | None, recipe: Recipe) -> str:
    if saved is None:
        return f"untrained, as seed {recipe.seed} makes it"
    return f"checkpoint, {saved.selection}, epoch {saved.epoch}"
