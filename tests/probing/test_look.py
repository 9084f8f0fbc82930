"""The figures of a climb, each against its definition."""

import math

import pytest
import torch

from advmix_cli.method import labels
from advmix_cli.method.divergence import kl
from advmix_cli.method.draws import Draws
from advmix_cli.method.maximizers import Attack, Pgd
from advmix_cli.probing.climb import climb
from advmix_cli.probing.look import NO_ASCENT, NOT_MIXED, look
from advmix_cli.probing.numbers import Paired, Share, Spread, Undefined
from advmix_cli.training.step import Step

EPSILON = 16 / 255
ASCENT = '{steps=3, step_size="8/255"}'


def looked(climbed, *settings):
    recipe, first, found = climbed(*settings)
    return look(found, first.y, recipe.threat.epsilon), first, found


def test_on_a_slope_all_of_delta_is_at_epsilon_or_held_by_the_image(sloped):
    x = torch.full((4, 1, 2, 2), 0.5)
    x[0, 0, 0, 0], x[1, 0, 0, 1] = 1.0, 0.95
    y = torch.eye(2)[torch.zeros(4, dtype=torch.int64)]
    draws = Draws(torch.zeros_like(x), torch.arange(4), torch.ones(1, dtype=torch.float64))
    for clamp, at, held in ((True, 14, 2), (False, 16, 0)):
        step = Step(torch.nn.Module(), sloped, Attack(Pgd(0.1, 0.05, 2, clamp, kl)), kl, None, "train", 0.0)
        found = look(climb(step, x, y, draws), y, 0.1)
        assert (found.at_epsilon, found.at_image_bound) == (Share(at, 16), Share(held, 16))
        shares = [place.at_epsilon.count for place in found.path]
        assert shares == [0, 0, at]
        assert (found.ratio_before, found.signs_in_a_pair) == (NOT_MIXED, NOT_MIXED)


def test_without_an_adversary_nothing_but_the_loss_is_known(climbed):
    found, _, climb_ = looked(climbed, 'maximizer={kind="none"}')
    assert found.path == ()
    assert found.reached == Spread.of(climb_.reached)
    assert found.at_epsilon == found.at_image_bound == found.signs_of_an_image == NO_ASCENT
    assert found.ratio_after == found.label_shift == found.self_pairs == NOT_MIXED


@pytest.mark.parametrize("kind", ["mix-then-attack", "attack-then-mix"])
def test_a_frozen_ratio_stays_and_is_that_of_the_label(climbed, kind):
    found, first, _ = looked(climbed, f'maximizer={{kind="{kind}", ascent={ASCENT}}}')
    assert found.ratio_before == found.ratio_after == Spread.of(first.draws.ratio.float())
    assert found.ratio_moved.quantiles == found.label_shift.quantiles == (0, 0, 0, 0, 0)


def test_a_learned_ratio_begins_at_its_draw_and_moves_by_at_most_its_travel(climbed):
    found, first, climb_ = looked(climbed)
    torch.testing.assert_close(climb_.ratio_before.double(), first.draws.ratio, rtol=0, atol=1e-6)
    moved = (climb_.found.ratio - climb_.ratio_before).abs()
    assert found.ratio_moved == Spread.of(moved)
    assert moved.max() > 0.01
    gamma = (climb_.seen[-1][1].value - climb_.seen[0][1].value).abs()
    assert (gamma <= 2 + 1e-5).all()


def test_the_ratio_of_the_label_is_that_of_algorithm_five(climbed):
    geometric = f'maximizer={{kind="integrated", ascent={ASCENT}, labels={{kind="geometric"}}}}'
    found, first, climb_ = looked(climbed, geometric)
    partner = first.draws.permutation
    lam = climb_.found.ratio
    expected = labels.geometric(lam, first.x, first.x[partner], climb_.found.x) - lam
    differ = (first.y != first.y[partner]).any(1)
    assert found.label_shift.n == int(differ.sum()) < len(partner)
    assert found.label_shift.mean == pytest.approx(float(expected[differ].abs().double().mean()), rel=1e-4)
    assert found.label_shift.mean > 0.001


def test_self_pairs_are_the_fixed_points(climbed):
    found, first, _ = looked(climbed)
    assert found.self_pairs == Share(sum(i == j for i, j in enumerate(first.draws.permutation.tolist())), 32)


def signs(pixels):
    """Pixel by pixel, over plain loops: (agreeing, compared)."""
    free = [(a, b) for x_a, a, x_b, b in pixels if 0 < x_a < 1 and 0 < x_b < 1 and a and b]
    return Share(sum((a > 0) == (b > 0) for a, b in free), len(free))


def test_signs_are_compared_in_a_pair_and_of_an_image_in_both_roles(climbed):
    found, first, climb_ = looked(climbed)
    partner = first.draws.permutation.tolist()
    left, right = climb_.seen[-1][0].value.flatten(1).chunk(2)
    x = first.x.flatten(1)
    pairs = [(i, j) for i, j in enumerate(partner) if i != j]
    a_pair = [(x[i, p], left[i, p], x[j, p], right[i, p]) for i, j in pairs for p in range(64)]
    an_image = [(x[j, p], left[j, p], x[j, p], right[i, p]) for i, j in pairs for p in range(64)]
    assert found.signs_in_a_pair == signs(a_pair)
    assert found.signs_of_an_image == signs(an_image)
    assert found.signs_in_a_pair != found.signs_of_an_image


def test_one_delta_for_both_roles_is_called_shared(climbed):
    for maximizer in (
        f'{{kind="integrated", ascent={ASCENT}, delta="shared"}}',
        f'{{kind="attack-then-mix", ascent={ASCENT}}}',
    ):
        found, _, _ = looked(climbed, f"maximizer={maximizer}")
        assert found.signs_of_an_image == Undefined("shared: one δ for both roles")
        assert 0 < found.signs_in_a_pair.value < 1
    found, _, _ = looked(climbed, f'maximizer={{kind="mix-then-attack", ascent={ASCENT}}}')
    assert found.signs_in_a_pair == found.signs_of_an_image == Undefined("the mixture has one δ")


def test_an_adversary_without_room_has_no_share_at_epsilon(climbed):
    found, _, _ = looked(climbed, "threat.epsilon=0")
    assert found.at_epsilon == found.at_image_bound == found.path[0].at_epsilon == Undefined("ε = 0")
    assert found.signs_in_a_pair == Undefined("no pixel could go both ways")


def test_a_spread_is_its_quantiles_and_a_pairing_its_interval():
    assert Spread.of(torch.arange(11.0)) == Spread(11, 5.0, (0, 1, 5, 9, 10))
    paired = Paired.of(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 1.0, 1.0]))
    # Differences 0, 1, 3: mean 4/3, variance 7/3; Student's t of two degrees of freedom is 4.302653 at 97.5%.
    half = 4.302653 * math.sqrt(7 / 9)
    assert (paired.mean, paired.low, paired.high) == pytest.approx((4 / 3, 4 / 3 - half, 4 / 3 + half), rel=1e-6)
    assert paired.larger == Share(2, 3)
    share = {"share": 2 / 3, "count": 2, "n": 3}
    assert paired.to_json() == {"mean": paired.mean, "low": paired.low, "high": paired.high, "larger": share}
    spread = {"n": 11, "mean": 5.0, "min": 0.0, "q10": 1.0, "median": 5.0, "q90": 9.0, "max": 10.0}
    assert Spread.of(torch.arange(11.0)).to_json() == spread
