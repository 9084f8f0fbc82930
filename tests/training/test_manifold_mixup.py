"""Manifold Mixup beside its definition: blocks that are run by hand, mixed, and run on."""

import copy

import pytest
import torch
from torch.nn import functional as F

from advmix_cli.method.divergence import kl
from advmix_cli.method.draws import Sampler
from advmix_cli.method.maximizers import Attack, AttackThenMix, Integrated, Labels, LearnedRatio, Pgd
from advmix_cli.method.mixing import Mixture, interpolate, mix
from advmix_cli.method.ratio import from_gamma, to_gamma
from advmix_cli.networks.normalize import Normalize
from advmix_cli.networks.preact_resnet import preact_resnet
from advmix_cli.networks.wide_resnet import wide_resnet
from advmix_cli.training.accelerate import logits_of
from advmix_cli.training.answer import answer
from advmix_cli.training.step import Step

SHAPE, CLASSES = torch.Size((5, 1, 8, 8)), 3
NETWORKS = {
    "PreAct-ResNet-10": (preact_resnet, 10, [0, 1, 2, 3, 4]),
    "PreAct-ResNet-18": (preact_resnet, 18, [0, 2, 4, 6, 8]),
    "WRN-16": (wide_resnet, 16, [0, 2, 4, 6]),
}
PGD = Pgd(epsilon=0.1, step_size=0.04, steps=3, clamp=True, divergence=kl)
LEARNED = LearnedRatio(kappa=0.65, step_size=0.4, logit_clamp=1e-6)


def network(name="PreAct-ResNet-10"):
    make, depth, _ = NETWORKS[name]
    torch.manual_seed(0)
    return make(Normalize([0.5], [0.25]), depth=depth, width=2, channels=1, classes=CLASSES).double()


def batch(copies=1, ratio=None):
    torch.manual_seed(1)
    x, y = torch.rand(SHAPE, dtype=torch.float64), torch.eye(CLASSES, dtype=torch.float64)[[0, 1, 2, 1, 0]]
    draws = Sampler(copies=copies, alpha=0.5, kappa=0.65)(SHAPE, torch.Generator().manual_seed(3), torch.Generator())
    draws = draws._replace(noise=draws.noise.double())
    return x, y, draws if ratio is None else draws._replace(ratio=ratio)


def by_hand(trained, left, right, ratio, blocks):
    """x_i and x_j through the first convolution and so many blocks, the mixture of both through the others."""
    before, after = list(trained.blocks)[:blocks], list(trained.blocks)[blocks:]
    states = []
    for images in (left, right):
        state = F.conv2d((images - 0.5) / 0.25, trained.conv.weight, padding=1)
        for block in before:
            state = block(state)
        states.append(state)
    ratio = ratio[:, None, None, None]
    state = ratio * states[0] + (1 - ratio) * states[1]
    for block in after:
        state = block(state)
    return trained.linear(trained.bn(state).clamp(min=0).mean((2, 3)))


def asked(network_of_all):
    return lambda x: answer(network_of_all, x)


