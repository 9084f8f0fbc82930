"""Compiled, replayed and captured trainings beside the eager one."""

import gc
import math

import pytest
import torch
from compilers import needs_compiler

from advmix_cli import build, engine
from advmix_cli.evaluation.predict import measured
from advmix_cli.memory import release
from advmix_cli.networks.preact_resnet import BLOCKS
from advmix_cli.recipe.load import load
from advmix_cli.recipe.table import load_table
from advmix_cli.training.accelerate import Compilation, Replayed, captured, forget_compiled

CPU = torch.device("cpu")
QUICK = ["model.width=2", "data.train_limit=128", "schedule.batch_size=32", "schedule.epochs=1"]
ROWS = [row.name for row in load_table("digits").rows]
MODES = ["train", "batch", "eval"]

pytestmark = pytest.mark.usefixtures("shallow")


def recipe(name, *settings):
    """That of a row of the table, made small."""
    return next(row.recipe for row in load_table("digits", [*QUICK, *settings]).rows if row.name == name)


def training(chosen, formulation="eager", place=CPU):
    images = build.dataset(chosen, place, print)
    return build.training(chosen, images, build.new_network(chosen, images, place), formulation)


def batches(made, count):
    order = made.order(1)
    return [made.draw(order, 1, index) for index in range(count)]


def numbers(figures):
    return {name: figure.item() for name, figure in figures.items()}


def state(made):
    """The weights, the buffers, and what the optimizer keeps, in copies."""
    kept = [
        value for each in made.optimizer.state.values() for value in each.values() if isinstance(value, torch.Tensor)
    ]
    return [value.clone() for value in (*made.network.state_dict().values(), *kept)]


def same(one, other):
    return len(one) == len(other) and all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", ROWS)
def test_every_method_compiles_to_two_graphs_that_train_bit_for_bit_as_eager_code_does(row, mode):
    chosen = recipe(row, f'maximizer.ascent.batch_norm="{mode}"')
    eager, compiled = training(chosen), training(chosen, "compiled")
    (expected,), (found,) = eager.run(lambda _: None), compiled.run(lambda _: None)
    assert found.figures == expected.figures
    assert same(state(compiled), state(eager))
    assert Compilation.so_far() == Compilation(graphs=2, breaks=0)


VARIANTS = [
    'engine.precision="bf16"',
    "loss.pristine_weight=0.5",
    'maximizer.labels={kind="geometric"}',
    pytest.param("engine.channels_last=false", marks=pytest.mark.slow),
    pytest.param('loss.divergence="cross-entropy"', marks=pytest.mark.slow),
    pytest.param("maximizer.ascent.clamp=false", marks=pytest.mark.slow),
    pytest.param('maximizer.ratio.per="batch"', marks=pytest.mark.slow),
]


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("setting", VARIANTS)
def test_every_setting_of_the_engine_the_loss_and_the_method_compiles_to_the_same_bits(setting):
    chosen = load("digits", [*QUICK, setting])
    eager, compiled = training(chosen), training(chosen, "compiled")
    (expected,), (found,) = eager.run(lambda _: None), compiled.run(lambda _: None)
    assert found.figures == expected.figures
    assert same(state(compiled), state(eager))
    assert Compilation.so_far() == Compilation(graphs=2, breaks=0)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("settings", "graphs"),
    [
        (["maximizer.mix_after=1", "loss.pristine_weight=0.5"], 2),
        pytest.param(['maximizer.ratio={kind="frozen"}', "loss.trades_beta=6"], 3, marks=pytest.mark.slow),
        (['maximizer.ratio={kind="frozen"}', "maximizer.mix_after=1", "loss.trades_beta=6"], 3),
    ],
    ids=["mixed within", "TRADES", "both"],
)
def test_pairs_and_predictions_compile_to_graphs_of_the_same_bits(settings, graphs):
    chosen = load("digits", [*QUICK, "maximizer.ascent.steps=2", "data.train_limit=64", *settings])
    eager, compiled = training(chosen), training(chosen, "compiled")
    (expected,), (found,) = eager.run(lambda _: None), compiled.run(lambda _: None)
    assert found.figures == expected.figures
    assert same(state(compiled), state(eager))
    assert Compilation.so_far() == Compilation(graphs=graphs, breaks=0)


