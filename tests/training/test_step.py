"""One training step: which loss, whose gradient, whose update, and how many passes."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from advmix_cli.method.divergence import kl
from advmix_cli.method.draws import Sampler
from advmix_cli.method.maximizers import (
    Attack,
    AttackThenMix,
    Integrated,
    Labels,
    LearnedRatio,
    Maximized,
    MixThenAttack,
    Pgd,
    Pristine,
)
from advmix_cli.networks.normalize import Normalize
from advmix_cli.networks.preact_resnet import preact_resnet
from advmix_cli.training.step import Step

SHAPE, STEPS = torch.Size((4, 1, 8, 8)), 3
PGD = Pgd(epsilon=0.1, step_size=0.05, steps=STEPS, clamp=True, divergence=kl)
MAXIMIZERS = {
    "pristine": Pristine(),
    "attack": Attack(PGD),
    "mix-then-attack": MixThenAttack(PGD),
    "attack-then-mix": AttackThenMix(PGD),
    "integrated": Integrated(PGD, "independent", LearnedRatio(0.65, 0.4, 1e-6), Labels()),
}


def linear():
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(flat=nn.Flatten(), linear=nn.Linear(64, 3))).double()


def batch(maximizer, dtype=torch.float32):
    torch.manual_seed(1)
    copies = 2 if isinstance(maximizer, Integrated) else 1
    draws = Sampler(copies=copies, alpha=0.5, kappa=0.65)(SHAPE, torch.Generator(), torch.Generator())
    return torch.rand(SHAPE, dtype=dtype), torch.eye(3, dtype=dtype)[[0, 1, 2, 1]], draws


def step(network, maximizer, *, pristine_weight=0.0, batch_norm="batch", optimizer=None):
    made = optimizer or torch.optim.SGD(network.parameters(), lr=0.5)
    return Step(network, network, maximizer, kl, made, batch_norm, pristine_weight)


def found_elsewhere():
    """A maximizer that asks nothing: two unrelated batches and two numbers of an objective."""
    torch.manual_seed(2)
    x, x_pristine = torch.rand(2, *SHAPE, dtype=torch.float64)
    y, y_pristine = torch.rand(2, 4, 3, dtype=torch.float64).softmax(2)
    path = [torch.arange(4.0), torch.arange(4.0) + 1, torch.arange(4.0) + 7]
    found = Maximized(x, y, x_pristine, y_pristine, torch.tensor([0.6, 0.7, 0.8, 0.9]), path)
    return found, lambda *_: found


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.25, 1.0])
def test_the_update_is_that_of_the_weighted_mean_of_both_losses(weight):
    found, maximizer = found_elsewhere()
    network = linear()
    twin = copy.deepcopy(network)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)
    figures = step(network, maximizer, pristine_weight=weight)(*batch(None, torch.float64))
    adversarial = kl(twin(found.x), found.y).sum() / 4
    pristine = kl(twin(found.x_pristine), found.y_pristine).sum() / 4
    loss = (adversarial + pristine) / 2 if weight == 0.5 else (1 - weight) * adversarial + weight * pristine
    gradients = torch.autograd.grad(loss, list(twin.parameters()))
    torch.testing.assert_close(figures["loss"], loss.detach())
    for new, old, gradient in zip(network.parameters(), twin.parameters(), gradients, strict=True):
        torch.testing.assert_close(new.grad, gradient)
        torch.testing.assert_close(new.detach(), old.detach() - 0.5 * gradient)
    if weight:
        torch.testing.assert_close(figures["adversarial_loss"], adversarial.detach())
        torch.testing.assert_close(figures["pristine_loss"], pristine.detach())


def test_the_update_is_the_optimizers():
    found, maximizer = found_elsewhere()
    network = linear()
    twin = copy.deepcopy(network)
    settings = {"lr": 0.03, "weight_decay": 0.1}
    taken = step(network, maximizer, optimizer=torch.optim.Adam(network.parameters(), **settings))
    by_hand = torch.optim.Adam(twin.parameters(), **settings)
    for _ in range(3):
        taken(*batch(None, torch.float64))
        by_hand.zero_grad()
        kl(twin(found.x), found.y).mean().backward()
        by_hand.step()
    for new, expected in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(new, expected)


def test_the_figures_are_the_means_of_what_was_found():
    _, maximizer = found_elsewhere()
    figures = step(linear(), maximizer)(*batch(None, torch.float64))
    assert figures["inner_loss_before"] == 1.5
    assert figures["inner_loss_after"] == 8.5
    assert figures["ratio"].item() == pytest.approx(0.75)
    assert not any(figure.requires_grad or figure.dim() for figure in figures.values())


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("name", MAXIMIZERS)
def test_the_figures_are_what_the_method_computes_and_the_loss_is_first(name, weight):
    maximizer = MAXIMIZERS[name]
    figures = step(linear(), maximizer, pristine_weight=weight)(*batch(maximizer, torch.float64))
    expected = {"loss", "ratio"}
    expected |= set() if name == "pristine" else {"inner_loss_before", "inner_loss_after"}
    expected |= {"adversarial_loss", "pristine_loss"} if weight else set()
    assert set(figures) == expected
    assert next(iter(figures)) == "loss"


@pytest.mark.parametrize("name", MAXIMIZERS)
def test_the_figures_are_of_the_precision_of_the_images(name):
    figures = step(linear().float(), MAXIMIZERS[name])(*batch(MAXIMIZERS[name]))
    assert {figure.dtype for figure in figures.values()} == {torch.float32}


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize(("mode", "while_attacking"), [("train", STEPS), ("batch", 0), ("eval", 0)])
def test_running_statistics_move_once_a_forward_that_may_move_them(mode, while_attacking, weight):
    network = preact_resnet(Normalize([0.5], [0.2]), depth=10, width=1, channels=1, classes=3)
    step(network, Attack(PGD), pristine_weight=weight, batch_norm=mode)(*batch(None))
    assert network.bn.num_batches_tracked == while_attacking + 1 + (weight > 0)


def test_the_batch_norm_mode_decides_what_the_adversary_sees():
    seen = {}
    for mode in ("train", "batch", "eval"):
        torch.manual_seed(0)
        network = preact_resnet(Normalize([0.5], [0.2]), depth=10, width=1, channels=1, classes=3)
        seen[mode] = step(network, Attack(PGD), batch_norm=mode)(*batch(None))["inner_loss_before"]
    assert seen["train"] == seen["batch"]
    assert seen["train"] != seen["eval"]


@pytest.mark.parametrize("name", MAXIMIZERS)
def test_a_step_of_k_inner_steps_costs_2k_plus_3_forwards_less_one_input_gradient_of_the_first_layer(name):
    maximizer = MAXIMIZERS[name]
    network = preact_resnet(Normalize([0.5], [0.2]), depth=10, width=4, channels=1, classes=3)
    x, y, draws = batch(maximizer)
    with FlopCounterMode(display=False) as counter:
        network(x)
    forward, first_layer = counter.get_total_flops(), 2 * 4 * 8 * 8 * 4 * 9  # images, pixels, outputs, kernel
    with FlopCounterMode(display=False) as counter:
        step(network, maximizer)(x, y, draws)
    inner_steps = 0 if name == "pristine" else STEPS
    assert counter.get_total_flops() == (2 * inner_steps + 3) * forward - first_layer
