"""Outcomes: Wilson's interval, and what is derived from the counts."""

import json
import math

import pytest

from advmix_cli.evaluation.outcome import Outcome

Z = 1.959963984540054  # the 97.5% quantile of the normal distribution


@pytest.mark.parametrize(("correct", "n"), [(0, 1), (1, 1), (0, 360), (360, 360), (1, 7), (183, 360), (4870, 10_000)])
def test_the_interval_is_wilsons(correct, n):
    share = correct / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low, high = Outcome("x", n, correct, {"clean": n - correct}, 0.0, {}, {}, "v").interval
    assert low == pytest.approx(centre - half, abs=1e-12)
    assert high == pytest.approx(centre + half, abs=1e-12)
    assert 0 <= low <= share <= high <= 1


def test_json_holds_counts_fractions_and_settings_and_comes_back():
    outcome = Outcome("PGD20", 8, 5, {"clean": 1, "pgd": 2}, 1.25, {"steps": 20}, {"torch": "2"}, "v")
    document = json.loads(json.dumps(outcome.to_json()))
    assert document["accuracy"] == 0.625
    assert (document["low"], document["high"]) == outcome.interval
    assert Outcome.from_json(document) == outcome
