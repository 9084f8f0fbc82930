"""A network is measured on the images that it was trained for, or not at all."""

from collections.abc import Callable, Mapping

import torch

from advmix_cli import build
from advmix_cli.checkpoint import Checkpoint
from advmix_cli.data.images import Dataset
from advmix_cli.errors import CheckpointError
from advmix_cli.recipe.schema import Recipe


def check_images(saved: Checkpoint, images: Dataset) -> None:
    """CheckpointError unless `images` are those that the checkpoint was trained with, or begin with its test images."""
    theirs = images._replace(test=images.test.first(saved.recipe.data.test_limit))
    if theirs.fingerprints() != saved.images:
        raise CheckpointError(f"the {others(saved.images, theirs)} have changed since the checkpoint was trained")


def others(known: Mapping[str, str], images: Dataset) -> str:
    """Which parts of a dataset are not those that are `known`: "train, validation and test images"."""
    *first, last = [part for part, now in images.fingerprints().items() if now != known.get(part)]
    return f"{' and '.join([*([', '.join(first)] if first else []), last])} images"


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
