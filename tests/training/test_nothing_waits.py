"""A batch on a device whose tensors have a place and no values: nothing of it lies on the host, and nothing looks at a
number. On a GPU a look is a wait for everything that was asked of it before, and in a captured graph an error."""

from contextlib import nullcontext

import pytest
import torch

from advmix_cli import build
from advmix_cli.data.augment import Moves
from advmix_cli.method.draws import Draws
from advmix_cli.recipe.load import load
from advmix_cli.recipe.table import load_table
from advmix_cli.training.batch import Batch

CPU, VALUELESS = torch.device("cpu"), torch.device("meta")
SMALL = ["schedule.batch_size=8", "model.width=2"]
ROWS = {row.name: row.recipe for row in load_table("table1", SMALL).rows}
VARIANTS = [
    'maximizer.ascent.batch_norm="batch"',
    'maximizer.ascent.batch_norm="eval"',
    'maximizer.labels={kind="geometric"}',
    'maximizer.ratio.per="batch"',
    "maximizer.ascent.clamp=false",
    "loss.pristine_weight=0.5",
    'optimizer={kind="sgd", lr=0.1, momentum=0.9, nesterov=true}',
    "data.translate=0",
    "maximizer.mix_after=2",
]
TRADES = ['maximizer.ratio={kind="frozen"}', "maximizer.mix_after=1", "loss.trades_beta=6"]


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch):
    """torch knows no precision for a device without values."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


def on_a_batch(recipe):
    noise = build.outline(recipe, CPU, print).noise(32)
    drawn = build.training(recipe, noise, build.new_network(recipe, noise, CPU))
    batch = drawn.draw(drawn.order(1), epoch=1, index=0)
    images = noise.to(VALUELESS)
    made = build.training(recipe, images, build.new_network(recipe, images, VALUELESS))
    moves, draws = (tuple(value.to(VALUELESS) for value in part) for part in (batch.moves, batch.draws))
    return made, Batch(batch.indices.to(VALUELESS), Moves(*moves), Draws(*draws))


@pytest.mark.parametrize(
    "recipe",
    [*ROWS.values(), *(load("cifar10-ours", [*SMALL, *more]) for more in [*([one] for one in VARIANTS), TRADES])],
)
def test_a_batch_runs_without_a_look_at_a_number(recipe):
    made, batch = on_a_batch(recipe)
    figures = made.on_batch(batch)
    assert {figure.device for figure in figures.values()} == {VALUELESS}
    assert all(parameter.grad.device == VALUELESS for parameter in made.network.parameters())


def test_an_average_follows_without_a_look_at_a_number():
    made, batch = on_a_batch(load("cifar10-ours", [*SMALL, 'averaging={kind="ema"}']))
    made.on_batch(batch)
    made.average.follow(0)
    assert {value.device for value in made.average.network.state_dict().values()} == {VALUELESS}


@pytest.mark.parametrize("look", [lambda x: x.item(), lambda x: x.nonzero(), lambda x: x + torch.zeros(1)])
def test_a_look_or_a_tensor_left_on_the_host_would_be_seen(look):
    with pytest.raises(RuntimeError):
        look(torch.ones(1, device=VALUELESS))
