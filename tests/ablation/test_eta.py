"""How long runs will still take: by what is known, or not at all."""

import pytest

from advmix_cli.ablation.eta import Eta, etas, total
from advmix_cli.ablation.standing import Found, Standing

TWO = (Found("last", "pristine", 0.9, 1.0), Found("last", "PGD2", 0.5, 7.0))


@pytest.fixture
def recipe(tiny):
    return tiny("validation.report='last'", "schedule.epochs=10")


def stands(state, **more):
    return Standing(state, 10, wanted=2, **more)


def test_a_training_goes_on_at_its_own_pace_and_its_measuring_is_on_top(recipe):
    running = stands("running", epoch=4, pace=2.0, since=0.5)
    assert etas([(recipe, running)]) == [Eta(6 * 2.0 - 0.5, at_least=True)]
    # However long the last line is ago, no more than an epoch is taken for done.
    late = stands("running", epoch=4, pace=2.0, since=99.0)
    assert etas([(recipe, late)]) == [Eta(5 * 2.0, at_least=True)]
    # The clock of the files' machine may be ahead.
    early = stands("running", epoch=4, pace=2.0, since=-99.0)
    assert etas([(recipe, early)]) == [Eta(6 * 2.0, at_least=True)]
    # While nobody works in it, the time passes by it.
    assert etas([(recipe, stands("stopped", epoch=4, pace=2.0, since=99.0))]) == [Eta(12.0, at_least=True)]
    done = stands("done", epoch=10, trained=True, pace=3.0, found=TWO)
    assert etas([(recipe, running), (recipe, done)]) == [Eta(6 * 2.0 - 0.5 + 8.0), Eta(0.0)]
    measuring = stands("running", epoch=10, trained=True, pace=2.0, found=TWO[:1])
    assert etas([(recipe, measuring), (recipe, done)])[0] == Eta(7.0)
    # Each of two evaluators has two networks to measure.
    both = Standing("running", 10, epoch=10, trained=True, found=TWO, wanted=4)
    assert etas([(recipe, both), (recipe, done)])[0] == Eta(8.0)


def test_of_a_run_that_waits_nothing_is_known_but_by_one_like_it(recipe, tiny):
    waiting = stands("waiting")
    assert etas([(recipe, waiting)]) == [None]
    done = stands("done", epoch=10, trained=True, pace=3.0, found=TWO)
    assert etas([(recipe, waiting), (recipe, done)])[0] == Eta(30.0 + 8.0)
    other = tiny("validation.report='last'", "schedule.epochs=10", "model.width=8")
    assert etas([(other, waiting), (recipe, done)])[0] is None
    # 13 passes instead of 7: an epoch takes so many times as long.
    longer = tiny("validation.report='last'", "schedule.epochs=10", "maximizer.ascent.steps=5")
    assert etas([(longer, waiting), (recipe, done)])[0] == Eta(pytest.approx(30.0 * 13 / 7 + 8.0))
    # Unless one of the same passes has shown its pace.
    assert etas([(recipe, waiting), (recipe, done), (longer, done)])[0] == Eta(30.0 + 8.0)
    larger = tiny("validation.report='last'", "schedule.epochs=10", "schedule.batch_size=32")
    assert etas([(larger, waiting), (recipe, done)])[0] is None
    # An evaluator of the same name that is another one.
    stronger = tiny("validation.report='last'", "schedule.epochs=10", 'evaluators.1.step_size="4/255"')
    assert etas([(stronger, waiting), (recipe, done)])[0] == Eta(30.0 + 1.0, at_least=True)


def test_who_was_given_up_has_nothing_left(recipe):
    assert etas([(recipe, stands("failed", epoch=3)), (recipe, stands("diverged"))]) == [Eta(0.0), Eta(0.0)]


def test_all_of_them_take_as_long_as_the_last_worker(recipe):
    done = stands("done", epoch=10, trained=True, pace=1.0, found=TWO)
    runs = [(recipe, stands("waiting")), (recipe, stands("running", epoch=0, pace=1.0, since=0.0)), (recipe, done)]
    assert total(runs, 1) == Eta(36.0)
    assert total(runs, 2) == Eta(18.0)
    assert total([*runs, (recipe, stands("waiting"))], 2) == Eta(36.0)
    assert total(runs, 0) is None
    assert total([(recipe, stands("waiting"))], 1) is None


def test_those_that_run_come_first_whatever_their_place(recipe):
    done = stands("done", epoch=10, trained=True, pace=1.0, found=TWO)
    running = stands("running", epoch=0, pace=5.0, since=0.0)
    runs = [(recipe, stands("waiting")), (recipe, stands("waiting")), (recipe, running), (recipe, done)]
    assert etas(runs) == [Eta(38.0), Eta(38.0), Eta(58.0), Eta(0.0)]
    assert total(runs, 2) == Eta(38.0 + 38.0)


def test_what_is_at_least_of_one_is_so_of_all(recipe, tiny):
    running = (tiny("model.width=8", "validation.report='last'"), stands("running", epoch=4, pace=2.0, since=0.0))
    assert total([running, (recipe, stands("done", epoch=10, trained=True, found=TWO))], 1) == Eta(12.0, at_least=True)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (65.4, "1:05"), (3599.6, "1:00:00"), (90061, "1 d 1 h"), (4000, "1:06:40")]
)
def test_it_is_shown_as_a_clock(seconds, shown):
    assert str(Eta(seconds)) == shown
    assert str(Eta(seconds, at_least=True)) == f"> {shown}"
