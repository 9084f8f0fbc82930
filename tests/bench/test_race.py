"""The order of the measurements, and what is made of them."""

from time import sleep

import pytest
import torch

from advmix_cli.bench.race import Race, race
from advmix_cli.errors import StoppedError


def test_every_arm_runs_in_every_round_in_an_order_that_rotates():
    ran = []
    found = race({name: lambda name=name: ran.append(name) for name in "abc"}, torch.device("cpu"), 4, lambda: None)
    assert found.batches == 50  # of arms that take no time
    assert "".join(ran[:6]) == "abcabc"
    rounds = "".join(ran[6:][::50])
    assert rounds == "abc" + "bca" + "cab" + "abc"
    assert {name: len(seconds) for name, seconds in found.seconds.items()} == {"a": 4, "b": 4, "c": 4}


def test_seconds_are_of_one_batch_and_the_fastest_arm_says_how_many_are_timed_together(monkeypatch):
    monkeypatch.setattr("advmix_cli.clock.seconds", lambda arm, _device, calls: calls * arm())
    found = race({"slow": lambda: 0.8, "fast": lambda: 0.3}, torch.device("cpu"), 2, lambda: None)
    assert found == Race({"slow": [0.8, 0.8], "fast": [0.3, 0.3]}, 2)  # half a second is two batches of the fastest


def test_the_median_of_two_rounds_is_between_them():
    assert Race({"a": [1.0, 3.0]}, 1).spread("a") == (2.0, 1.0, 3.0)


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


@pytest.mark.parametrize(("at", "whole"), [(7, 2), (9, 3), (4, 1)])
def test_what_is_stopped_gives_the_rounds_that_are_whole(monkeypatch, at, whole):
    """Of three arms that run twice first, and then once a round."""
    ran = []

    def arm():
        ran.append(1)
        if len(ran) == 6 + at + 1:
            raise StoppedError("stopped by a test", 143)
        sleep(0.001)

    monkeypatch.setattr("advmix_cli.bench.race.TOGETHER", 0.0)
    found = race(dict.fromkeys("abc", arm), torch.device("cpu"), 5, lambda: None)
    assert str(found.stopped) == "stopped by a test"
    assert found.rounds == whole
    assert {len(seconds) for seconds in found.seconds.values()} == {whole}


def test_without_a_whole_round_there_is_nothing_to_give(monkeypatch):
    ran = []

    def arm():
        ran.append(1)
        if len(ran) == 6:
            raise StoppedError("stopped by a test", 143)

    monkeypatch.setattr("advmix_cli.bench.race.TOGETHER", 0.0)
    with pytest.raises(StoppedError, match="stopped by a test"):
        race({"a": arm, "b": arm}, torch.device("cpu"), 5, lambda: None)


def test_what_is_stopped_says_how_many_batches_were_timed_together(monkeypatch):
    times = iter([0.25, 0.5, 0.5, StoppedError("stopped by a test", 143)])

    def seconds(*_):
        found = next(times)
        if isinstance(found, StoppedError):
            raise found
        return found

    monkeypatch.setattr("advmix_cli.clock.seconds", seconds)
    found = race({"a": lambda: None}, torch.device("cpu"), 5, lambda: None)
    assert (found.seconds, found.batches) == ({"a": [0.25, 0.25]}, 2)
