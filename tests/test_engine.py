"""Which formulation a training gets: the choice, the rehearsal that it must pass, and that nothing of it is left."""

import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import tomli_w
import torch
from compilers import failing, warnings
from kinds import kinds_of

from advmix_cli import build, engine
from advmix_cli.builders import loop, method
from advmix_cli.engine import cpu_has_bf16
from advmix_cli.errors import DeviceError, EngineError
from advmix_cli.method.ascent import ascent_step, sign
from advmix_cli.recipe import schema
from advmix_cli.recipe.load import load
from advmix_cli.training.accelerate import Compilation, Replayed
from advmix_cli.training.batch import OnBatch
from advmix_cli.training.step import update_loss
from advmix_cli.training.yogi import yogi_update

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LITTLE, MUCH = 123_456_789_000, int(2.5e15)


@pytest.fixture(autouse=True)
def bf16_units(monkeypatch):
    """On a CPU without them nothing in bf16 would be compiled."""
    monkeypatch.setattr(engine, "cpu_has_bf16", lambda: True)


def prepared_parts(recipe):
    images = build.dataset(recipe, CPU, print)
    return images, build.new_network(recipe, images, CPU)


# ---- the choice ----------------------------------------------------------------------------------------------------


CHOICES = [
    ("off", CPU, MUCH, ["eager"], "as the recipe says"),
    ("off", GPU, MUCH, ["eager"], "as the recipe says"),
    ("step", CPU, LITTLE, ["compiled", "eager"], "as the recipe says"),
    ("step", GPU, LITTLE, ["compiled", "eager"], "as the recipe says"),
    ("graph", GPU, LITTLE, ["captured", "reduce-overhead"], "as the recipe says"),
    ("auto", GPU, LITTLE, ["eager"], "the default for a training of 0.123 TFLOP on a GPU"),
    ("auto", GPU, MUCH, ["captured", "reduce-overhead", "eager"], "the default for a training of 2.5 PFLOP on a GPU"),
    ("auto", CPU, LITTLE, ["eager"], "the default for a training of 0.123 TFLOP on a CPU"),
    ("auto", CPU, int(1e15) - 1, ["eager"], "the default for a training of 1e+03 TFLOP on a CPU"),
    ("auto", CPU, int(1e15), ["compiled", "eager"], "the default for a training of 1 PFLOP on a CPU"),
    ("auto", CPU, MUCH, ["compiled", "eager"], "the default for a training of 2.5 PFLOP on a CPU"),
]


def wanting(tiny, wanted, *settings):
    return tiny(f'engine.compile="{wanted}"', *settings)


@pytest.mark.parametrize(("wanted", "place", "flops", "expected", "why"), CHOICES)
def test_the_choice_follows_the_recipe_the_device_and_the_length(tiny, caplog, wanted, place, flops, expected, why):
    assert engine.candidates(wanting(tiny, wanted), place, flops, 128) == (expected, why)
    assert warnings(caplog) == []


@pytest.mark.parametrize("settings", [[], ["schedule.batch_size=1000"]])
def test_a_graph_without_a_gpu_is_refused(tiny, caplog, settings):
    with pytest.raises(DeviceError) as caught:
        engine.candidates(wanting(tiny, "graph", *settings), CPU, LITTLE, 128)
    assert str(caught.value) == 'engine.compile = "graph" needs a CUDA GPU, and the device is cpu'
    assert caught.value.exit_code == 2
    assert warnings(caplog) == []


TOO_LARGE = "schedule.batch_size = 129, but there are only 128 training images: each epoch is one batch of them all"
EMULATED = 'this CPU has no bf16 units, so engine.precision = "bf16" is emulated: slower than "fp32"'


@pytest.mark.parametrize("wanted", ["off", "step", "auto"])
@pytest.mark.parametrize("place", [CPU, GPU], ids=str)
def test_a_batch_larger_than_the_training_set_is_eager_and_said_once(tiny, caplog, wanted, place):
    recipe = wanting(tiny, wanted, "schedule.batch_size=129")
    assert engine.candidates(recipe, place, MUCH, 128) == (["eager"], TOO_LARGE)
    assert warnings(caplog) == [f"training is eager: {TOO_LARGE}"]


