"""What a recipe costs, counted without running it: parameters, floating-point operations, memory."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from advmix_cli.recipe import schema
from advmix_cli.recipe.schema import Recipe
from advmix_cli.training.accelerate import logits_of


@dataclass(frozen=True)
class Cost:
    """FLOPs count a multiplication and an addition as two, in convolutions and matrix products alone.

    `forward` is one pass of one image. An inner step of the attack is two passes, the update three, a pristine loss
    three more; `batches` of `batch_size` images make an epoch.
    """

    parameters: int
    forward: int
    inner_steps: int
    update_passes: int
    batches: int
    batch_size: int
    epochs: int

    @property
    def attack(self) -> int:
        """FLOPs of an epoch's attacks."""
        return 2 * self.inner_steps * self.forward * self.batches * self.batch_size

    @property
    def update(self) -> int:
        """FLOPs of an epoch's updates."""
        return self.update_passes * self.forward * self.batches * self.batch_size

    @property
    def image(self) -> int:
        """FLOPs of one image in one epoch."""
        return (2 * self.inner_steps + self.update_passes) * self.forward

    @property
    def training(self) -> int:
        """FLOPs of the whole training."""
        return (self.attack + self.update) * self.epochs


def cost(recipe: Recipe, network: nn.Module, image_shape: tuple[int, int, int], train_images: int) -> Cost:
    """The cost of training `network` by `recipe` on so many images."""
    chosen = recipe.maximizer
    inner_steps = 0 if isinstance(chosen, schema.NoMaximizer) else chosen.ascent.steps
    batch_size = min(recipe.schedule.batch_size, train_images)
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        forward=forward_flops(network, image_shape),
        inner_steps=inner_steps,
        update_passes=recipe.passes_per_image() - 2 * inner_steps,
        batches=train_images // batch_size,
        batch_size=batch_size,
        epochs=recipe.schedule.epochs,
    )


def forward_flops(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Of one image, counted by torch on tensors without data."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        deepcopy(network).eval().to("meta")(torch.empty(1, *image_shape, device="meta"))
    return counter.get_total_flops()


def activation_bytes(network: nn.Module, image_shape: tuple[int, int, int], precision: Literal["fp32", "bf16"]) -> int:
    """What one image's forward pass in train mode keeps for its backward pass, eagerly: the memory behind every kept
    tensor once, the weights left out. `network` has fake tensors, which have sizes and no memory: it is made, and this
    is called, within `FakeTensorMode`."""
    logits = logits_of(network.train(), precision=precision, channels_last=False)
    weights = {value.untyped_storage()._cdata for value in [*network.parameters(), *network.buffers()]}

    def bytes_for(images: int) -> int:
        kept: dict[int, Tensor] = {}

        def keep(value: Tensor) -> Tensor:
            kept[value.untyped_storage()._cdata] = value
            return value

        x = torch.rand(images, *image_shape, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            logits(x)
        return sum(value.untyped_storage().nbytes() for at, value in kept.items() if at not in weights)

    # The difference of two sizes leaves out what does not grow with the batch, such as casts of the weights.
    return (bytes_for(4) - bytes_for(2)) // 2
