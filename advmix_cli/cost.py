"""What a recipe costs, counted without running it: parameters, floating-point operations, memory."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from advmix_cli.method.maximizers import Asked
from advmix_cli.method.mixing import Mixture
from advmix_cli.recipe import schema
from advmix_cli.recipe.schema import Recipe
from advmix_cli.training.accelerate import logits_of
from advmix_cli.training.answer import answer


@dataclass(frozen=True)
class Cost:
    """FLOPs count a multiplication and an addition as two, in convolutions and matrix products alone.

    `forward` is one pass of one image; `attack_forward` and `update_forward` are one of the attack and of the update,
    larger where the network mixes within. An inner step of the attack is two passes, TRADES' prediction one, each loss
    of the update three; `batches` of `batch_size` images make an epoch.
    """

    parameters: int
    forward: int
    attack_forward: int
    update_forward: int
    inner_steps: int
    attack_passes: int
    update_passes: int
    batches: int
    batch_size: int
    epochs: int

    @property
    def attack(self) -> int:
        """FLOPs of an epoch's attacks."""
        return self.attack_passes * self.attack_forward * self.batches * self.batch_size

    @property
    def update(self) -> int:
        """FLOPs of an epoch's updates."""
        return self.update_passes * self.update_forward * self.batches * self.batch_size

    @property
    def image(self) -> int:
        """FLOPs of one image in one epoch."""
        return self.attack_passes * self.attack_forward + self.update_passes * self.update_forward

    @property
    def training(self) -> int:
        """FLOPs of the whole training."""
        return (self.attack + self.update) * self.epochs


def cost(recipe: Recipe, network: nn.Module, image_shape: tuple[int, int, int], train_images: int) -> Cost:
    """The cost of training `network` by `recipe` on so many images."""
    chosen = recipe.maximizer
    batch_size = min(recipe.schedule.batch_size, train_images)
    forward = forward_flops(network, image_shape)
    mixing = forward_flops(network, image_shape, stages) if (stages := stages_before_mixing(recipe)) else forward
    return Cost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        forward=forward,
        attack_forward=mixing if isinstance(chosen, schema.IntegratedMaximizer) else forward,
        update_forward=mixing,
        inner_steps=0 if isinstance(chosen, schema.NoMaximizer) else chosen.ascent.steps,
        attack_passes=recipe.attack_passes,
        update_passes=3 * recipe.update_losses,
        batches=train_images // batch_size,
        batch_size=batch_size,
        epochs=recipe.schedule.epochs,
    )


def stages_before_mixing(recipe: Recipe) -> int:
    """How many stages of the network come before the mixture of the update's images; 0 where it is one of images."""
    chosen = recipe.maximizer
    match chosen:
        case schema.AttackThenMixMaximizer() | schema.IntegratedMaximizer():
            return chosen.mix_after
        case schema.NoMaximizer() | schema.AttackMaximizer() | schema.MixThenAttackMaximizer():
            return 0
        case _:
            assert_never(chosen)


def _asked(x: Tensor, stages: int) -> Asked:
    """Images, or as many pairs of them that the network mixes after so many stages."""
    return Mixture(x, x, torch.ones(1, device=x.device), stages) if stages else x


def forward_flops(network: nn.Module, image_shape: tuple[int, int, int], stages: int = 0) -> int:
    """Of one image, or of one pair that is mixed after so many stages, counted by torch on tensors without data."""
    copy = deepcopy(network).eval().to("meta")
    asked = _asked(torch.empty(1, *image_shape, device="meta"), stages)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        answer(copy, asked)
    return counter.get_total_flops()


def activation_bytes(
    network: nn.Module, image_shape: tuple[int, int, int], precision: Literal["fp32", "bf16"], stages: int = 0
) -> int:
    """What one image's forward pass in train mode keeps for its backward pass, eagerly: the memory behind every kept
    tensor once, the weights left out. With `stages` it is a pair that the network mixes after so many. `network` has
    fake tensors, which have sizes and no memory: it is made, and this is called, within `FakeTensorMode`."""
    logits = logits_of(network.train(), precision=precision, channels_last=False)
    weights = {value.untyped_storage()._cdata for value in [*network.parameters(), *network.buffers()]}

    def bytes_for(images: int) -> int:
        kept: dict[int, Tensor] = {}

        def keep(value: Tensor) -> Tensor:
            kept[value.untyped_storage()._cdata] = value
            return value

        x = torch.rand(images, *image_shape, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            logits(_asked(x, stages))
        return sum(value.untyped_storage().nbytes() for at, value in kept.items() if at not in weights)

    # The difference of two sizes leaves out what does not grow with the batch, such as casts of the weights.
    return (bytes_for(4) - bytes_for(2)) // 2