def test_a_graph_of_a_batch_larger_than_the_training_set_is_an_error(tiny, caplog):
    with pytest.raises(EngineError) as caught:
        engine.candidates(wanting(tiny, "graph", "schedule.batch_size=129"), GPU, MUCH, 128)
    assert str(caught.value) == f'engine.compile = "graph": {TOO_LARGE}'
    assert caught.value.exit_code == 1
    assert warnings(caplog) == []


def test_a_batch_as_large_as_the_training_set_is_no_obstacle(tiny, caplog):
    recipe = wanting(tiny, "step", "schedule.batch_size=128")
    assert engine.candidates(recipe, CPU, MUCH, 128) == (["compiled", "eager"], "as the recipe says")
    assert warnings(caplog) == []


@pytest.mark.parametrize("wanted", ["off", "step", "auto"])
def test_emulated_bf16_is_eager_and_said_once(tiny, caplog, monkeypatch, wanted):
    monkeypatch.setattr(engine, "cpu_has_bf16", lambda: False)
    recipe = wanting(tiny, wanted, 'engine.precision="bf16"')
    assert engine.candidates(recipe, CPU, MUCH, 128) == (["eager"], EMULATED)
    assert warnings(caplog) == [f"training is eager: {EMULATED}"]


def test_bf16_units_or_a_gpu_are_no_obstacle(tiny, caplog, monkeypatch):
    recipe = tiny('engine.precision="bf16"')
    monkeypatch.setattr(engine, "cpu_has_bf16", lambda: False)
    assert engine.candidates(recipe, GPU, MUCH, 128)[0] == ["captured", "reduce-overhead", "eager"]
    monkeypatch.setattr(engine, "cpu_has_bf16", lambda: True)
    assert engine.candidates(recipe, CPU, MUCH, 128)[0] == ["compiled", "eager"]
    assert warnings(caplog) == []


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16", "arm_bf16", "sve_bf16"])
def test_bf16_units_are_those_of_the_processor(monkeypatch, name):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, name: True})
    assert cpu_has_bf16()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, name: False, "cpu_name": "bf16"})
    assert not cpu_has_bf16()


# ---- nothing is left of a rehearsal --------------------------------------------------------------------------------


OPTIMIZERS = [
    'kind="sgd", lr=0.1, momentum=0.0',
    'kind="sgd", lr=0.1, weight_decay=0.01',
    'kind="sgd", lr=0.1, nesterov=true',
    'kind="adam", lr=0.01, weight_decay=0.01',
    'kind="adamw", lr=0.01',
    'kind="yogi", lr=0.01, initial_accumulator=0.1',
]


def test_every_optimizer_of_a_recipe_is_among_them():
    assert kinds_of(schema.Optimizer) == {text.split('"')[1] for text in OPTIMIZERS}


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("already", [0, 2])
@pytest.mark.parametrize("text", OPTIMIZERS)
def test_a_training_goes_on_as_if_it_had_not_been_rehearsed(tiny, text, already):
    recipe = tiny(f"optimizer={{{text}}}", "schedule.batch_size=16")

    def trained(rehearsals):
        images, network = prepared_parts(recipe)
        training = build.training(recipe, images, network)
        order, other = training.order(1), training.order(2)
        figures = []
        for index in range(5):
            if index == already and rehearsals:
                with engine.undone(training):
                    for again in range(rehearsals):
                        training.on_batch(training.draw(other, 2, again))
            figures.append(
                {name: float(value) for name, value in training.on_batch(training.draw(order, 1, index)).items()}
            )
        return figures, network.state_dict(), training.optimizer.state_dict()["state"]

    (expected, weights, kept), (found, other_weights, other_kept) = trained(0), trained(3)
    assert found == expected
    for name, value in weights.items():
        assert torch.equal(other_weights[name], value), name
    for number, values in kept.items():
        for name, value in values.items():
            other = other_kept[number][name]
            assert other is value is None or torch.equal(other, value), name


