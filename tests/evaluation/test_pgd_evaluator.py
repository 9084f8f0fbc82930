"""PGD-k as an evaluation, against a textbook loop on the same network and images."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from advmix_cli.data.images import Images
from advmix_cli.evaluation.notebook import Blank
from advmix_cli.evaluation.pgd import Pgd, falls_short
from advmix_cli.evaluation.predict import excess, measured
from advmix_cli.evaluation.pristine import Pristine
from advmix_cli.evaluation.subject import Subject

PGD = Pgd(
    epsilon=24 / 255,
    step_size=8 / 255,
    steps=8,
    restarts=1,
    init="uniform",
    loss="cross-entropy",
    seed=0,
    batch_size=100,
)


def silent(_done, _note):
    """No progress display."""


def judge(evaluator, network, images):
    with measured(network):
        return evaluator(Subject.plain(network), images, silent, Blank()).robust


def direct_margin(logits, labels):
    """Image by image: the largest other logit minus the own."""
    return torch.stack(
        [
            max(value for k, value in enumerate(row) if k != label) - row[label]
            for row, label in zip(logits, labels.tolist(), strict=True)
        ]
    )


def textbook(network, x, labels, start, pgd):
    """Madry et al.'s loop: gradient of the mean loss with backward(), sign, clamp to the ball and to [0, 1]."""
    x_adv = (x + start).clamp(0, 1)
    for _ in range(pgd.steps):
        x_adv = x_adv.detach().requires_grad_()
        logits = network(x_adv)
        loss = F.cross_entropy(logits, labels) if pgd.loss == "cross-entropy" else direct_margin(logits, labels).mean()
        loss.backward()
        x_adv = x_adv.detach() + pgd.step_size * x_adv.grad.sign()
        x_adv = torch.minimum(torch.maximum(x_adv, x - pgd.epsilon), x + pgd.epsilon).clamp(0, 1)
    return x_adv.detach()


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
@pytest.mark.parametrize("init", ["uniform", "zero"])
def test_verdicts_are_those_of_a_textbook_loop(trained, loss, init):
    network, data = trained
    pgd = replace(PGD, loss=loss, init=init)
    x, labels = data.test.pixels / 255, data.test.labels
    start = pgd.epsilon * pgd.noise(x.shape, 0)
    with measured(network):
        found = network(textbook(network, x, labels, start, pgd)).argmax(1)
        pristine = network(x).argmax(1)
    expected = (found == labels) & (pristine == labels)
    verdicts = judge(pgd, network, data.test)
    assert (verdicts != expected).sum() <= 1
    assert 0.1 < expected.double().mean() < 0.7  # neither all nor nothing: the comparison says something


def test_the_start_is_uniform_in_the_ball_and_zero_if_wanted():
    noise = PGD.noise(torch.Size([200, 1, 8, 8]), 0)
    assert noise.abs().max() <= 1
    assert noise.mean().abs() < 0.02
    assert abs(noise.var() - 1 / 3) < 0.01
    assert not replace(PGD, init="zero").noise(torch.Size([5, 1, 8, 8]), 0).any()


def test_restarts_and_seeds_start_elsewhere():
    shape = torch.Size([5, 1, 8, 8])
    starts = [PGD.noise(shape, 0), PGD.noise(shape, 1), replace(PGD, seed=1).noise(shape, 0)]
    assert not any(torch.equal(a, b) for a, b in zip(starts, starts[1:] + starts[:1], strict=True))
    assert torch.equal(starts[0], PGD.noise(shape, 0))


def test_verdicts_do_not_depend_on_the_batch_size(trained):
    network, data = trained
    pgd = replace(PGD, restarts=2, steps=3)
    verdicts = [judge(replace(pgd, batch_size=size), network, data.test) for size in (7, 297)]
    assert torch.equal(*verdicts)


def test_verdicts_do_not_depend_on_how_many_images_follow(trained):
    network, data = trained
    assert torch.equal(judge(PGD, network, data.test)[:50], judge(PGD, network, data.test.first(50)))


def test_epsilon_zero_is_the_pristine_accuracy(trained):
    network, data = trained
    pristine = judge(Pristine(100), network, data.test)
    assert torch.equal(judge(replace(PGD, epsilon=0.0), network, data.test), pristine)


def test_restarts_never_help_the_network(trained):
    network, data = trained
    pgd = replace(PGD, steps=2)
    verdicts = [judge(replace(pgd, restarts=restarts), network, data.test) for restarts in (1, 2, 4)]
    for fewer, more in pairwise(verdicts):
        assert not (more & ~fewer).any()
    assert verdicts[2].sum() < verdicts[0].sum()


