"""The order of the measurements, and what is made of them."""

import pytest
import torch

from advmix_cli.bench.race import Race, race


def test_every_arm_runs_in_every_round_in_an_order_that_rotates():
    ran = []
    found = race({name: lambda name=name: ran.append(name) for name in "abc"}, torch.device("cpu"), 4, lambda: None)
    assert found.batches == 50  # of arms that take no time
    assert "".join(ran[:6]) == "abcabc"
    rounds = "".join(ran[6:][::50])
    assert rounds == "abc" + "bca" + "cab" + "abc"
    assert {name: len(seconds) for name, seconds in found.seconds.items()} == {"a": 4, "b": 4, "c": 4}


def test_ratios_are_taken_round_by_round():
    # The third round was slow for both: the ratio of the medians, or of the totals, would be another one.
    found = Race({"slow": [2.0, 4.0, 30.0], "fast": [1.0, 1.0, 10.0]}, 1)
    assert found.ratio("slow", "fast") == (3.0, 2.0, 4.0)
    assert found.spread("slow") == (4.0, 2.0, 30.0)


def test_ticks_count_the_measurements():
    ticks = []
    race({"a": lambda: None, "b": lambda: None}, torch.device("cpu"), 3, lambda: ticks.append(1))
    assert len(ticks) == 6


@pytest.mark.parametrize("seconds", [[1.0], [3.0, 1.0], [5.0, 1.0, 2.0]])
def test_the_median_lies_in_the_range(seconds):
    median, low, high = Race({"a": seconds}, 1).spread("a")
    assert low == min(seconds) <= median <= high == max(seconds)