@pytest.mark.usefixtures("shallow")
def test_what_is_undone_stays_where_it_is_in_memory_even_after_an_error(tiny):
    recipe = tiny('optimizer={kind="yogi", lr=0.01}')
    training = build.training(recipe, *prepared_parts(recipe))
    tensors = [*training.network.state_dict().values(), *engine._state(training.optimizer)]
    before = [(value.data_ptr(), value.clone()) for value in tensors]

    def fail():
        with engine.undone(training):
            training.on_batch(training.draw(training.order(1), 1, 0))
            assert not all(torch.equal(value, old) for value, (_, old) in zip(tensors, before, strict=True))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    found = [*training.network.state_dict().values(), *engine._state(training.optimizer)]
    for value, (address, old) in zip(found, before, strict=True):
        assert value.data_ptr() == address
        assert torch.equal(value, old)


# ---- the rehearsal -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("shallow", "traced")
@pytest.mark.parametrize(
    "settings",
    [
        ['maximizer.kind="integrated"'],
        ['optimizer={kind="yogi", lr=0.01}', 'maximizer={kind="none"}'],
        ['engine.precision="bf16"', 'maximizer.kind="attack-then-mix"', "maximizer.ascent.steps=0"],
    ],
)
def test_a_prepared_training_starts_from_the_network_as_it_was_and_trains_as_eager_code_does(tiny, caplog, settings):
    recipe = tiny('engine.compile="step"', *settings)
    images, network = prepared_parts(recipe)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    prepared = engine.prepare(recipe, images, network, CPU)
    assert prepared.formulation == "compiled"
    assert prepared.training.network is network
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert prepared.difference == engine.Difference(0, 0, 0, 0, 0)
    assert prepared.compilation.breaks == 0
    assert Compilation.so_far() == prepared.compilation
    assert warnings(caplog) == []
    assert str(prepared).startswith(
        f"engine: compiled, as the recipe says; {prepared.compilation.graphs} graphs, no breaks, ready after "
    )
    eager = build.training(recipe, *prepared_parts(recipe))
    expected, found = list(eager.run(lambda _: None)), list(prepared.training.run(lambda _: None))
    assert [epoch.figures for epoch in found] == [epoch.figures for epoch in expected]
    for name, value in eager.network.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    assert Compilation.so_far() == prepared.compilation


def test_a_short_training_on_a_cpu_is_eager_by_default_and_compiles_nothing(tiny, caplog, monkeypatch):
    monkeypatch.setattr(torch, "compile", pytest.fail)
    recipe = tiny()
    prepared = engine.prepare(recipe, *prepared_parts(recipe), CPU)
    assert prepared.formulation == "eager"
    assert str(prepared).startswith("engine: eager, the default for a training of 0.")
    assert warnings(caplog) == []


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize(
    "compiler", [failing, lambda *_arguments, **_settings: failing], ids=["at once", "when called"]
)
def test_a_compiler_that_fails_leaves_the_training_eager_with_one_warning(tiny, caplog, monkeypatch, compiler):
    monkeypatch.setattr(torch, "compile", compiler)
    recipe = tiny('engine.compile="step"')
    images, network = prepared_parts(recipe)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    prepared = engine.prepare(recipe, images, network, CPU)
    assert str(prepared) == "engine: eager, compiled failed: RuntimeError: no compiler here"
    assert warnings(caplog) == ["training is eager: compiled failed: RuntimeError: no compiler here"]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    plain = build.training(recipe, *prepared_parts(recipe))
    for expected, found in zip(plain.run(lambda _: None), prepared.training.run(lambda _: None), strict=True):
        assert found.figures == expected.figures