def test_a_restart_is_an_attack_from_its_own_start(trained):
    network, data = trained
    pgd = replace(PGD, steps=2, restarts=3)
    x, labels = data.test.pixels / 255, data.test.labels
    with measured(network):
        expected = network(x).argmax(1) == labels
        for restart in range(3):
            start = pgd.epsilon * pgd.noise(x.shape, restart)
            expected &= network(textbook(network, x, labels, start, pgd)).argmax(1) == labels
    assert (judge(pgd, network, data.test) != expected).sum() <= 1


def test_a_restart_is_said_to_have_broken_what_the_ones_before_it_left(trained):
    network, data = trained
    standing = [int(judge(replace(PGD, steps=2, restarts=count), network, data.test).sum()) for count in (1, 2, 3)]
    with measured(network):
        broken = replace(PGD, steps=2, restarts=3)(Subject.plain(network), data.test, silent, Blank()).broken()
    assert [broken["restart 2"], broken["restart 3"]] == [fewer - more for fewer, more in pairwise(standing)]
    assert broken["restart 2"] > 0


def test_more_steps_do_not_help_the_network(trained):
    network, data = trained
    counts = [int(judge(replace(PGD, steps=steps), network, data.test).sum()) for steps in (1, 4, 16)]
    assert counts[0] > counts[1] >= counts[2]


def test_a_misclassified_image_is_not_robust(trained):
    network, data = trained
    wrong = Images(data.test.pixels, (data.test.labels + 1) % 10)
    pristine = judge(Pristine(100), network, wrong)
    assert not (judge(replace(PGD, epsilon=0.5), network, wrong) & ~pristine).any()


@given(seed=st.integers(0, 1000), steps=st.integers(1, 4), init=st.sampled_from(["uniform", "zero"]))
def test_the_attack_stays_in_the_ball_and_the_unit_box_without_slack(seed, steps, init):
    drawing = torch.Generator().manual_seed(seed)
    # Multiples of 1/256 and ε = 1/32: x - ε and x + ε are exact, so that rounding cannot excuse anything.
    x = torch.randint(257, (3, 1, 8, 8), generator=drawing) / 256
    pgd = Pgd(1 / 32, 3 / 128, steps, 1, init, "cross-entropy", seed, 3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 4, bias=False))
    with torch.no_grad():
        network[1].weight.normal_(generator=drawing)
    labels = torch.tensor([0, 1, 2])
    found = pgd.attack(network, x, labels, pgd.epsilon * pgd.noise(x.shape, 0))
    assert (found - x).abs().max() <= 1 / 32
    assert found.min() >= 0
    assert found.max() <= 1
    assert not found.requires_grad
    if steps > 2:  # 3 steps of 3/128 cross the ball: the linear model's attack ends at its border
        assert ((found - x).abs() == 1 / 32).double().mean() > 0.5


def test_one_step_on_a_linear_model_is_the_sign_of_the_weights():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
    x = torch.full((1, 1, 8, 8), 0.5)
    pgd = Pgd(1 / 16, 1 / 32, 1, 1, "zero", "margin", 0, 1)
    found = pgd.attack(network, x, torch.tensor([0]), torch.zeros_like(x))
    towards = (network[1].weight[1] - network[1].weight[0]).sign().reshape(1, 1, 8, 8)
    assert torch.equal(found, x + towards / 32)


def test_the_margin_is_the_largest_other_logit_minus_the_own():
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 5
    assert torch.equal(excess(logits, labels), direct_margin(logits, labels))
    assert torch.equal(excess(logits, labels) < 0, logits.argmax(1) == labels)


def test_settings_are_what_the_number_depends_on():
    settings = replace(PGD, restarts=3, loss="margin", seed=7).settings(10)
    assert settings == {
        "norm": "linf",
        "epsilon": 24 / 255,
        "steps": 8,
        "step_size": 8 / 255,
        "restarts": 3,
        "init": "uniform",
        "loss": "margin",
        "seed": 7,
    }


@pytest.mark.parametrize(("steps", "step_size", "short"), [(3, 0.009, False), (3, 0.0089, True), (4, 0.009, False)])
def test_steps_that_lead_to_the_edge_but_for_rounding_do_not_fall_short(steps, step_size, short):
    assert 3 * 0.009 < 0.027
    assert falls_short(steps, step_size, 0.027) is short


def test_where_nothing_stands_nothing_is_attacked():
    """A batch of no images would be compiled for."""
    images = Images(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.ones(4, dtype=torch.uint8))
    always_wrong = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    nn.init.zeros_(always_wrong[1].weight)
    nn.init.zeros_(always_wrong[1].bias)
    subject = Subject(always_wrong, lambda _: pytest.fail("attacked"))
    with measured(always_wrong):
        assert not replace(PGD, restarts=2)(subject, images, silent, Blank()).robust.any()
