"""The algorithms on one batch."""

import pytest
import torch
from interrupted import CPU
from small_probes import OURS, SMALL

from advmix_cli import build
from advmix_cli.probing.climb import climb
from advmix_cli.probing.compare import algorithms, first_batch, standings
from advmix_cli.recipe import schema

ASCENT = '{steps=3, step_size="8/255"}'
NAMES = ["1 attack", "2 mix-then-attack", "3 attack-then-mix", "4 integrated", "4+6 learned λ", "4+5+6 geometric"]


@pytest.fixture
def compared(tiny):
    """compared(*settings): {name: standing}."""

    def work(*settings):
        recipe = tiny(*SMALL, OURS, *settings)
        images = build.dataset(recipe, CPU, print)
        return {one.name: one for one in standings(recipe, images, build.new_network(recipe, images, CPU))}

    return work


@pytest.mark.parametrize(
    ("maximizer", "own"),
    [
        ('{kind="none"}', None),
        (f'{{kind="attack", ascent={ASCENT}}}', "1 attack"),
        (f'{{kind="mix-then-attack", ascent={ASCENT}, ratio={{alpha=1.0, per="batch"}}}}', "2 mix-then-attack"),
        (f'{{kind="integrated", ascent={ASCENT}, delta="shared", ratio={{kind="frozen"}}}}', "4 integrated"),
        (f'{{kind="integrated", ascent={ASCENT}, ratio={{kind="learned", kappa=0.8}}}}', "4+6 learned λ"),
        (f'{{kind="integrated", ascent={ASCENT}, labels={{kind="geometric", detach=true}}}}', "4+5+6 geometric"),
    ],
)
def test_the_recipes_own_maximizer_is_among_them(tiny, maximizer, own):
    recipe = tiny(f"maximizer={maximizer}")
    found = algorithms(recipe)
    assert list(found) == NAMES
    assert [name for name, one in found.items() if one == recipe.maximizer] == ([own] if own else [])
    assert len({one.ascent for one in found.values()}) == 1


def test_without_an_ascent_it_is_the_papers(tiny):
    assert algorithms(tiny('maximizer={kind="none"}'))["1 attack"].ascent == schema.Ascent(steps=5, step_size=8 / 255)


def test_the_recipes_own_line_is_its_own_climb(climbed, compared):
    _, _, found = climbed()
    own = compared()["4+6 learned λ"]
    assert own.own
    assert own.path == tuple(float(losses.double().mean()) for losses in found.path)
    _, _, found = climbed(f'maximizer={{kind="attack", ascent={ASCENT}}}')
    assert compared(f'maximizer={{kind="attack", ascent={ASCENT}}}')["1 attack"].path[0] == float(
        found.path[0].double().mean()
    )


def test_all_start_from_the_same_draws(compared):
    found = compared()
    assert found["1 attack"].path == found["3 attack-then-mix"].path
    assert found["4 integrated"].path[0] == pytest.approx(found["4+6 learned λ"].path[0], rel=1e-5)
    assert found["1 attack"].path[0] != found["2 mix-then-attack"].path[0] != found["4 integrated"].path[0]


def test_a_learned_ratio_that_may_not_travel_is_a_frozen_one(compared):
    found = compared('maximizer.ratio={kind="learned", travel=0}')
    frozen, learned = found["4 integrated"], found["4+6 learned λ"]
    # Through its logit λ is rounded in float32, and signed steps are chaotic: after the start nearly the same.
    assert learned.path[0] == pytest.approx(frozen.path[0], rel=1e-5)
    assert learned.path[-1] == pytest.approx(frozen.path[-1], rel=0.02)
    assert compared()["4+6 learned λ"].path[-1] > 1.02 * frozen.path[-1]


def test_without_steps_and_without_noise_all_that_mix_are_one(compared):
    found = compared('maximizer.ascent={steps=0, step_size=0, init="zero"}')
    mixed = [found[name].reached.mean for name in NAMES[1:]]
    assert mixed == pytest.approx([mixed[0]] * 5, rel=1e-4)
    assert found["2 mix-then-attack"].against["4 integrated"].mean == 0
    assert found["1 attack"].path == (found["1 attack"].reached.mean,)


def test_differences_are_paired(compared):
    found = compared()
    one = found["4+6 learned λ"]
    for name, paired in one.against.items():
        assert paired.mean == pytest.approx(one.reached.mean - found[name].reached.mean, abs=1e-6)
        assert paired.low < paired.mean < paired.high
    assert set(found["4 integrated"].against) == {"2 mix-then-attack"}


@pytest.mark.parametrize("batch_norm", ["train", "eval"])
def test_the_order_in_which_they_are_looked_at_changes_nothing(compared, tiny, batch_norm):
    setting = f'maximizer.ascent.batch_norm="{batch_norm}"'
    recipe = tiny(*SMALL, OURS, setting)
    images = build.dataset(recipe, CPU, print)
    last = recipe.model_copy(update={"maximizer": algorithms(recipe)["4+5+6 geometric"]})
    alone = climb(*first_batch(last, images, build.new_network(recipe, images, CPU)))
    assert compared(setting)["4+5+6 geometric"].path == tuple(float(losses.double().mean()) for losses in alone.path)


def test_a_narrow_distribution_of_a_frozen_ratio_can_be_compared(compared):
    found = compared(f'maximizer={{kind="mix-then-attack", ascent={ASCENT}, ratio={{alpha=1e4}}}}')
    assert all(torch.isfinite(torch.tensor(one.path)).all() for one in found.values())


def test_trades_is_none_of_them_and_changes_none(compared):
    attack = f'maximizer={{kind="attack", ascent={ASCENT}}}'
    plain, trades = compared(attack), compared(attack, "loss.trades_beta=6")
    assert ([one.own for one in plain.values()].count(True), any(one.own for one in trades.values())) == (1, False)
    assert [(one.path, one.reached) for one in trades.values()] == [(one.path, one.reached) for one in plain.values()]
