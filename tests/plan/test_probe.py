"""What is measured on noise, and for which rows it is measured anew."""

import io
import math
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from advmix_cli import build, engine, machine
from advmix_cli.data.images import Dataset
from advmix_cli.data.outline import Outline
from advmix_cli.errors import MemoryExhaustedError
from advmix_cli.evaluation.predict import tf32_convolutions
from advmix_cli.plan import probe, timing
from advmix_cli.plan.estimate import estimates
from advmix_cli.plan.forecast import forecast
from advmix_cli.plan.looks import seconds_a_pass
from advmix_cli.plan.probe import probes, stand_in
from advmix_cli.recipe.table import Row
from advmix_cli.report.progress import Lines

CPU = torch.device("cpu")


@pytest.fixture
def probed(watch, monkeypatch):
    """probed(*recipes): [(row, estimate, probe), ...]; every measurement is one call."""
    monkeypatch.setattr(timing, "SECONDS", 0.0)
    monkeypatch.setattr(timing, "ROUND", 0.0)

    def run(*recipes):
        rows = [Row(f"row {number}", recipe, {}) for number, recipe in enumerate(recipes, 1)]
        found = estimates(recipes, print)
        return list(zip(rows, found, probes(rows, found, CPU, watch), strict=True))

    return run


def test_noise_has_as_many_images_as_the_dataset():
    for outline in (Outline((1, 8, 8), 3, 20, 4, 9), Outline((3, 8, 8), 2, 5, 0, 30)):
        assert Outline.of(stand_in(outline)) == outline


def test_rates_and_times_belong_together(tiny, probed):
    ((row, estimate, found),) = probed(tiny())
    assert 0 < found.speed.images_per_second < math.inf
    assert (found.speed.formulation, found.speed.peak_bytes, found.device) == ("eager", None, machine.device_name(CPU))
    told = forecast(row, estimate, found)
    # 128 images in 2 batches of 64, twice, each followed by the validation.
    assert told.epoch * found.speed.images_per_second == pytest.approx(128)
    assert told.training == pytest.approx(2 * (told.epoch + found.evaluation.validation.seconds))
    evaluators = found.evaluation.evaluators
    assert [one.name for one in evaluators] == ["pristine", "PGD2"]
    assert [(one.images, one.passes) for one in evaluators] == [(40, 1), (40, 1 + 2 * 2 + 1)]
    assert evaluators[1].seconds == pytest.approx(6 * evaluators[0].seconds)
    # 0.05 of 1,500 images are held out and 30 of them judged, as they are and by PGD with 2 steps.
    assert (found.evaluation.validation.images, found.evaluation.validation.passes) == (30, 1 + 1 + 2 * 2 + 1)
    assert told.reports == 2
    assert told.evaluation == pytest.approx(2 * sum(one.seconds for one in evaluators))


def test_without_validation_there_is_one_report(tiny, probed):
    ((row, estimate, found),) = probed(tiny("validation.fraction=0"))
    told = forecast(row, estimate, found)
    assert (found.evaluation.validation.images, found.evaluation.validation.seconds, told.reports) == (0, 0.0, 1)


def test_an_average_is_validated_and_measured_too(tiny, probed):
    plain, averaged = probed(tiny(), tiny('averaging={kind="ema"}'))
    assert (averaged[2].trained, averaged[2].judged) == ("row 2", "row 1")
    one, two = forecast(*plain), forecast(*averaged)
    assert (one.networks, two.networks, two.reports) == (1, 2, 4)
    assert two.validation == pytest.approx(2 * one.validation) == 2 * averaged[2].evaluation.validation.seconds
    assert two.training == pytest.approx(2 * (two.epoch + two.validation))
    assert two.evaluation == pytest.approx(2 * one.evaluation)


def test_validation_on_the_test_images(tiny, probed):
    ((_, _, found),) = probed(tiny('validation={on="test", steps=1}'))
    assert found.evaluation.validation.images == 40


def test_rows_share_what_takes_the_same_time(tiny, probed):
    lines = probed(tiny(), tiny("seed=1", "schedule.epochs=9"), tiny("maximizer.ascent.steps=1"), tiny("model.width=2"))
    assert [found.trained for _, _, found in lines] == ["row 1", "row 1", "row 3", "row 4"]
    assert [found.judged for _, _, found in lines] == ["row 1", "row 1", "row 1", "row 4"]


