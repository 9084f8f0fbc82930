"""How long work takes, and how often it is done to find out."""

import time

import torch

from advmix_cli.plan import timing
from advmix_cli.plan.timing import median_seconds

CPU = torch.device("cpu")


def test_a_call_takes_what_it_takes():
    """A round is ten calls."""
    assert 0.0199 < median_seconds(lambda: time.sleep(0.02), CPU, rounds=3) < 0.199


def test_slow_work_is_warmed_up_once_and_measured_once(monkeypatch):
    calls = []
    monkeypatch.setattr(timing, "SECONDS", 0.01)
    median_seconds(lambda: (calls.append(1), time.sleep(0.02)), CPU)
    # The median of one round; a round of slow work is a fifth of a second at least.
    assert 2 <= len(calls) <= 12


def test_quick_work_is_warmed_up_twice_and_measured_in_rounds():
    calls = []
    median_seconds(lambda: (calls.append(1), time.sleep(0.3)), CPU, rounds=3)
    assert len(calls) == 2 + 3


def test_the_median_of_the_rounds_counts(monkeypatch):
    times = iter([9.0, 0.5, 1.0, 30.0, 2.0])  # two to warm up, and three rounds
    monkeypatch.setattr(timing, "seconds", lambda *_, **__: next(times))
    assert median_seconds(print, CPU, rounds=3) == 2.0
