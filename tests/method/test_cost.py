"""Floating-point operations: an inner step is a forward and an input gradient, and never a weight gradient."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from advmix_cli.method.divergence import kl
from advmix_cli.method.draws import Sampler
from advmix_cli.method.maximizers import (
    Attack,
    AttackThenMix,
    Integrated,
    Labels,
    LearnedRatio,
    MixThenAttack,
    Pgd,
)
from advmix_cli.networks.normalize import Normalize
from advmix_cli.networks.preact_resnet import preact_resnet

STEPS = 3
PGD = Pgd(epsilon=0.1, step_size=0.05, steps=STEPS, clamp=True, divergence=kl)
LEARNED = LearnedRatio(0.65, 0.4, 1e-6)
MAXIMIZERS = {
    "attack": Attack(PGD),
    "mix-then-attack": MixThenAttack(PGD),
    "attack-then-mix": AttackThenMix(PGD),
    **{
        f"integrated, {delta}, {'learned' if learned else 'frozen'}, {kind}": Integrated(
            PGD, delta, learned, Labels(kind)
        )
        for delta in ("shared", "independent")
        for learned in (None, LEARNED)
        for kind in ("linear", "geometric-clean", "geometric-perturbed")
    },
}
SHAPE = torch.Size((2, 3, 8, 8))


def network():
    return preact_resnet(Normalize([0.5] * 3, [0.2] * 3), depth=10, width=4, channels=3, classes=5)


def operations(work):
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def backward(inputs_only):
    """A forward and a backward pass: for the images alone, or for them and all weights."""
    trained, x = network(), torch.rand(SHAPE, requires_grad=True)

    def work():
        loss = trained(x + 0).logsumexp(1).sum()  # the counter's hooks cannot stand a leaf as a module's input
        if inputs_only:
            torch.autograd.grad(loss, [x])
        else:
            loss.backward()

    return operations(work)


def test_an_input_gradient_costs_what_a_forward_costs_and_weights_cost_half_as_much_again():
    trained, x = network(), torch.rand(SHAPE)
    forward = operations(lambda: trained(x))
    assert backward(inputs_only=True) == 2 * forward
    assert backward(inputs_only=False) == 3 * forward


@pytest.mark.parametrize("maximizer", MAXIMIZERS.values(), ids=MAXIMIZERS.keys())
def test_an_inner_step_takes_no_weight_gradients(maximizer):
    copies = 2 if isinstance(maximizer, Integrated) and maximizer.delta == "independent" else 1
    draws = Sampler(copies=copies, alpha=0.5, kappa=0.65)(SHAPE, torch.Generator(), torch.Generator())
    trained, x, y = network(), torch.rand(SHAPE), torch.eye(5)[:2]
    assert all(parameter.requires_grad for parameter in trained.parameters())
    spent = operations(lambda: maximizer(trained, x, y, draws))
    assert spent == STEPS * backward(inputs_only=True)