@pytest.mark.usefixtures("traced")
def test_yogi_adds_a_graph_or_two_and_what_is_measured_between_epochs_recompiles_nothing():
    chosen = recipe("Ours", 'optimizer={kind="yogi", lr=0.01}', "schedule.epochs=3", "maximizer.ascent.steps=2")
    eager, compiled = training(chosen), training(chosen, "compiled")
    after = []
    for expected, found in zip(eager.run(lambda _: None), compiled.run(lambda _: None), strict=True):
        assert found.figures == expected.figures
        after.append(Compilation.so_far())
        with measured(compiled.network):
            compiled.network(torch.rand(3, 1, 8, 8, requires_grad=True)).sum().backward()
    assert same(state(compiled), state(eager))
    assert 3 <= after[0].graphs <= 4
    assert after == [Compilation(after[0].graphs, 0)] * 3


def beside_eager(chosen):
    images = build.dataset(chosen, CPU, print)
    forget_compiled()
    prepared = engine.rehearsed(chosen, images, build.new_network(chosen, images, CPU), "compiled")
    assert (prepared.compilation.graphs, prepared.compilation.breaks) == (2, 0)
    return prepared


@needs_compiler
def test_generated_code_gives_the_eager_losses_gradients_and_buffers(monkeypatch):
    monkeypatch.setitem(BLOCKS, 10, ())
    chosen = recipe("Ours", "maximizer.ascent.steps=1")
    prepared = beside_eager(chosen)
    assert prepared.difference.losses < 1e-5
    assert prepared.difference.gradients < 1e-4
    assert prepared.difference.attacked < 1e-4
    eager, compiled = training(chosen), prepared.training
    (batch,) = batches(eager, 1)
    expected, found = numbers(eager.on_batch(batch)), numbers(compiled.on_batch(batch))
    assert found == pytest.approx(expected, rel=1e-4)
    for value, other in zip(compiled.network.buffers(), eager.network.buffers(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("row", ROWS)
def test_generated_code_of_every_row_agrees_with_eager_code(row, precision):
    prepared = beside_eager(recipe(row, f'engine.precision="{precision}"'))
    assert prepared.difference.tolerable(precision)
    if precision == "fp32":
        assert prepared.difference.losses < 1e-5
        assert prepared.difference.gradients < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_generated_code_agrees_with_eager_code_in_every_batch_norm_mode(mode):
    prepared = beside_eager(recipe("Ours", f'maximizer.ascent.batch_norm="{mode}"', "loss.pristine_weight=0.5"))
    assert prepared.difference.losses < 1e-5
    assert prepared.difference.gradients < 1e-4


@pytest.mark.parametrize("row", ["Attack", "Ours"])
def test_a_replayed_batch_is_the_batch(row):
    chosen = recipe(row, "data.translate=1")
    direct, replayed = training(chosen), training(chosen)
    given = batches(direct, 4)
    kept = [batch.copy() for batch in given]
    static = given[0].copy()
    on_batch = Replayed(static, lambda: replayed.on_batch(static))
    for batch in given[1:] + given[:1]:
        assert numbers(on_batch(batch)) == numbers(direct.on_batch(batch))
    assert same(state(replayed), state(direct))
    for batch, before in zip(given, kept, strict=True):
        assert same(batch.tensors(), before.tensors())


def test_the_figures_of_a_replay_are_not_those_of_the_next_one():
    chosen = recipe("Attack")
    static, *others = batches(training(chosen), 3)
    figure = torch.zeros(())

    def replay():
        figure.add_(1)
        return {"loss": figure}

    on_batch = Replayed(static.copy(), replay)
    figures = [on_batch(batch)["loss"] for batch in others]
    assert [value.item() for value in figures] == [1, 2]


def test_a_copied_batch_is_in_memory_of_its_own():
    (batch,) = batches(training(recipe("Ours")), 1)
    copied = batch.copy()
    assert same(copied.tensors(), batch.tensors())
    assert type(copied.moves) is type(batch.moves)
    assert type(copied.draws) is type(batch.draws)
    for value, other in zip(copied.tensors(), batch.tensors(), strict=True):
        assert value.data_ptr() != other.data_ptr() or not value.numel()


@pytest.mark.gpu
@pytest.mark.parametrize("row", ROWS)
def test_a_captured_batch_is_the_compiled_one(row):
    place = torch.device("cuda")
    chosen = recipe(row)
    forget_compiled()
    plain = training(chosen, "captured", place)
    whole = training(chosen, "captured", place)
    first, second = batches(plain, 2)
    with engine.undone(whole):
        on_batch = captured(whole.on_batch, first)
    for batch in (first, second):
        with engine.undone(plain):
            expected = numbers(plain.on_batch(batch))
        with engine.undone(whole):
            found = numbers(on_batch(batch))
        assert found["inner_loss_before"] == pytest.approx(expected["inner_loss_before"], rel=1e-3)
        assert found == pytest.approx(expected, rel=0.03)
    images = build.dataset(chosen, place, print)
    prepared = engine.rehearsed(chosen, images, build.new_network(chosen, images, place), "captured")
    assert prepared.difference.tolerable("fp32")


@pytest.mark.gpu
def test_what_a_graph_works_on_lives_as_long_as_it_does():
    place = torch.device("cuda")
    chosen = recipe("Ours", 'engine.precision="bf16"')
    images = build.dataset(chosen, place, print)
    made = engine.rehearsed(chosen, images, build.new_network(chosen, images, place), "captured").training
    gc.collect()
    torch.cuda.empty_cache()
    others = [torch.ones(size, device=place) for size in range(1, 3000, 7)]
    list(made.run(lambda _: None))
    assert all(bool((value == 1).all()) for value in others)


@pytest.mark.gpu
def test_a_captured_batch_counts_its_steps_and_follows_the_rate():
    place = torch.device("cuda")
    chosen = recipe("Attack", 'optimizer={kind="adamw", lr=0.01}')
    images = build.dataset(chosen, place, print)
    prepared = engine.rehearsed(chosen, images, build.new_network(chosen, images, place), "captured")
    made = prepared.training
    assert prepared.difference.tolerable("fp32")
    before = [value.clone() for value in made.network.parameters()]
    made.use_rate(0.0)
    for batch in batches(made, 3):
        made.on_batch(batch)
    assert same(list(made.network.parameters()), before)
    assert {value["step"].item() for value in made.optimizer.state.values()} == {3.0}
    made.use_rate(0.01)
    made.on_batch(batch)
    assert not any(torch.equal(*pair) for pair in zip(made.network.parameters(), before, strict=True))


@pytest.mark.gpu
def test_what_cannot_be_captured_on_a_gpu_says_why_and_training_goes_on():
    place = torch.device("cuda")
    made = training(recipe("Attack"), "eager", place)
    (batch,) = batches(made, 1)

    def looks(one):
        figures = made.on_batch(one)
        figures["loss"].item()
        return figures

    with engine.undone(made), pytest.raises(RuntimeError, match="captur"):
        captured(looks, batch)
    release()
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    expected = numbers(made.on_batch(batch))
    assert all(math.isfinite(value) for value in expected.values())


@pytest.mark.gpu
@pytest.mark.parametrize("formulation", ["captured", "reduce-overhead"])
def test_an_epoch_of_plain_training_is_the_same_in_a_graph(formulation):
    place = torch.device("cuda")
    chosen = load("digits", [*QUICK, 'maximizer={kind="none"}'])
    images = build.dataset(chosen, place, print)
    eager = build.training(chosen, images, build.new_network(chosen, images, place))
    made = engine.rehearsed(chosen, images, build.new_network(chosen, images, place), formulation).training
    (expected,), (found,) = eager.run(lambda _: None), made.run(lambda _: None)
    assert found.figures == pytest.approx(expected.figures, rel=1e-2)
