"""The loops of the field do the work that they stand for: no more, no less."""

import itertools
import tempfile
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from advmix_cli.bench.textbook import Textbook, check_sockets, loader
from advmix_cli.data.images import Images
from advmix_cli.errors import UsageError
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


def in_double(**options):
    """The loop without rounding that a sign could hang on, and the images in [0, 1], many of them at its ends."""
    arm = textbook(**options)
    x, y = next(arm.batches)
    batch = (2 * x - 0.5).clamp(0, 1).double(), y
    arm.network.double()
    return replace(arm, batches=itertools.repeat(batch)), *batch


@pytest.mark.parametrize("options", [{}, {"delta_only": True}, {"pristine_weight": 0.25}])
def test_it_is_pgd_from_a_random_start_and_a_step_on_what_it_found(options):
    """Written out: no gradient of one step is left in the next, and none of the attack in the update."""
    (arm, x, y), (same, _, _) = in_double(**options), in_double(**options)
    torch.manual_seed(1)
    arm()
    torch.manual_seed(1)
    network, weight = same.network, options.get("pristine_weight", 0.0)
    attacked = x + torch.empty_like(x).uniform_(-0.1, 0.1)
    for _ in range(STEPS):
        leaf = attacked.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(network(leaf), y), leaf)
        attacked = (x + (leaf.detach() - x + 0.05 * gradient.sign()).clamp(-0.1, 0.1)).clamp(0, 1)
    loss = (1 - weight) * F.cross_entropy(network(attacked.clamp(0, 1)), y)
    if weight:
        loss = loss + weight * F.cross_entropy(network(x), y)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    for found, start, gradient in zip(arm.network.parameters(), network.parameters(), gradients, strict=True):
        torch.testing.assert_close(found, start.detach() - 0.1 * gradient, rtol=0, atol=1e-9)


def test_mixup_weighs_a_batchs_labels_with_those_of_its_permutation(monkeypatch):
    drawn = torch.tensor(0.25)
    monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.arange(count).flip(0))
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda _: drawn)
    logits, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    expected = 0.25 * F.cross_entropy(logits, y) + 0.75 * F.cross_entropy(logits, y.flip(0))
    torch.testing.assert_close(textbook(mixup=True)._mixed(y)(logits), expected)


@pytest.mark.parametrize("bf16", [True, False])
def test_in_bf16_it_runs_under_autocast_to_it(bf16):
    with textbook(bf16=bf16)._precision():
        assert torch.is_autocast_enabled("cpu") == bf16
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_have_the_layout_that_is_asked_for(channels_last):
    network = nn.Sequential(nn.Flatten(), nn.Linear(2 * 8 * 8, 3))
    batch = torch.rand(SIZE, 2, 8, 8), torch.tensor([0, 1, 2, 1])
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].stride()))
    arm = textbook(channels_last=channels_last)
    replace(arm, network=network, batches=itertools.repeat(batch))()
    assert set(seen) == {(128, 1, 16, 2) if channels_last else (128, 64, 8, 1)}


@pytest.mark.parametrize(("flip", "translate"), [(True, 0), (False, 2), (True, 2), (False, 0)])
def test_the_loader_moves_images_as_the_recipe_does(flip, translate):
    images = Images(torch.zeros(6, 1, 8, 8, dtype=torch.uint8), torch.arange(6))
    moves = loader(images, 4, flip=flip, translate=translate).dataset._transform.transforms
    names = [type(move).__name__ for move in moves]
    crop, flipped = ["RandomCrop"] * bool(translate), ["RandomHorizontalFlip"] * flip
    assert names == ["ToPILImage", *crop, *flipped, "ToTensor"]
    if translate:
        assert (moves[1].padding, moves[1].size) == (2, (8, 8))


def test_sockets_have_room_in_a_path_of_75_bytes(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/" + "t" * 74)
    check_sockets()
    monkeypatch.setattr(tempfile, "tempdir", "/" + "t" * 75)
    with pytest.raises(UsageError):
        check_sockets()
