"""TRADES beside its definition, written here with torch's own functions."""

import copy

import pytest
import torch
from torch.nn import functional as F

from advmix_cli.method.divergence import cross_entropy, kl
from advmix_cli.method.draws import Sampler
from advmix_cli.method.maximizers import (
    Attack,
    AttackThenMix,
    Integrated,
    Labels,
    Maximized,
    MixThenAttack,
    Pgd,
    prediction,
)
from advmix_cli.networks.normalize import Normalize
from advmix_cli.networks.preact_resnet import preact_resnet
from advmix_cli.training.accelerate import logits_of
from advmix_cli.training.step import Step, trades_loss

SHAPE, CLASSES, BETA = torch.Size((6, 1, 8, 8)), 3, 6.0
EPSILON, STEP, STEPS = 0.1, 0.04, 4
LABELS = torch.tensor([0, 1, 2, 1, 0, 2])
PGD = Pgd(EPSILON, STEP, STEPS, clamp=True, divergence=kl, reference=prediction)


def network():
    torch.manual_seed(0)
    return preact_resnet(Normalize([0.5], [0.2]), depth=10, width=2, channels=1, classes=CLASSES).double()


def batch(copies=1):
    torch.manual_seed(1)
    x, y = torch.rand(SHAPE, dtype=torch.float64), torch.eye(CLASSES, dtype=torch.float64)[LABELS]
    draws = Sampler(copies=copies, alpha=0.5)(SHAPE, torch.Generator(), torch.Generator())
    return x, y, draws._replace(noise=draws.noise.double())


def defined(trained, x, attacked, target):
    """CE(f(x), y) + β·KL(f(x) || f(x')), the mean over the batch; `target` classes, or soft labels."""
    of_pristine, of_attacked = trained(x), trained(attacked)
    apart = F.kl_div(of_attacked.log_softmax(1), of_pristine.softmax(1), reduction="batchmean")
    return F.cross_entropy(of_pristine, target) + BETA * apart


def stepped(around, noise, gradient_at):
    """The plain loop: δ from its start in the box, then signed steps, each projected."""
    low, high = (-around).clamp(min=-EPSILON), (1 - around).clamp(max=EPSILON)
    delta = (EPSILON * noise).clamp(low, high)
    for _ in range(STEPS):
        delta = (delta + STEP * gradient_at(delta).sign()).clamp(low, high)
    return delta


def gradient_of_the_divergence(trained, x, images):
    """δ -> the gradient in δ of Σ KL(f(x) || f(images(δ))), with f(x) fixed."""
    with torch.no_grad():
        fixed = trained(x).softmax(1)

    def gradient_at(delta):
        delta = delta.clone().requires_grad_()
        F.kl_div(trained(images(delta)).log_softmax(1), fixed, reduction="sum").backward()
        return delta.grad

    return gradient_at