@pytest.mark.parametrize(
    ("setting", "trained", "judged"),
    [
        ("seed=1", 1, 1),
        ('optimizer={kind="sgd", lr=0.1}', 2, 1),
        ("schedule.batch_size=32", 2, 1),
        ("loss.pristine_weight=0.5", 2, 1),
        ("engine.threads=1", 2, 2),
        ("validation.steps=3", 2, 2),
        ("evaluators=[{kind='pristine'}]", 2, 2),
    ],
)
def test_a_row_that_takes_another_time_is_measured_anew(tiny, watch, monkeypatch, setting, trained, judged):
    monkeypatch.setattr(probe, "_speed", lambda *_: None)
    monkeypatch.setattr(probe, "_evaluation", lambda *_: None)
    recipes = tiny(), tiny(setting)
    rows = [Row(f"row {number}", recipe, {}) for number, recipe in enumerate(recipes, 1)]
    found = probes(rows, estimates(recipes, print), CPU, watch)[1]
    assert (found.trained, found.judged) == (f"row {trained}", f"row {judged}")


def test_a_training_that_is_long_enough_to_be_compiled_is_measured_anew(tiny, watch, monkeypatch):
    monkeypatch.setattr(probe, "_speed", lambda *_: None)
    monkeypatch.setattr(probe, "_evaluation", lambda *_: None)
    recipes = tiny(), tiny("schedule.epochs=9")
    rows, counted = [Row(str(number), recipe, {}) for number, recipe in enumerate(recipes)], estimates(recipes, print)
    monkeypatch.setattr(engine, "WORTH_COMPILING", counted[1].cost.training)
    assert [found.trained for found in probes(rows, counted, CPU, watch)] == ["0", "1"]


def test_on_a_gpu_validations_of_more_epochs_are_measured_anew(tiny, monkeypatch):
    monkeypatch.setattr(probe, "_speed", lambda *_: None)
    monkeypatch.setattr(probe, "_evaluation", lambda *_: None)
    monkeypatch.setattr(machine, "device_name", str)
    recipes = tiny(), tiny("schedule.epochs=9")
    rows = [Row(f"row {number}", recipe, {}) for number, recipe in enumerate(recipes, 1)]
    for place, judged in (("cpu", ["row 1", "row 1"]), ("cuda", ["row 1", "row 2"])):
        found = probes(rows, estimates(recipes, print), torch.device(place), Lines(Console(file=io.StringIO())))
        assert [one.judged for one in found] == judged


@pytest.mark.parametrize("wanted", [True, False])
def test_a_training_is_measured_with_its_own_algorithms(tiny, probed, monkeypatch, wanted):
    seen = set()

    def median_seconds(*_):
        seen.add(torch.are_deterministic_algorithms_enabled())
        return 1.0

    monkeypatch.setattr(probe, "median_seconds", median_seconds)
    probed(tiny(f"engine.deterministic={str(wanted).lower()}"))
    assert seen == {wanted}


def test_with_a_large_network_methods_of_the_same_passes_share_too(tiny, probed, monkeypatch):
    pair = tiny(), tiny('maximizer={kind="mix-then-attack", ascent={steps=2, step_size="8/255"}}')
    assert [found.trained for _, _, found in probed(*pair)] == ["row 1", "row 2"]
    for same_from in (1, estimates(pair, print)[0].cost.forward):
        monkeypatch.setattr(probe, "SAME_FROM", same_from)
        assert [found.trained for _, _, found in probed(*pair)] == ["row 1", "row 1"]


def test_what_is_measured_is_what_training_would_use(tiny, probed, monkeypatch):
    """Which formulation it is depends on the FLOPs of the whole training, not on those of the probe."""
    seen = []

    def candidates(_recipe, _place, flops, train_images, _team):
        seen.append((flops, train_images))
        return ["eager"], "for a test"

    monkeypatch.setattr(engine, "candidates", candidates)
    ((_, estimate, _),) = probed(tiny())
    assert seen == [(estimate.cost.training, 128)]