@pytest.mark.usefixtures("shallow")
@pytest.mark.skipif(torch.cuda.is_available(), reason="captures where there is a GPU")
def test_a_graph_that_cannot_be_captured_is_an_error_if_the_recipe_wants_it_and_eager_if_not(tiny, caplog, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *_arguments, **_settings: failing)
    images, network = prepared_parts(tiny())
    with pytest.raises(EngineError) as caught:
        engine.prepare(tiny('engine.compile="graph"'), images, network, GPU)
    assert caught.value.exit_code == 1
    first, second = str(caught.value).split("; ")
    assert first.startswith('engine.compile = "graph": captured failed: ')
    assert second == "reduce-overhead failed: RuntimeError: no compiler here"
    assert warnings(caplog) == []
    monkeypatch.setattr(engine, "WORTH_COMPILING", 1)
    prepared = engine.prepare(tiny(), images, network, GPU)
    assert str(prepared).startswith("engine: eager, captured failed: ")
    (warning,) = warnings(caplog)
    assert warning.startswith("training is eager: captured failed: ")
    assert warning.endswith("; reduce-overhead failed: RuntimeError: no compiler here")


@pytest.mark.usefixtures("shallow", "traced")
@pytest.mark.skipif(torch.cuda.is_available(), reason="captures where there is a GPU")
def test_the_second_way_is_not_taken_without_a_word(tiny, caplog, monkeypatch):
    monkeypatch.setattr(engine, "candidates", lambda *_: (["captured", "compiled", "eager"], "for a test"))
    recipe = tiny()
    assert engine.prepare(recipe, *prepared_parts(recipe), CPU).formulation == "compiled"
    (warning,) = warnings(caplog)
    assert warning.startswith("training is compiled: captured failed: ")


@pytest.mark.usefixtures("shallow")
def test_running_out_of_memory_is_not_a_reason_to_train_eagerly(tiny, monkeypatch):
    def exhausted(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda *_arguments, **_settings: exhausted)
    recipe = tiny('engine.compile="step"')
    with pytest.raises(torch.OutOfMemoryError):
        engine.prepare(recipe, *prepared_parts(recipe), CPU)


def stands_still(objective, variables):
    _, reached = ascent_step(objective, variables)
    return [variable.value.detach() for variable in variables], reached


def descends(objective, variables):
    return ascent_step(objective, [replace(variable, direction=lambda slope: -sign(slope)) for variable in variables])


def blind(objective, variables):
    moved, reached = ascent_step(objective, variables)
    return [value * float("nan") for value in moved], reached


def half_the_gradient(*arguments):
    loss, parts = update_loss(*arguments)
    return loss / 2 + loss.detach() / 2, parts


def on_unattacked_images(logits, divergence, weight, found):
    return update_loss(logits, divergence, weight, found._replace(x=found.x_pristine))


def not_a_number(*arguments):
    loss, parts = update_loss(*arguments)
    return loss * float("nan"), parts


def does_nothing(*_):
    pass


def half_the_rate(*arguments):
    yogi_update(*arguments[:4], arguments[4] / 2, *arguments[5:])


def another_decay(*arguments):
    yogi_update(*arguments[:-1], 0.1)


class FirstRate:
    """As if the rate had been captured as a number."""

    rate = None

    def __call__(self, *arguments):
        self.rate = arguments[4].clone() if self.rate is None else self.rate
        yogi_update(*arguments[:4], self.rate, *arguments[5:])


class FirstBias:
    """As if what the second moment is divided by had been captured as a number: right in the first step."""

    root = None

    def __call__(self, *arguments):
        self.root = arguments[5].clone() if self.root is None else self.root
        yogi_update(*arguments[:5], self.root, *arguments[6:])


WRONG = [
    (ascent_step, stands_still, "fp32"),
    (ascent_step, descends, "fp32"),
    (ascent_step, blind, "fp32"),
    (update_loss, half_the_gradient, "fp32"),
    (update_loss, half_the_gradient, "bf16"),
    (update_loss, on_unattacked_images, "fp32"),
    (update_loss, not_a_number, "fp32"),
    (yogi_update, does_nothing, "fp32"),
    (yogi_update, half_the_rate, "bf16"),
    (yogi_update, another_decay, "bf16"),
    (yogi_update, FirstRate(), "fp32"),
    (yogi_update, FirstBias(), "bf16"),
]


