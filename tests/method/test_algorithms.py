"""Algorithms 1 to 6 against a second, slow transcription of the paper: image by image, plain loops, float64.

The transcription shares nothing with the package but the network, the draws and the settings. Where the paper's text is
silent or wrong it follows the same decisions: the clean endpoints of Algorithm 5 as the other reading, the last line of
Algorithm 4 with the final δ and λ, and the image kept in [0, 1] by clipping x + δ.
"""

import itertools
import math

import pytest
import torch
from torch import nn

from advmix_cli.method import divergence
from advmix_cli.method.draws import Draws
from advmix_cli.method.maximizers import (
    Attack,
    AttackThenMix,
    Integrated,
    Labels,
    LearnedRatio,
    MixThenAttack,
    Pgd,
)

SIZE, SHAPE, CLASSES = 5, (1, 3, 3), 4
EPSILON, ETA, STEPS = 0.12, 0.05, 4
KAPPA, ETA_GAMMA, LOGIT_CLAMP = 0.65, 0.7, 1e-6


# ---- the transcription ---------------------------------------------------------------------------------------------


def probabilities(logits):
    exponentials = [torch.exp(logit - logits.detach().max()) for logit in logits]
    total = sum(exponentials)
    return [each / total for each in exponentials]


def d(network, image, label, kind):
    """KL(y || softmax f(x)) or the cross-entropy, of one image."""
    total = torch.zeros((), dtype=torch.float64)
    for y, p in zip(label, probabilities(network(image[None])[0]), strict=True):
        if float(y.detach()) > 0:
            total = total + y * ((torch.log(y) if kind == "kl" else 0) - torch.log(p))
    return total


def sign(gradient):
    return (gradient > 0).double() - (gradient < 0).double()


def clip(value, low, high):
    return torch.minimum(torch.maximum(value, torch.full_like(value, low)), torch.full_like(value, high))


def constrained(delta, image, clamp):
    delta = clip(delta, -EPSILON, EPSILON)
    return clip(image + delta, 0, 1) - image if clamp else delta


def attack(network, images, labels, noise, clamp, kind):
    """Algorithm 1, each image for itself."""
    attacked, path = [], []
    for image, label, start in zip(images, labels, noise, strict=True):
        delta, losses = constrained(EPSILON * start, image, clamp), []
        for _ in range(STEPS):
            delta = delta.clone().requires_grad_()
            loss = d(network, image + delta, label, kind)
            losses.append(float(loss.detach()))
            (gradient,) = torch.autograd.grad(loss, [delta])
            delta = constrained(delta.detach() + sign(gradient) * ETA, image, clamp)
        attacked.append(image + delta)
        path.append(losses)
    return attacked, path


def mixup(images, labels, partner, ratio):
    pairs = [(i, partner[i], ratio[i if len(ratio) > 1 else 0]) for i in range(len(images))]
    mixed = [lam * images[i] + (1 - lam) * images[j] for i, j, lam in pairs]
    return mixed, [lam * labels[i] + (1 - lam) * labels[j] for i, j, lam in pairs]


def place_on_the_line(left, right, point, otherwise):
    """Algorithm 5."""
    v, p = right - left, left - point
    if float((v.detach() ** 2).sum()) == 0:
        return otherwise
    place = 1 + (p * v).sum() / (v * v).sum()
    if float(place.detach()) < 0:
        return torch.zeros((), dtype=torch.float64)
    return place if float(place.detach()) <= 1 else torch.ones((), dtype=torch.float64)


