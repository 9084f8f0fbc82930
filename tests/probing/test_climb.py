"""A watched ascent is the ascent that trains, and one look more."""

import pytest
import torch
from interrupted import CPU
from small_probes import OURS, SMALL

from advmix_cli import build
from advmix_cli.errors import EvaluationError
from advmix_cli.method.ascent import ascent_step
from advmix_cli.method.divergence import kl
from advmix_cli.method.draws import Draws
from advmix_cli.method.maximizers import Attack, Pgd, Pristine
from advmix_cli.networks.batch_norm import batch_norm_mode
from advmix_cli.probing.climb import climb
from advmix_cli.probing.compare import first_batch
from advmix_cli.training.step import Step

ASCENT = '{steps=3, step_size="8/255"}'
MAXIMIZERS = {
    "none": '{kind="none"}',
    "attack": f'{{kind="attack", ascent={ASCENT}}}',
    "mix-then-attack": f'{{kind="mix-then-attack", ascent={ASCENT}}}',
    "attack-then-mix": f'{{kind="attack-then-mix", ascent={ASCENT}}}',
    "shared": f'{{kind="integrated", ascent={ASCENT}, delta="shared", ratio={{kind="frozen"}}}}',
    "learned": f'{{kind="integrated", ascent={ASCENT}}}',
    "geometric": f'{{kind="integrated", ascent={ASCENT}, labels={{kind="geometric"}}}}',
    "no steps": '{kind="integrated", ascent={steps=0, step_size="8/255"}}',
}
EVERY_MAXIMIZER = pytest.mark.parametrize("maximizer", MAXIMIZERS.values(), ids=MAXIMIZERS)


@EVERY_MAXIMIZER
@pytest.mark.parametrize("batch_norm", ["train", "eval"])
def test_it_ends_where_the_training_does_bit_for_bit(climbed, maximizer, batch_norm):
    more = [] if "none" in maximizer else [f'maximizer.ascent.batch_norm="{batch_norm}"']
    _, first, found = climbed(f"maximizer={maximizer}", *more)
    step = first.step
    with batch_norm_mode(step.network, step.batch_norm):
        trained = step.maximizer(step.logits, first.x, first.y, first.draws)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found.found[:5], trained[:5], strict=True))
    steps = len(trained.path)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found.path[:steps], trained.path, strict=True))
    assert len(found.path) == len(found.seen) == (0 if maximizer == MAXIMIZERS["none"] else steps + 1)


@pytest.mark.parametrize("maximizer", [MAXIMIZERS[name] for name in ("attack", "shared", "geometric")])
def test_the_path_begins_at_the_start_and_ends_with_what_is_trained_on(climbed, maximizer):
    _, _, found = climbed(f"maximizer={maximizer}")
    still = f"maximizer={maximizer}".replace("steps=3", "steps=0")
    _, _, start = climbed(still)
    torch.testing.assert_close(found.path[0], start.reached)
    torch.testing.assert_close(found.path[-1], found.reached)
    assert found.path[-1].mean() > found.path[0].mean()


@pytest.mark.parametrize("batch_norm", ["train", "eval"])
def test_the_batch_is_the_first_that_the_training_sees_with_the_same_losses(climbed, monkeypatch, batch_norm):
    recipe, first, found = climbed(f'maximizer.ascent.batch_norm="{batch_norm}"')
    images = build.dataset(recipe, CPU, print)
    training = build.training(recipe, images, build.new_network(recipe, images, CPU))
    given = []
    called = Step.__call__

    def spy(step, x, y, draws):
        figures = called(step, x, y, draws)
        given.append((x, y, *draws, figures))
        return figures

    monkeypatch.setattr(Step, "__call__", spy)
    next(training.run(lambda _: None))
    *tensors, figures = given[0]
    assert len(given) == training.batches
    assert all(torch.equal(a, b) for a, b in zip(tensors, (first.x, first.y, *first.draws), strict=True))
    assert torch.equal(figures["inner_loss_before"], found.path[0].mean())
    assert torch.equal(figures["inner_loss_after"], found.path[-2].mean())
    torch.testing.assert_close(figures["loss"], found.reached.mean())


def test_weights_gradients_and_statistics_are_left_alone(tiny):
    images = build.dataset(tiny(*SMALL), CPU, print)
    for batch_norm in ("batch", "eval"):
        other = tiny(*SMALL, OURS, f'maximizer.ascent.batch_norm="{batch_norm}"')
        network = build.new_network(other, images, CPU)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        climb(*first_batch(other, images, network))
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())


def test_on_a_slope_every_step_raises_the_loss_until_all_of_delta_is_at_epsilon(sloped):
    x = torch.full((4, 1, 2, 2), 0.5)
    y = torch.eye(2)[torch.zeros(4, dtype=torch.int64)]
    draws = Draws(torch.linspace(-1, 1, 16).reshape(x.shape), torch.arange(4), torch.ones(1, dtype=torch.float64))
    attack = Attack(Pgd(0.1, 0.05, 4, True, kl, ascent_step))
    network = torch.nn.Module()
    found = climb(Step(network, sloped, attack, kl, None, "train", 0.0), x, y, draws)
    losses = torch.stack(found.path)
    assert (losses.diff(dim=0) >= 0).all()
    assert torch.equal(found.path[0], kl(sloped(x + 0.1 * draws.noise), y))
    assert torch.equal(found.seen[-1][0].value, torch.full_like(x, 0.1))
    assert torch.equal(found.path[1], kl(sloped(x + (0.1 * draws.noise + 0.05).clamp(max=0.1)), y))


def test_a_loss_that_is_not_finite_is_an_error(sloped):
    x, y = torch.full((2, 1, 2, 2), 0.5), torch.eye(2)
    draws = Draws(torch.zeros(2, 1, 2, 2), torch.arange(2), torch.ones(1, dtype=torch.float64))
    attack = Attack(Pgd(0.1, 0.05, 1, True, kl, ascent_step))
    with pytest.raises(EvaluationError, match="the loss after 0 steps is not finite"):
        climb(Step(torch.nn.Module(), lambda x: sloped(x) * torch.nan, attack, kl, None, "train", 0.0), x, y, draws)
    still = Step(torch.nn.Module(), lambda x: sloped(x) * torch.nan, Pristine(), kl, None, "train", 0.0)
    with pytest.raises(EvaluationError, match="the loss of the batch to train on is not finite"):
        climb(still, x, y, draws)