def disguised(monkeypatch, right, other):
    """The builders get `other` where it asks for a compiled form of `right`."""

    def formed(function, formulation, *, dynamic=False):  # noqa: ARG001
        return other if function is right and formulation != "eager" else function

    for place in (loop, method):
        monkeypatch.setattr(place, "formed", formed)


@pytest.mark.parametrize(("right", "wrong", "precision"), WRONG)
def test_a_formulation_that_computes_something_else_is_not_used(caplog, monkeypatch, right, wrong, precision):
    disguised(monkeypatch, right, wrong)
    settings = [f'engine={{compile="step", precision="{precision}"}}', "data.train_limit=256", "model.width=4"]
    recipe = load("digits", [*settings, 'optimizer={kind="yogi", lr=0.01, weight_decay=5e-4}'])
    images, network = prepared_parts(recipe)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    prepared = engine.prepare(recipe, images, network, CPU)
    assert prepared.formulation == "eager"
    (warning,) = warnings(caplog)
    assert warning.startswith("training is eager: compiled computes something else: beside eager, losses within ")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert prepared.training.on_batch.step.loss is update_loss
    assert prepared.training.on_batch.step.maximizer.pgd.step is ascent_step


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_ascent_that_does_not_move_the_running_statistics_is_not_used(caplog, monkeypatch, precision):
    """Losses, gradients and updates are those of a batch alone; a network in eval mode is another one."""
    settings = [f'engine={{compile="step", precision="{precision}"}}', "data.train_limit=256", "model.width=4"]
    images, network = prepared_parts(recipe := load("digits", settings))

    def still(objective, variables):
        kept = [value.clone() for value in network.buffers()]
        done = ascent_step(objective, variables)
        for value, before in zip(network.buffers(), kept, strict=True):
            value.copy_(before)
        return done

    disguised(monkeypatch, ascent_step, still)
    assert engine.prepare(recipe, images, network, CPU).formulation == "eager"
    (warning,) = warnings(caplog)
    assert "losses within 0.0e+00, gradients within 0.0e+00, attacked losses within 0.0e+00" in warning
    assert 0.3 < float(warning.split("statistics within ")[1].split(",")[0]) < 1


@pytest.mark.usefixtures("shallow", "traced")
def test_a_rehearsal_leaves_no_gradients_and_keeps_no_copy_of_the_weights_that_is_not_looked_at(tiny, monkeypatch):
    kept = []
    true = engine._difference
    monkeypatch.setattr(engine, "_difference", lambda *args, **how: kept.extend(args) or true(*args, **how))
    recipe = tiny('engine.compile="step"')
    images, network = prepared_parts(recipe)
    engine.prepare(recipe, images, network, CPU)
    expected, found = kept
    size = len(list(network.parameters()))
    assert [[len(one.gradients), len(one.moved)] for one in expected] == [[size, 0], [0, 0], [0, 0]]
    assert [[len(one.gradients), len(one.moved)] for one in found] == [[size, 0], [0, 0], [size, size]]
    assert all(value.grad is None for value in network.parameters())


def replaying(on_batch, example):
    """As a captured graph does it: gradients are written where they were at the capture, and `.grad` is not set."""
    weights, static = list(on_batch.step.network.parameters()), example.copy()
    for _ in range(4):
        on_batch(static)
    written = [value.grad for value in weights]

    def replay():
        said = [value.grad for value in weights]
        figures = on_batch(static)
        for value, place, own in zip(weights, written, said, strict=True):
            place.copy_(value.grad)
            value.grad = own
        return figures

    return Replayed(static, replay, on_batch)


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("text", OPTIMIZERS)
def test_what_a_graph_has_captured_passes_its_rehearsal(tiny, monkeypatch, text):
    monkeypatch.setattr(torch, "compile", lambda function, **_settings: function)
    monkeypatch.setattr(engine, "captured", replaying)
    recipe = tiny(f"optimizer={{{text}}}", "schedule.batch_size=16")
    images, network = prepared_parts(recipe)
    found = engine.rehearsed(recipe, images, network, "captured")
    assert found.difference == engine.Difference(0, 0, 0, 0, 0)
    assert all(value.grad is None for value in network.parameters())


