"""What is known of a training without running it: its FLOPs, and about how much memory it takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from advmix_cli import build
from advmix_cli.cost import Cost, activation_bytes, cost, stages_before_mixing
from advmix_cli.data.outline import Outline
from advmix_cli.networks.normalize import Normalize
from advmix_cli.recipe import schema
from advmix_cli.recipe.schema import Recipe


@dataclass(frozen=True)
class Memory:
    """Bytes on the device in training, an estimate: what an eager step keeps. The libraries' workspaces, what lives for
    one operation only, and what a CUDA context takes come on top."""

    weights: int
    gradients: int
    optimizer: int
    """The moments, each of the size of the weights."""
    average: int
    """Of the weights, where the recipe has one."""
    casts: int
    """Of the weights in bf16: the one that the adversary sees, and the one that each of the update's losses keeps."""
    images: int
    """All of the dataset, with its labels."""
    activations: int
    """What the passes of one batch keep for their backward passes."""

    @property
    def fixed(self) -> int:
        """All but the activations: what does not grow with the batch."""
        return self.weights + self.gradients + self.optimizer + self.average + self.casts + self.images

    @property
    def total(self) -> int:
        """All parts together."""
        return self.fixed + self.activations


@dataclass(frozen=True)
class Estimate:
    """Of one recipe."""

    outline: Outline
    cost: Cost
    memory: Memory


def estimates(recipes: Sequence[Recipe], say: Callable[[str], None]) -> list[Estimate]:
    """One for each recipe. What recipes share is looked at once; `say` is told of slow work.

    DataError where a folder is missing or a limit is larger than its dataset; no other data are looked at.
    """
    outlines: dict[object, Outline] = {}
    activations: dict[object, int] = {}
    found: list[Estimate] = []
    for recipe in recipes:
        same_images = (recipe.data, recipe.validation.held_out, recipe.evaluators)
        if same_images not in outlines:
            outlines[same_images] = build.outline(recipe, torch.device("cpu"), say)
        outline = outlines[same_images]
        stages, precision = stages_before_mixing(recipe), recipe.engine.precision
        same_passes = (recipe.model, outline.image_shape, outline.classes, precision, stages)
        if same_passes not in activations:
            with FakeTensorMode():
                network = _network(recipe, outline)
                activations[same_passes] = activation_bytes(network, outline.image_shape, precision, stages)
        with torch.device("meta"):
            counted = cost(recipe, _network(recipe, outline), outline.image_shape, outline.train)
        found.append(Estimate(outline, counted, _memory(recipe, outline, counted, activations[same_passes])))
    return found


def _network(recipe: Recipe, outline: Outline) -> nn.Module:
    channels = outline.image_shape[0]
    normalize = Normalize([0.5] * channels, [0.5] * channels)
    return build.network(recipe, normalize, channels=channels, classes=outline.classes)


def _memory(recipe: Recipe, outline: Outline, counted: Cost, an_image: int) -> Memory:
    weights = 4 * counted.parameters
    channels, height, width = outline.image_shape
    # The update's losses, one or two, each keep their forward pass until one backward pass goes through them all.
    kept_passes = recipe.update_losses
    return Memory(
        weights=weights,
        gradients=weights,
        optimizer=_moments(recipe.optimizer) * weights,
        average=0 if isinstance(recipe.averaging, schema.NoAveraging) else weights,
        casts=0 if recipe.engine.precision == "fp32" else (1 + kept_passes) * 2 * counted.parameters,
        images=(outline.train + outline.validation + outline.test) * (channels * height * width + 8),
        activations=kept_passes * counted.batch_size * an_image,
    )


def _moments(optimizer: schema.Optimizer) -> int:
    """How many numbers an optimizer keeps for each weight."""
    match optimizer:
        case schema.Sgd():
            return 1 if optimizer.momentum else 0
        case schema.Adam() | schema.AdamW() | schema.Yogi():
            return 2
        case _:
            assert_never(optimizer)