def algorithm_456(network, x, y, partner, noise, start, *, delta, learned, labels, detach, clamp, kind):
    """Algorithm 4; with `learned` 6 in it, with geometric labels 5 in it."""
    roles = [*x] if delta == "shared" else [*x, *(x[j] for j in partner)]
    deltas = [constrained(EPSILON * noise[n], roles[n], clamp) for n in range(len(roles))]
    gammas = []
    if learned:
        for lam in start:
            share = min(max((lam - KAPPA) / (1 - KAPPA), LOGIT_CLAMP), 1 - LOGIT_CLAMP)
            gammas.append(torch.tensor(-math.log(1 / share - 1), dtype=torch.float64))

    def lam_x(i, gammas):
        which = i if len(start) > 1 else 0
        if learned:
            return KAPPA + (1 - KAPPA) / (1 + torch.exp(-gammas[which]))
        return torch.tensor(start[which], dtype=torch.float64)

    def mixture(i, deltas, gammas):
        j, lam = partner[i], lam_x(i, gammas)
        left = x[i] + deltas[i]
        right = x[j] + (deltas[j] if delta == "shared" else deltas[len(x) + i])
        x_m = lam * left + (1 - lam) * right
        lam_y = lam
        if labels == "geometric-clean":
            lam_y = place_on_the_line(x[i], x[j], x_m, lam)
        elif labels == "geometric-perturbed":
            lam_y = place_on_the_line(left, right, x_m, lam)
        if detach:
            lam_y = torch.tensor(float(lam_y.detach()), dtype=torch.float64)
        return x_m, lam_y * y[i] + (1 - lam_y) * y[j]

    path = []
    for _ in range(STEPS):
        deltas = [each.clone().requires_grad_() for each in deltas]
        gammas = [each.clone().requires_grad_() for each in gammas]
        losses = [d(network, *mixture(i, deltas, gammas), kind) for i in range(len(x))]
        path.append([float(loss.detach()) for loss in losses])
        gradients = torch.autograd.grad(sum(losses) / len(x), [*deltas, *gammas])
        deltas = [
            constrained(each.detach() + sign(gradient) * ETA, role, clamp)
            for each, gradient, role in zip(deltas, gradients[: len(deltas)], roles, strict=True)
        ]
        gammas = [
            each.detach() + sign(gradient) * ETA_GAMMA
            for each, gradient in zip(gammas, gradients[len(roles) :], strict=True)
        ]
    final = [mixture(i, deltas, gammas) for i in range(len(x))]
    ratios = [lam_x(i, gammas) for i in range(len(start))]
    return [x_m for x_m, _ in final], [y_m for _, y_m in final], ratios, path


# ---- the comparison ------------------------------------------------------------------------------------------------


def setting(copies, *, per="sample", kappa=0.0, fixed_point=False):
    generator = torch.Generator().manual_seed(17)

    def draw(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    first, second = (draw(12, 9) - 0.5) * 3, (draw(CLASSES, 12) - 0.5) * 4
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 12), nn.Tanh(), nn.Linear(12, CLASSES)).double()
    with torch.no_grad():
        network[1].weight.copy_(first)
        network[3].weight.copy_(second)
        network[1].bias.zero_()
        network[3].bias.zero_()
    x = (draw(SIZE, *SHAPE) * 1.4 - 0.2).clamp(0, 1)
    y = torch.eye(CLASSES, dtype=torch.float64)[torch.tensor([0, 1, 2, 3, 1])]
    noise = draw(copies * SIZE, *SHAPE) * 2 - 1
    partner = [3, 1, 0, 4, 2] if fixed_point else [3, 4, 0, 1, 2]
    ratio = kappa + (1 - kappa) * draw(SIZE if per == "sample" else 1)
    return network, x, y, Draws(noise, torch.tensor(partner), ratio), partner


def pgd(clamp, kind="kl"):
    d_of = divergence.kl if kind == "kl" else divergence.cross_entropy
    return Pgd(epsilon=EPSILON, step_size=ETA, steps=STEPS, clamp=clamp, divergence=d_of)


