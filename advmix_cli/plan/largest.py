"""The largest batch that the memory of a device holds: tried on a GPU, estimated elsewhere."""

from dataclasses import dataclass

import torch

from advmix_cli import fitting, memory
from advmix_cli.data.images import Dataset
from advmix_cli.plan.estimate import Estimate
from advmix_cli.recipe.schema import Recipe


@dataclass(frozen=True)
class Largest:
    """`batch` of the `images` that are trained on; 0 if none fits."""

    batch: int
    images: int
    tried: bool
    """By an eager step; otherwise it follows from an estimate."""


def largest_batch(recipe: Recipe, estimate: Estimate, images: Dataset, place: torch.device) -> Largest | None:
    """On a GPU to a 32nd. The memory of a CPU is promised to more than one, and a try that takes too much ends the
    process: there it is estimated, from what is free now; None where the machine does not say that."""
    at_most = len(images.train)
    if place.type == "cuda":
        return Largest(fitting.largest_batch(recipe, images, place, at_most=at_most), at_most, tried=True)
    there = [one for one in (memory.free(), memory.left_to_the_process()) if one is not None]
    if not there:
        return None
    free = min(there)
    an_image = estimate.memory.activations // estimate.cost.batch_size
    return Largest(max(0, min(at_most, (free - estimate.memory.fixed) // an_image)), at_most, tried=False)
