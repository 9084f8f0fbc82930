"""Intervals and tests against their definitions, written out by hand, and against simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from advmix_cli.evaluation.significance import Paired, holm, pooled, pooled_accuracy, wilson

Z = 1.959963984540054  # the 97.5% quantile of the normal distribution


@pytest.mark.parametrize(("correct", "n"), [(0, 1), (1, 1), (0, 360), (360, 360), (1, 7), (183, 360), (4870, 10_000)])
def test_the_interval_is_wilsons(correct, n):
    share = correct / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low, high = wilson(correct, n)
    assert low == pytest.approx(centre - half, abs=1e-12)
    assert high == pytest.approx(centre + half, abs=1e-12)
    assert 0 <= low <= share <= high <= 1


@given(gained=st.integers(0, 60), lost=st.integers(0, 60))
def test_mcnemars_p_is_the_sum_of_the_binomials_that_are_no_likelier(gained, lost):
    differ = gained + lost
    tail = sum(math.comb(differ, k) for k in range(min(gained, lost) + 1)) / 2**differ
    assert Paired(1000, gained, lost).p == pytest.approx(min(1.0, 2 * tail), abs=1e-12)


def test_two_networks_are_compared_image_by_image():
    first = np.array([True, True, False, False, True])
    second = np.array([True, False, True, True, True])
    found = Paired.of(first, second)
    assert (found.n, found.gained, found.lost) == (5, 2, 1)
    assert found.difference == pytest.approx(0.2)
    assert Paired.of(second, first).difference == pytest.approx(-0.2)
    assert Paired.of(first, first).p == 1.0
    assert Paired.of(first, first).interval == (0.0, 0.0)


def test_the_bootstrap_is_one_of_images():
    """Against one that draws the images themselves."""
    drawing = np.random.default_rng(1)
    first, second = drawing.random((2, 400)) < np.array([[0.5], [0.55]])
    found = Paired.of(first, second)
    differences = second.astype(int) - first
    resampled = [drawing.choice(differences, 400).mean() for _ in range(4000)]
    assert found.interval == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.006)
    assert found.interval == found.interval
    assert found.interval.low < found.difference < found.interval.high


def test_the_pooled_interval_by_hand():
    values = np.array([[1.0, 0, 1, 1], [1, 0, 0, 1]])
    images = np.var([1, 0, 0.5, 1], ddof=1) / 4
    seeds = np.var([0.75, 0.5], ddof=1) / 2
    freedom = (images + seeds) ** 2 / (images**2 / 3 + seeds**2 / 1)
    from scipy.special import stdtrit

    half = stdtrit(freedom, 0.975) * math.sqrt(images + seeds)
    assert pooled(values) == pytest.approx((0.625 - half, 0.625 + half), abs=1e-12)


def test_without_any_variance_the_pooled_interval_is_a_point_and_one_seed_has_none():
    assert pooled(np.ones((3, 7))) == (1.0, 1.0)
    with pytest.raises(ValueError, match="one seed says nothing of others"):
        pooled(np.ones((1, 7)))


def test_one_image_among_ten_thousand_that_a_seed_got_right_is_a_variance():
    values = np.zeros((2, 10_000))
    values[0, 0] = 1
    low, high = pooled(values)
    assert low < values.mean() < high


@pytest.mark.parametrize(
    ("seeds", "images", "spread_of_images", "spread_of_seeds"),
    [(2, 200, 1.0, 0.05), (3, 300, 3.0, 0.1), (5, 1000, 2.0, 0.2), (5, 1000, 2.0, 0.0), (10, 200, 1.0, 0.3)],
)
@pytest.mark.parametrize("how", [pooled, pooled_accuracy])
def test_the_pooled_interval_holds_the_truth_as_often_as_it_says(how, seeds, images, spread_of_images, spread_of_seeds):
    """An image is right where its own ease, the seed's skill and chance add up to more than nothing."""
    drawing, held, widths, tries = np.random.default_rng(0), 0, [], 600
    truth = norm.cdf(0.3 / math.sqrt(spread_of_images**2 + spread_of_seeds**2 + 1))
    for _ in range(tries):
        ease = spread_of_images * drawing.standard_normal((1, images))
        skill = spread_of_seeds * drawing.standard_normal((seeds, 1))
        right = 0.3 + ease + skill + drawing.standard_normal((seeds, images)) > 0
        low, high = how(right.astype(float))
        held += low <= truth <= high
        widths.append(high - low)
    assert 0.925 < held / tries < 0.985  # 600 tries at 0.95 have a standard error of 0.009
    # An interval of the images alone would be this wide, or wider where the seeds add to it.
    assert np.mean(widths) > 2 * Z * np.sqrt(truth * (1 - truth) / images / seeds)


@pytest.mark.parametrize(("seeds", "images", "ease"), [(3, 200, -7.5), (5, 200, -7.5), (5, 297, 7.0), (5, 1000, -9.0)])
def test_that_of_an_accuracy_holds_it_near_0_and_1_too(seeds, images, ease):
    """Where Student's t alone held it in 88 to 93 of 100 cases."""
    drawing, held, tries = np.random.default_rng(0), 0, 600
    truth = norm.cdf(ease / math.sqrt(3.0**2 + 0.1**2 + 1))
    for _ in range(tries):
        draws = (3 * drawing.standard_normal((1, images)), 0.1 * drawing.standard_normal((seeds, 1)))
        right = ease + sum(draws) + drawing.standard_normal((seeds, images)) > 0
        low, high = pooled_accuracy(right.astype(float))
        assert 0 <= low < high <= 1
        held += low <= truth <= high
    assert held / tries > 0.935


def test_that_of_an_accuracy_is_wilson_s_of_as_many_images_as_have_its_variance():
    values = np.array([[1.0, 0, 1, 1], [1, 0, 0, 1]])
    low, high = pooled(values)
    half, mean = (high - low) / 2, values.mean()
    z = 7.0  # whatever it is: more images and a larger quantile are the same
    images = z**2 * mean * (1 - mean) / half**2
    middle = (mean + z**2 / (2 * images)) / (1 + z**2 / images)
    arm = z * math.sqrt(mean * (1 - mean) / images + z**2 / (4 * images**2)) / (1 + z**2 / images)
    assert pooled_accuracy(values) == pytest.approx((middle - arm, middle + arm), abs=1e-12)


def test_one_more_image_right_raises_both_ends():
    def of(*right):
        return pooled_accuracy(np.array([[index < many for index in range(200)] for many in right], dtype=float))

    none, one, three = of(0, 0, 0), of(0, 0, 1), of(1, 1, 1)
    assert none == wilson(0, 200)
    assert none.low == 0 < one.low < three.low
    assert three == pytest.approx(wilson(1, 200), rel=0.02)  # n - 1, and Student's t


def test_corrected_ps_are_holms():
    """The second number has three hypotheses left beside it, and the last one is no less than the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.3]) == [0.3]
    assert holm([]) == []


def test_of_many_tests_of_nothing_one_in_twenty_families_has_a_small_corrected_p():
    drawn = np.random.default_rng(0).random((2000, 30))
    found = np.mean([min(holm(list(family))) < 0.05 for family in drawn])
    assert np.mean(drawn.min(axis=1) < 0.05) > 0.7
    assert 0.035 < found < 0.065
