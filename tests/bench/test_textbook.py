"""The loops of the field do the work that they stand for: no more, no less."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from advmix_cli.bench.textbook import Textbook, loader
from advmix_cli.data.images import Images
from advmix_cli.networks.normalize import Normalize
from advmix_cli.networks.preact_resnet import preact_resnet

STEPS, SIZE = 3, 4


def textbook(**options):
    torch.manual_seed(0)
    network = preact_resnet(Normalize([0.5], [0.2]), depth=10, width=4, channels=1, classes=3)
    batch = torch.rand(SIZE, 1, 8, 8), torch.tensor([0, 1, 2, 1])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return Textbook(network, optimizer, itertools.repeat(batch), torch.device("cpu"), 0.1, 0.05, STEPS, **options)


@pytest.mark.parametrize(
    ("options", "forwards"),
    [
        ({}, 3 * STEPS + 5),
        ({"mixup": True}, 4 * STEPS + 5),
        ({"delta_only": True}, 2 * STEPS + 3),
        ({"delta_only": True, "pristine_weight": 0.5}, 2 * STEPS + 6),
        ({"bf16": True, "channels_last": True}, 3 * STEPS + 5),
    ],
)
def test_a_batch_costs_so_many_forwards_less_one_input_gradient_of_the_first_layer(options, forwards):
    arm = textbook(**options)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        arm.network(torch.rand(SIZE, 1, 8, 8))
    forward, first_layer = counter.get_total_flops(), 2 * SIZE * 8 * 8 * 4 * 9
    with FlopCounterMode(display=False) as counter:
        arm()
    losses = 2 if "pristine_weight" in options else 1
    assert counter.get_total_flops() == forwards * forward - losses * first_layer


@pytest.mark.parametrize("options", [{}, {"mixup": True}, {"delta_only": True}])
def test_a_batch_attacks_within_the_ball_and_updates_the_weights(options):
    arm = textbook(**options)
    x, _ = next(arm.batches)
    seen = []
    arm.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    before = arm.network.linear.weight.detach().clone()
    arm()
    assert not torch.equal(arm.network.linear.weight, before)
    assert all((image - x).abs().max() <= 0.1 + 1e-6 for image in seen)
    attacked = seen[-1] if options.get("delta_only") else seen[-2]
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert ((attacked - x).abs() > 0.04).float().mean() > 0.3


def test_the_steps_climb():
    losses = []
    for steps in (0, STEPS):
        arm = replace(textbook(delta_only=True), steps=steps)
        found = []
        arm.network.register_forward_hook(lambda _, __, logits, found=found: found.append(logits))
        arm()
        losses.append(torch.nn.functional.cross_entropy(found[-1], torch.tensor([0, 1, 2, 1])).item())
    assert losses[1] > losses[0]


def test_the_loader_gives_the_images_cropped_and_in_floats():
    pixels = torch.arange(6, dtype=torch.uint8).mul(40).reshape(6, 1, 1, 1).expand(6, 1, 8, 8).contiguous()
    batches = loader(Images(pixels, torch.arange(6)), 4, flip=True, translate=0)
    x, y = next(iter(batches))
    assert x.shape == (4, 1, 8, 8)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x[:, 0, 0, 0], y * 40 / 255)
    assert batches.num_workers == 2