@pytest.mark.usefixtures("shallow")
def test_what_torch_captures_itself_was_recorded_before_and_passes_its_rehearsal(tiny, monkeypatch):
    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch, "compile", lambda function, **_settings: function)
    marks, times = [], iter([10.0, 17.5])
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(len(seen)))
    monkeypatch.setattr(engine, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    recipe = tiny("schedule.batch_size=16", "maximizer.ascent.steps=5")
    images, network = prepared_parts(recipe)
    seen, true = [], OnBatch.__call__

    def watched(self, batch):
        seen.append((self.step.maximizer.pgd.steps, float(self.step.optimizer.param_groups[0]["lr"])))
        return true(self, batch)

    monkeypatch.setattr(OnBatch, "__call__", watched)
    monkeypatch.setitem(counters["stats"], "unique_graphs", 3)
    found = engine.rehearsed(recipe, images, network, "reduce-overhead")
    assert found.difference == engine.Difference(0, 0, 0, 0, 0)
    assert (found.formulation, found.seconds, found.compilation) == ("reduce-overhead", 7.5, Compilation(0, 0))
    # Eagerly once; each part is called and recorded before it is looked at, the whole of them at another rate.
    assert [steps for steps, _ in seen] == [0, 1, 5, *[0] * 3, *[1] * 3, *[5] * 3]
    assert [rate for _, rate in seen] == pytest.approx([*[0.01] * 11, 0.005])
    assert len(marks) == 9


def test_what_was_compiled_before_is_forgotten_before_a_training_is_prepared(tiny):
    from torch._dynamo.utils import counters

    recipe = tiny()
    counters["stats"]["unique_graphs"] = 3
    engine.prepare(recipe, *prepared_parts(recipe), CPU)
    assert Compilation.so_far() == Compilation(0, 0)


@pytest.mark.parametrize("right", [ascent_step, update_loss, yogi_update])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_another_form_of_the_same_function_is_used(caplog, monkeypatch, right, precision):
    disguised(monkeypatch, right, lambda *arguments: right(*arguments))
    settings = [f'engine={{compile="step", precision="{precision}"}}', "data.train_limit=128", "model.width=2"]
    settings += ['optimizer={kind="yogi", lr=0.01, weight_decay=5e-4}']
    prepared = engine.prepare(recipe := load("digits", settings), *prepared_parts(recipe), CPU)
    assert prepared.formulation == "compiled"
    assert prepared.difference == engine.Difference(0, 0, 0, 0, 0)
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("batch", "field", "value", "place", "apart"),
    [
        (0, "loss", 0.55, "losses", 0.1),
        (1, "inner_loss_before", 0.45, "losses", 0.1),
        (2, "inner_loss_before", 0.55, "losses", 0.1),
        (0, "gradients", [4.0, 3.0], "gradients", 2**0.5 / 5),
        (1, "loss", 0.6, "attacked", 0.2),
        (2, "loss", 0.4, "attacked", 0.2),
        (1, "statistics", [4.0, 3.0], "statistics", 2**0.5 / 5),
        (2, "inner_loss_before", math.nan, "losses", math.nan),
        (2, "loss", math.nan, "attacked", math.nan),
    ],
)
def test_what_differs_in_a_batch_is_told_in_its_own_place_as_a_share_of_eager_s(batch, field, value, place, apart):
    """Of batches with no inner step, with one, and with all."""
    figures, tensors = {"loss": 0.5, "inner_loss_before": 0.5}, [torch.tensor([3.0, 4.0])]
    expected = [
        engine.Observed({"loss": 0.5}, gradients=tensors),
        engine.Observed(figures, statistics=tensors),
        engine.Observed(figures),
    ]
    found, other = list(expected), expected[batch]
    if field in other.figures:
        found[batch] = other._replace(figures={**other.figures, field: value})
    else:
        found[batch] = other._replace(**{field: [torch.tensor(value)]})
    told = asdict(engine._difference(expected, found, updates=0.25))
    assert told == pytest.approx({**dict.fromkeys(told, 0.0), "updates": 0.25, place: apart}, abs=1e-6, nan_ok=True)