@pytest.mark.parametrize("divergence", [kl, cross_entropy])
def test_value_and_gradients_are_those_of_the_definition(divergence):
    trained = network()
    twin = copy.deepcopy(trained)
    x, y, draws = batch()
    attacked = (x + EPSILON * draws.noise).clamp(0, 1)
    loss, parts = trades_loss(trained, divergence, BETA, Maximized(attacked, y, x, y, draws.ratio, []))
    expected = defined(twin, x, attacked, LABELS)
    assert parts["adversarial_loss"] > 1e-3
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(parts["pristine_loss"] + BETA * parts["adversarial_loss"], loss.detach())
    wanted = torch.autograd.grad(expected, list(twin.parameters()))
    for gradient, other in zip(torch.autograd.grad(loss, list(trained.parameters())), wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mixes", [False, True], ids=["attack", "mix-then-attack"])
def test_the_adversary_takes_the_steps_of_a_plain_loop(mixes):
    trained = network().eval()
    x, y, draws = batch()
    found = (MixThenAttack(PGD) if mixes else Attack(PGD))(trained, x, y, draws)
    if mixes:
        ratio = draws.ratio[:, None, None, None]
        x = ratio * x + (1 - ratio) * x[draws.permutation]
    delta = stepped(x, draws.noise, gradient_of_the_divergence(trained, x, lambda delta: x + delta))
    torch.testing.assert_close(found.x, x + delta, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.x_pristine, x, rtol=0, atol=1e-12)
    assert [len(found.path), found.path[-1].shape] == [STEPS, (SHAPE[0],)]
    assert (found.path[-1] > found.path[0]).double().mean() > 0.5


def test_the_integrated_adversary_moves_both_endpoints_away_from_the_prediction_on_the_pristine_mixture():
    trained = network().eval()
    x, y, draws = batch(copies=2)
    x_j, ratio = x[draws.permutation], draws.ratio[:, None, None, None]

    def mixed(delta):
        left, right = delta.chunk(2)
        return ratio * (x + left) + (1 - ratio) * (x_j + right)

    pristine = mixed(torch.zeros_like(draws.noise))
    delta = stepped(torch.cat([x, x_j]), draws.noise, gradient_of_the_divergence(trained, pristine, mixed))
    found = Integrated(PGD, "independent", None, Labels())(trained, x, y, draws)
    torch.testing.assert_close(found.x, mixed(delta), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.x_pristine, pristine, rtol=0, atol=1e-12)


def test_images_that_are_mixed_after_the_attack_leave_their_own_predictions():
    trained = network().eval()
    x, y, draws = batch()
    found, attacked = AttackThenMix(PGD)(trained, x, y, draws), Attack(PGD)(trained, x, y, draws)
    ratio = draws.ratio[:, None, None, None]
    mixed = ratio * attacked.x + (1 - ratio) * attacked.x[draws.permutation]
    torch.testing.assert_close(found.x, mixed, rtol=0, atol=1e-12)


def test_the_label_is_not_what_the_adversary_leaves():
    trained = network().eval()
    x, y, draws = batch()
    found = Attack(PGD)(trained, x, y, draws)
    assert torch.equal(found.x, Attack(PGD)(trained, x, y.roll(1, 1), draws).x)
    assert torch.equal(found.y, y)


def test_the_prediction_that_the_adversary_leaves_keeps_no_graph_of_its_pass():
    assert not prediction(network(), batch()[0]).requires_grad


@pytest.mark.parametrize("maximizer", [Attack(PGD), AttackThenMix(PGD)])
def test_a_step_updates_by_the_definition(maximizer):
    trained = network()
    twin = copy.deepcopy(trained)
    x, y, draws = batch()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    figures = Step(trained, trained, maximizer, kl, optimizer, "eval", BETA, trades_loss)(x, y, draws)
    found = maximizer(twin.eval(), x, y, draws)
    loss = defined(twin.train(), found.x_pristine, found.x, found.y_pristine)
    for new, gradient in zip(trained.parameters(), torch.autograd.grad(loss, list(twin.parameters())), strict=True):
        torch.testing.assert_close(new.grad, gradient, rtol=1e-6, atol=1e-9)
    assert {"loss", "adversarial_loss", "pristine_loss", "inner_loss_before", "inner_loss_after"} <= set(figures)


def test_one_forward_pass_more_than_of_the_attack_and_two_of_the_update_move_running_statistics():
    trained = network()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    Step(trained, trained, Attack(PGD), kl, optimizer, "train", BETA, trades_loss)(*batch())
    assert trained.bn.num_batches_tracked == STEPS + 1 + 2


def test_in_bf16_the_weights_keep_their_gradients():
    """Autocast keeps the weights that it has cast for the prediction."""
    trained = network().float()
    x, y, draws = batch()
    logits = logits_of(trained, precision="bf16", channels_last=False)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    taken = Step(trained, logits, Attack(PGD), kl, optimizer, "eval", BETA, trades_loss)
    taken(x.float(), y.float(), draws._replace(noise=draws.noise.float()))
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in trained.parameters())