def test_a_batch_that_does_not_fit_is_told_with_advice(tiny, probed, monkeypatch):
    def prepare(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(engine, "prepare", prepare)
    with pytest.raises(MemoryExhaustedError, match=r"an eager batch of schedule\.batch_size = 64 fits by itself: "):
        probed(tiny())


def test_a_training_is_measured_with_the_recipes_threads(tiny, probed, monkeypatch):
    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr(probe, "median_seconds", lambda *_: seen.append(torch.get_num_threads()) or 1.0)
    try:
        probed(tiny("engine.threads=3"))
    finally:
        torch.set_num_threads(before)
    assert seen == [3]


def test_the_time_until_a_training_is_ready_is_its_preparation_and_its_memory_is_given_back(tiny, probed, monkeypatch):
    times, done = iter([10.0, 13.5]), []
    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    monkeypatch.setattr(probe, "release", lambda: done.append("released"))
    monkeypatch.setattr(probe, "largest_batch", lambda *_: done.append("looked for the largest batch"))
    ((_, _, found),) = probed(tiny())
    assert found.speed.preparation_seconds == 3.5
    assert done == ["released", "looked for the largest batch"]


def test_an_evaluators_images_are_looked_at_in_its_own_batches(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(probe, "seconds_a_pass", lambda _, images, *__: asked.append(len(images)) or 1.0)
    recipe = tiny("evaluators=[{kind='pristine', batch_size=16}, {kind='pgd', steps=1, step_size=0.1, batch_size=50}]")
    (estimate,) = estimates([recipe], print)
    probe._evaluation(recipe, estimate.outline, CPU)
    assert asked == [30, 16, 40]


class Narrow(torch.nn.Module):
    """Holds so many images at once, and no more."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.linear = limit, torch.nn.Linear(4, 2)

    def forward(self, x):
        if len(x) > self.limit:
            raise torch.OutOfMemoryError
        return self.linear(x.flatten(1))


def test_an_evaluation_that_does_not_fit_goes_in_halves():
    images = stand_in(Outline((1, 2, 2), 2, 16, 0, 16)).test
    assert 0 < seconds_a_pass(Narrow(4), images, CPU) < math.inf
    with pytest.raises(MemoryExhaustedError, match="with one image at a time"):
        seconds_a_pass(Narrow(0), images, CPU)


@pytest.mark.parametrize(("forward", "gradient", "seconds"), [(3.0, 16.0, 0.5), (12.0, 16.0, 0.75)])
def test_a_pass_is_a_forward_one_or_half_of_one_with_its_gradient_as_attacks_look(
    monkeypatch, forward, gradient, seconds
):
    times, within = iter([forward, gradient]), []

    @contextmanager
    def looking():
        within.append("begins")
        yield
        within.append("ends")

    monkeypatch.setattr("advmix_cli.plan.looks.median_seconds", lambda *_: within.append("timed") or next(times))
    images = stand_in(Outline((1, 2, 2), 2, 16, 0, 16)).test
    assert seconds_a_pass(Narrow(16), images, CPU, looking) == seconds
    assert within == ["begins", "timed", "timed", "ends"]


def test_another_fault_is_not_hidden(tiny, probed, monkeypatch):
    def prepare(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(engine, "prepare", prepare)
    with pytest.raises(ZeroDivisionError):
        probed(tiny())
    images = stand_in(Outline((1, 2, 2), 2, 4, 0, 4)).test
    with pytest.raises(RuntimeError):
        seconds_a_pass(torch.nn.Linear(3, 2), images, CPU)


def test_for_a_gpu_long_evaluations_are_timed_as_attacks_look_and_what_is_only_judged_in_full_fp32(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(Dataset, "to", lambda images, _place: images)
    monkeypatch.setattr(build, "new_network", lambda *_: None)
    monkeypatch.setattr(probe, "worth_compiling", lambda *args: asked.append(args[3]) or True)
    monkeypatch.setattr(probe, "seconds_a_pass", lambda *args: 1.0 if args[3] is tf32_convolutions else 4.0)
    recipe = tiny()
    (estimate,) = estimates([recipe], print)
    found = probe._evaluation(recipe, estimate.outline, torch.device("cuda"))
    each = [one.seconds / one.passes / one.images for one in (*found.evaluators, found.validation)]
    assert each == [4.0, 1.0, 1.0]
    pristine, pgd = (one.passes * one.images for one in found.evaluators)
    assert sorted(asked) == sorted([pristine + pgd, recipe.schedule.epochs * found.validation.seconds])