def test_a_figure_of_almost_nothing_is_told_as_a_share_of_a_thousandth():
    """The objective of TRADES begins there, where all is rounding."""
    pair = engine.Observed({"loss": 1e-7}), engine.Observed({"loss": 3e-7})
    assert engine._apart(pair, "loss") == pytest.approx(2e-4)


def test_a_way_of_almost_nothing_is_told_as_a_share_of_a_ten_thousandth_of_the_weights(tiny):
    recipe = tiny('optimizer={kind="sgd", lr=0.1, momentum=0.0, weight_decay=0.0}')
    training = build.training(recipe, *prepared_parts(recipe))
    weights = [value.detach() for value in training.network.parameters()]
    found = engine.Observed({}, [torch.zeros_like(value) for value in weights], [1e-7 * value for value in weights])
    assert engine._apart_from(training, [], 0.05, found) == pytest.approx(1e-3)


def test_what_must_agree_closely_is_a_batch_without_a_step_and_one_with_a_single_step(tiny):
    recipe = tiny("maximizer.ascent.steps=5")
    training = build.training(recipe, *prepared_parts(recipe))
    assert [piece.on_batch.step.maximizer.pgd.steps for piece in engine._pieces(training)] == [0, 1]


def test_the_bounds_are_those_that_were_chosen_from_what_was_measured():
    assert engine.TOLERANCES == {"fp32": (1e-3, 0.05, 0.03, 0.1, 1e-3), "bf16": (5e-3, 0.4, 0.03, 0.1, 1e-3)}


@pytest.mark.parametrize("place", range(5))
def test_not_a_number_is_not_tolerable(place):
    found = [0.0] * 5
    assert engine.Difference(*found).tolerable("fp32")
    found[place] = float("nan")
    assert not engine.Difference(*found).tolerable("bf16")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_bound_is_kept_by_itself(precision):
    bounds = engine.TOLERANCES[precision]
    assert engine.Difference(*bounds).tolerable(precision)
    for place in range(5):
        found = [*bounds]
        found[place] *= 1.001
        assert not engine.Difference(*found).tolerable(precision)


# ---- a machine without a compiler ----------------------------------------------------------------------------------


def test_a_torch_whose_compiler_has_other_settings_trains_eagerly(tiny, caplog, monkeypatch):
    """An eager training needs none of them."""
    monkeypatch.setattr("advmix_cli.training.accelerate._set_up", lambda: failing())
    off, step = tiny('engine.compile="off"'), tiny('engine.compile="step"')
    assert engine.prepare(off, *prepared_parts(off), CPU).formulation == "eager"
    assert warnings(caplog) == []
    assert engine.prepare(step, *prepared_parts(step), CPU).formulation == "eager"
    assert warnings(caplog) == ["training is eager: compiled failed: RuntimeError: no compiler here"]


@pytest.mark.slow
def test_without_a_compiler_on_the_machine_training_is_eager_with_one_warning(tiny, tmp_path):
    recipe = tiny(
        'engine.compile="step"', "evaluators=[]", "schedule.epochs=1", 'validation={fraction=0.0, report="last"}'
    )
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(recipe.resolved()))
    environment = {**os.environ, "CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    words = ["train", "recipe.toml", "--out", "run", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "advmix_cli", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert sum("warning" in line.lower() for line in done.stderr.splitlines()) == 1
    assert "training is eager: compiled failed: " in " ".join(done.stderr.split())
    assert "engine: eager, compiled failed: " in done.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()
