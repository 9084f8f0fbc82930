"""The learning rate at the edges of its schedule."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advmix_cli.training.schedules import Cosine, OneCycle, Steps

progress = st.floats(0, 1)
share = st.floats(0.01, 0.99)


def at(schedule, *, epoch, epochs, step=0, steps=11):
    """The factor of a step, counted from 0, of an epoch, counted from 1."""
    return schedule((epoch - 1 + step / steps) / epochs)


def test_seven_tenths_of_thirty_epochs_end_after_epoch_21():
    schedule = Steps((0.7, 0.9), 0.1)
    assert at(schedule, epoch=1, epochs=30) == 1
    assert at(schedule, epoch=21, epochs=30, step=10) == 1
    assert at(schedule, epoch=22, epochs=30) == 0.1
    assert at(schedule, epoch=27, epochs=30, step=10) == 0.1
    assert at(schedule, epoch=28, epochs=30) == pytest.approx(0.01)
    assert at(schedule, epoch=30, epochs=30, step=10) == pytest.approx(0.01)


@given(st.integers(2, 500).flatmap(lambda epochs: st.tuples(st.integers(1, epochs - 1), st.just(epochs))))
@settings(max_examples=200)
def test_a_drop_after_a_whole_number_of_epochs_is_on_the_first_step_of_the_next(case):
    whole, epochs = case
    schedule = Steps((whole / epochs,), 0.5)
    assert at(schedule, epoch=whole, epochs=epochs, step=389, steps=390) == 1
    assert at(schedule, epoch=whole + 1, epochs=epochs) == 0.5


def test_a_drop_an_ulp_late_is_not_a_step_late():
    assert at(Steps((math.nextafter(0.7, 1),), 0.1), epoch=22, epochs=30) == 0.1


def test_no_drops_are_a_constant():
    assert {Steps((), 0.1)(each / 10) for each in range(10)} == {1}


def test_cosine_starts_at_zero_peaks_after_the_warmup_and_ends_at_final():
    schedule = Cosine(warmup=0.2, final=0.05)
    assert schedule(0.0) == 0
    assert schedule(0.1) == pytest.approx(0.5)
    assert schedule(0.2) == 1
    assert schedule(0.6) == pytest.approx((1 + 0.05) / 2)
    assert schedule(1.0) == pytest.approx(0.05)


def test_cosine_without_a_warmup_starts_at_the_top():
    assert Cosine(warmup=0.0, final=0.0)(0.0) == 1


def test_one_cycle_goes_from_initial_over_one_to_final():
    schedule = OneCycle(peak=0.4, initial=0.1, final=0.01)
    assert schedule(0.0) == pytest.approx(0.1)
    assert schedule(0.2) == pytest.approx((0.1 + 1) / 2)
    assert schedule(0.4) == 1
    assert schedule(0.7) == pytest.approx((1 + 0.01) / 2)
    assert schedule(1.0) == pytest.approx(0.01)


@pytest.mark.parametrize(
    "make",
    [lambda turn, low: Cosine(turn, low), lambda turn, low: OneCycle(turn, low, low)],
    ids=["cosine", "one-cycle"],
)
@given(turn=share, low=st.floats(0, 1), early=progress, late=progress)
@settings(max_examples=150)
def test_the_rate_rises_to_the_turn_falls_from_there_and_stays_within_its_limits(make, turn, low, early, late):
    early, late = sorted((early, late))
    schedule, slack = make(turn, low), 1e-12
    first, second = schedule(early), schedule(late)
    if late < turn:
        assert first <= second + slack
    if early >= turn:
        assert first >= second - slack
        assert second >= low - slack
    assert 0 <= first <= 1 + slack


@given(early=progress, late=progress, drops=st.lists(share, max_size=4).map(sorted))
@settings(max_examples=100)
def test_steps_never_rise(early, late, drops):
    schedule = Steps(drops, 0.3)
    early, late = sorted((early, late))
    assert schedule(early) >= schedule(late)
    assert schedule(0.0) == 1
    assert schedule(1.0) == pytest.approx(0.3 ** len(drops))