@pytest.mark.parametrize("training", [False, True], ids=["running", "batch"])
@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_mixed_after_a_stage_is_what_its_last_block_gives(name, stages, training):
    trained = network(name).train(training)
    x, _, draws = batch()
    other = x[draws.permutation]
    found = answer(trained, Mixture(x, other, draws.ratio, stages))
    blocks = NETWORKS[name][2][stages]
    torch.testing.assert_close(found, by_hand(trained, x, other, draws.ratio, blocks), rtol=1e-10, atol=1e-10)
    for wrong in (0, blocks + 1):
        assert not torch.allclose(found, by_hand(trained, x, other, draws.ratio, wrong), rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_its_head_and_its_tail(name):
    trained = network(name).eval()
    x, *_ = batch()
    assert trained.ends == NETWORKS[name][2]
    for stages in range(len(trained.ends)):
        assert torch.equal(trained.tail(trained.head(x, stages), stages), trained(x))


def test_before_any_stage_it_is_the_mixture_of_images_bit_for_bit():
    x, _, draws = batch()
    other = x[draws.permutation]
    mixed = mix(x, other, draws.ratio, 0)
    assert torch.equal(mixed, interpolate(x, other, draws.ratio))
    trained = network()
    assert torch.equal(answer(trained, mixed), trained(interpolate(x, other, draws.ratio)))


@pytest.mark.parametrize("training", [False, True], ids=["running", "batch"])
@pytest.mark.parametrize("stages", [0, 1, 2])
def test_at_ratio_one_nothing_is_mixed(stages, training):
    trained = network().train(training)
    x, _, draws = batch(ratio=torch.ones(1, dtype=torch.float64))
    found = answer(trained, mix(x, x[draws.permutation], draws.ratio, stages))
    assert torch.equal(found, trained(x))


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("kind", ["attack-then-mix", "integrated"])
def test_at_ratio_one_a_step_is_that_of_the_attack(kind, stages):
    x, y, draws = batch(ratio=torch.ones(1, dtype=torch.float64))
    made = (
        AttackThenMix(PGD, stages) if kind == "attack-then-mix" else Integrated(PGD, "shared", None, Labels(), stages)
    )
    one, other = network(), network()
    figures = [
        Step(trained, asked(trained), maximizer, kl, torch.optim.SGD(trained.parameters(), lr=0.1), "batch", 0.0)(
            x, y, draws
        )
        for trained, maximizer in ((one, made), (other, Attack(PGD)))
    ]
    assert figures[0]["loss"] == figures[1]["loss"]
    for new, expected in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(new, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stages", [1, 2])
def test_the_ascent_goes_through_both_endpoints_and_the_ratio(stages):
    """A plain loop on δ_i, δ_j and γ through blocks that are run by hand. The label is detached: γ moves by the mixture
    of states alone."""
    trained = network().eval()
    x, y, draws = batch(copies=2)
    x_j, y_j = x[draws.permutation], y[draws.permutation]
    blocks = trained.ends[stages]
    low, high = (
        torch.cat([bound(x), bound(x_j)])
        for bound in (lambda v: (-v).clamp(min=-PGD.epsilon), lambda v: (1 - v).clamp(max=PGD.epsilon))
    )
    delta = (PGD.epsilon * draws.noise).clamp(low, high)
    gamma = to_gamma(draws.ratio, LEARNED.kappa, LEARNED.logit_clamp)
    for _ in range(PGD.steps):
        delta, gamma = delta.clone().requires_grad_(), gamma.clone().requires_grad_()
        left, right = delta.chunk(2)
        ratio = from_gamma(gamma, LEARNED.kappa)
        y_m = (ratio[:, None] * y + (1 - ratio)[:, None] * y_j).detach()
        logits = by_hand(trained, x + left, x_j + right, ratio, blocks)
        loss = F.cross_entropy(logits, y_m, reduction="sum")
        moves, turn = torch.autograd.grad(loss, [delta, gamma])
        assert all((half.flatten(1).abs().amax(1) > 0).all() for half in moves.chunk(2))
        delta = (delta.detach() + PGD.step_size * moves.sign()).clamp(low, high)
        gamma = gamma.detach() + LEARNED.step_size * turn.sign()
    found = Integrated(PGD, "independent", LEARNED, Labels(detach=True), stages)(asked(trained), x, y, draws)
    left, right = delta.chunk(2)
    torch.testing.assert_close(found.x.left, x + left, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.x.right, x_j + right, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.x.ratio, from_gamma(gamma, LEARNED.kappa), rtol=0, atol=1e-12)
    assert torch.equal(found.x_pristine.left, x)
    assert torch.equal(found.x_pristine.right, x_j)
    assert found.x.stages == found.x_pristine.stages == stages
    assert not any(value.requires_grad for value in (*found.x[:3], *found.x_pristine[:3], found.y))


def test_a_shared_delta_gets_the_gradients_of_both_roles():
    trained = network().eval()
    x, y, draws = batch()
    once = Pgd(**{**PGD.__dict__, "steps": 1})
    found = Integrated(once, "shared", None, Labels(), 1)(asked(trained), x, y, draws)
    assert torch.equal(found.x.right, found.x.left[draws.permutation])
    low, high = (-x).clamp(min=-PGD.epsilon), (1 - x).clamp(max=PGD.epsilon)
    delta = (PGD.epsilon * draws.noise).clamp(low, high).requires_grad_()
    y_m = interpolate(y, y[draws.permutation], draws.ratio)
    logits = by_hand(trained, x + delta, (x + delta)[draws.permutation], draws.ratio, 1)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y_m, reduction="sum"), delta)
    moved = (delta.detach() + PGD.step_size * gradient.sign()).clamp(low, high)
    torch.testing.assert_close(found.x.left, x + moved, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_update_is_that_of_the_mixture_within(weight):
    trained = network()
    twin = copy.deepcopy(trained)
    x, y, draws = batch()
    made = AttackThenMix(PGD, 2)
    Step(trained, asked(trained), made, kl, torch.optim.SGD(trained.parameters(), lr=0.1), "eval", weight)(x, y, draws)
    attacked = Attack(PGD)(twin.eval(), x, y, draws).x
    twin.train()
    y_m = interpolate(y, y[draws.permutation], draws.ratio)
    adversarial, pristine = (
        kl(by_hand(twin, images, images[draws.permutation], draws.ratio, twin.ends[2]), y_m).mean()
        for images in (attacked, x)
    )
    loss = (1 - weight) * adversarial + weight * pristine
    wanted = torch.autograd.grad(loss, list(twin.parameters()))
    for value, gradient in zip(trained.parameters(), wanted, strict=True):
        torch.testing.assert_close(value.grad, gradient, rtol=1e-8, atol=1e-10)


def test_in_bf16_what_is_interpolated_is_float32():
    trained = network().float()
    x, _, draws = batch()
    seen = []
    trained.blocks[1].register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    pair = Mixture(x.float(), x.flip(0).float(), draws.ratio.float(), 1)
    logits = logits_of(trained, precision="bf16", channels_last=True)(pair)
    assert (seen, logits.dtype) == ([torch.float32], torch.float32)
    expected = logits_of(trained, precision="fp32", channels_last=False)(pair)
    torch.testing.assert_close(logits, expected, rtol=0.1, atol=0.1)