def assert_matches(found, x, y, path):
    torch.testing.assert_close(found.x, torch.stack(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.y, torch.stack(y), rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.stack(found.path), torch.tensor(path, dtype=torch.float64), rtol=0, atol=1e-11)


@pytest.mark.parametrize("clamp", [True, False], ids=["clamped", "free"])
@pytest.mark.parametrize("kind", ["kl", "cross-entropy"])
def test_algorithm_1(clamp, kind):
    network, x, y, draws, _ = setting(1)
    attacked, path = attack(network, x, y, draws.noise, clamp, kind)
    assert_matches(Attack(pgd(clamp, kind))(network, x, y, draws), attacked, [*y], [*zip(*path, strict=True)])


@pytest.mark.parametrize("clamp", [True, False], ids=["clamped", "free"])
@pytest.mark.parametrize("per", ["sample", "batch"])
def test_algorithm_2(clamp, per):
    network, x, y, draws, partner = setting(1, per=per, fixed_point=True)
    x_m, y_m = mixup(x, y, partner, draws.ratio.tolist())
    attacked, path = attack(network, x_m, y_m, draws.noise, clamp, "kl")
    found = MixThenAttack(pgd(clamp))(network, x, y, draws)
    assert_matches(found, attacked, y_m, [*zip(*path, strict=True)])


@pytest.mark.parametrize("clamp", [True, False], ids=["clamped", "free"])
@pytest.mark.parametrize("per", ["sample", "batch"])
def test_algorithm_3(clamp, per):
    network, x, y, draws, partner = setting(1, per=per, fixed_point=True)
    attacked, path = attack(network, x, y, draws.noise, clamp, "kl")
    x_m, y_m = mixup(attacked, y, partner, draws.ratio.tolist())
    assert_matches(AttackThenMix(pgd(clamp))(network, x, y, draws), x_m, y_m, [*zip(*path, strict=True)])


def compare(delta, learned, labels, detach, clamp, *, per="sample", kind="kl"):
    # With a shared δ an image that is its own partner has gradients that cancel: 0, or rounding, of either sign.
    network, x, y, draws, partner = setting(
        2 if delta == "independent" else 1,
        per=per,
        kappa=KAPPA if learned else 0.0,
        fixed_point=delta == "independent",
    )
    means = LearnedRatio(KAPPA, ETA_GAMMA, LOGIT_CLAMP) if learned else None
    found = Integrated(pgd(clamp, kind), delta, means, Labels(labels, detach))(network, x, y, draws)
    x_m, y_m, ratios, path = algorithm_456(
        network,
        x,
        y,
        partner,
        draws.noise,
        draws.ratio.tolist(),
        delta=delta,
        learned=learned,
        labels=labels,
        detach=detach,
        clamp=clamp,
        kind=kind,
    )
    assert_matches(found, x_m, y_m, path)
    torch.testing.assert_close(found.ratio, torch.stack(ratios), rtol=0, atol=1e-12)
    pristine = mixup(x, y, partner, found.ratio.tolist())
    torch.testing.assert_close(found.x_pristine, torch.stack(pristine[0]), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.y_pristine, torch.stack(pristine[1]), rtol=0, atol=1e-12)


DELTAS = ["shared", "independent"]
LABELS = ["linear", "geometric-clean", "geometric-perturbed"]


@pytest.mark.parametrize("clamp", [True, False], ids=["clamped", "free"])
@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("learned", [False, True], ids=["frozen", "learned"])
@pytest.mark.parametrize("delta", DELTAS)
def test_algorithms_4_to_6(delta, learned, labels, detach, clamp):
    compare(delta, learned, labels, detach, clamp)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("learned", [False, True], ids=["frozen", "learned"])
@pytest.mark.parametrize("delta", DELTAS)
def test_algorithms_4_to_6_with_one_ratio_for_the_batch(delta, learned, labels):
    compare(delta, learned, labels, detach=False, clamp=True, per="batch")


@pytest.mark.parametrize("learned", [False, True], ids=["frozen", "learned"])
@pytest.mark.parametrize("delta", DELTAS)
def test_algorithms_4_to_6_with_cross_entropy(delta, learned):
    compare(delta, learned, "geometric-clean", detach=False, clamp=True, kind="cross-entropy")


def test_the_comparison_can_tell_the_settings_apart():
    network, x, y, draws, _ = setting(2, kappa=KAPPA, fixed_point=True)
    means = LearnedRatio(KAPPA, ETA_GAMMA, LOGIT_CLAMP)
    found = [
        Integrated(pgd(clamp, kind), "independent", means, Labels(labels, detach))(network, x, y, draws).x
        for clamp, kind, labels, detach in [
            (True, "kl", "linear", False),
            (False, "kl", "linear", False),
            (True, "cross-entropy", "linear", False),
            (True, "kl", "geometric-clean", False),
            (True, "kl", "linear", True),
            (True, "kl", "geometric-clean", True),
        ]
    ]
    for one, other in itertools.combinations(found, 2):
        assert (one - other).abs().max() > 1e-3
