"""A benchmark from beginning to end, with a compiler that traces and does not compile, so that it is quick."""

import dataclasses
import functools
import io
import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from advmix_cli import build, engine, fitting
from advmix_cli.bench import arms as bench_arms
from advmix_cli.bench import bench as benches
from advmix_cli.bench import compiling, peaks
from advmix_cli.bench.arms import (
    ARMS,
    DELTA_ONLY,
    MIXUP,
    TEXTBOOK,
    TEXTBOOK_BF16,
    pictures,
    textbook_arms,
    textbook_optimizer,
)
from advmix_cli.bench.compiling import Compiled, compiled_arms
from advmix_cli.bench.peaks import Peaks, measure
from advmix_cli.bench.race import Race
from advmix_cli.bench.show import grids
from advmix_cli.bench.textbook import Textbook
from advmix_cli.cli import app
from advmix_cli.commands.bench import Arm
from advmix_cli.data.outline import Outline
from advmix_cli.engine import Difference, Prepared
from advmix_cli.errors import DeviceError, EngineError, MemoryExhaustedError, UsageError
from advmix_cli.report.progress import Lines
from advmix_cli.training.accelerate import Compilation, Replayed
from advmix_cli.training.batch import OnBatch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def quick():
    """torch.compile without its code generator, measurements that are short, and peaks that nobody measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("advmix_cli.bench.race.TOGETHER", 0.0)
        patch.setattr("advmix_cli.bench.peaks.measure", lambda _: Peaks(2e11, 8e11, 3e10))
        patch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
        yield


@pytest.fixture(scope="module")
def measured(tiny):
    """A benchmark of the small recipe."""
    return benches.bench(tiny("schedule.batch_size=16"), CPU, 3, Lines(Console(file=io.StringIO())))


def test_the_arms_are_the_loops_of_the_field_and_the_engines_formulations(measured):
    names = [arm.name for arm in measured.arms]
    assert names == [TEXTBOOK, MIXUP, TEXTBOOK_BF16, DELTA_ONLY, "advmix eager", "advmix compiled"]
    assert [arm.precision for arm in measured.arms] == ["fp32", "fp32", "bf16", "fp32", "fp32", "fp32"]
    assert [arm.channels_last for arm in measured.arms] == [False, False, True, True, True, True]


def test_all_arms_start_from_the_same_weights(tiny, watch, monkeypatch):
    monkeypatch.setattr(benches, "race", lambda arms, *_: pytest.fail(str(len(arms))))
    loops, engines = [], []
    true_loops, true_engine = benches.textbook_arms, benches.engine_arm
    monkeypatch.setattr(benches, "textbook_arms", lambda *args: loops.extend(true_loops(*args)) or loops)
    for module in (benches, compiling):
        monkeypatch.setattr(module, "engine_arm", lambda *args: engines.append(true_engine(*args)) or engines[-1])
    with pytest.raises(pytest.fail.Exception, match="6"):
        benches.bench(tiny("schedule.batch_size=16"), CPU, 1, watch)
    weights = [arm.run.network.linear.weight for arm in loops]
    weights += [arm.prepared.training.network.linear.weight for arm in engines]
    assert len(weights) == 6
    assert all(torch.equal(weights[0], other) for other in weights)


def test_the_numbers_follow_from_the_seconds(measured):
    document = measured.to_json()
    assert json.loads(json.dumps(document)) == document
    assert document["rounds"] == 3
    assert document["passes_per_image"] == 2 * document["inner_steps"] + 3 == 7
    peaks = document["peaks"]
    assert peaks == {"fp32_flops_per_second": 2e11, "bf16_flops_per_second": 8e11, "copy_bytes_per_second": 3e10}
    batches = 128 // 16
    assert document["arms"][0]["epoch_seconds"] == document["arms"][0]["seconds_per_batch"]["median"] * batches
    for arm in document["arms"]:
        seconds = arm["seconds_per_batch"]
        assert 0 < seconds["low"] <= seconds["median"] <= seconds["high"]
        assert arm["images_per_second"] == pytest.approx(16 / seconds["median"])
        flops = 7 * document["forward_flops_per_image"] * arm["images_per_second"]
        assert arm["utilisation"] == pytest.approx(flops / peaks[f"{arm['precision']}_flops_per_second"])
        assert arm["training_seconds"] == pytest.approx(2 * arm["epoch_seconds"])
    each = {arm["name"]: arm["seconds_per_batch_in_each_round"] for arm in document["arms"]}
    assert len(document["ratios"]) == 2 * 4
    for ratio in document["ratios"]:
        own, other = each[ratio["arm"]], each[ratio["over"]]
        assert ratio["median"] == sorted(slow / fast for slow, fast in zip(other, own, strict=True))[1]


def test_the_compiled_arm_says_what_was_compiled_and_how_far_it_is_from_eager(measured, tiny):
    (arm,) = (arm for arm in measured.to_json()["arms"] if arm["name"] == "advmix compiled")
    assert (arm["graphs"], arm["breaks"]) == (2, 0)
    assert arm["cold_compile_seconds"] > 0
    assert arm["warm_compile_seconds"] > 0
    figures = ("losses", "gradients", "attacked", "statistics", "updates")
    assert arm["difference"] == dict.fromkeys(figures, 0.0)
    assert measured.to_json()["tolerances"] == dict(zip(figures, (1e-3, 0.05, 0.03, 0.1, 1e-3), strict=True))
    in_bf16 = dataclasses.replace(measured, recipe=tiny('engine.precision="bf16"')).to_json()
    assert in_bf16["tolerances"] == dict(zip(figures, engine.TOLERANCES["bf16"], strict=True))


def test_the_first_compilation_is_the_cold_one(tiny, watch, monkeypatch):
    times = iter([(30.0, Compilation(2, 1)), (4.0, Compilation(1, 0))])

    def rehearsed(recipe, images, network, formulation):
        made = build.training(recipe, images, network)
        return Prepared(made, formulation, "", *next(times), Difference(0, 0, 0, 0, 0))

    monkeypatch.setattr("advmix_cli.bench.compiling.rehearsed", rehearsed)
    (arm,) = benches.bench(tiny("schedule.batch_size=16"), CPU, 1, watch, ["compiled"]).to_json()["arms"]
    assert (arm["cold_compile_seconds"], arm["warm_compile_seconds"]) == (30, 4)
    assert (arm["graphs"], arm["breaks"]) == (2, 1)


def test_an_epoch_is_of_all_images_and_the_peaks_are_the_best_of_both_measurements(tiny, watch, monkeypatch):
    highest = iter([Peaks(1e11, 9e11, 3e10), Peaks(2e11, 8e11, 2e10)])
    monkeypatch.setattr("advmix_cli.bench.peaks.measure", lambda _: next(highest))
    monkeypatch.setattr(build, "outline", lambda *_: Outline((1, 8, 8), 10, 5_000, 0, 40))
    monkeypatch.setattr(benches.resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=3_000))
    monkeypatch.setattr(benches.sys, "platform", "linux")
    found = benches.bench(tiny("schedule.batch_size=16"), CPU, 1, watch, ["eager"])
    assert found.cost.batches == 5_000 // 16
    assert found.peaks == Peaks(2e11, 9e11, 3e10)
    assert found.process_bytes == 3_072_000


def test_peaks_are_flops_and_bytes_over_the_seconds_of_the_faster_way(monkeypatch):
    seconds = iter([2.0, 1.0, 0.25, 4.0, 0.5])  # two ways in fp32, two in bf16, and the copy
    monkeypatch.setattr("advmix_cli.bench.peaks._seconds", lambda *_: next(seconds))
    assert measure(CPU) == Peaks(2 * 2048**3, 2 * 2048**3 / 0.25, 2 * 4 * 2**26 / 0.5)


def test_the_shortest_of_several_tries_counts(monkeypatch):
    times = iter([4.0, 2.0, 3.0, 9.0, 5.0])
    monkeypatch.setattr("advmix_cli.clock.seconds", lambda *_: next(times))
    assert peaks._seconds(lambda: None, CPU) == 2


@pytest.mark.slow
def test_the_peaks_of_a_machine_are_those_of_a_machine():
    found = measure(CPU)
    assert 1e9 < found.fp32 < 1e16
    assert 1e9 < found.bf16 < 1e16
    assert 1e8 < found.copy < 1e14
    assert found.of("bf16") == found.bf16
    assert found.of("fp32") == found.fp32


def test_loops_without_trades_are_said_to_be(measured, tiny):
    assert not any("TRADES" in caption for caption in grids(measured)[0].captions)
    trades = dataclasses.replace(measured, recipe=tiny("loss.trades_beta=6"))
    assert any("without TRADES" in caption for caption in grids(trades)[0].captions)


def test_one_round_has_no_range(tiny, watch):
    arms, ratios = grids(benches.bench(tiny("schedule.batch_size=16"), CPU, 1, watch, ["eager", "delta-only"]))
    assert arms.captions[2].startswith("one round; batches a round: 1; images of noise")
    assert [row[1].notes for row in arms.rows] == [(), ()]
    assert [row[1].notes for row in ratios.rows] == [()]
    assert ratios.captions == ("how many times as fast as the loop on the left",)


def test_where_the_network_mixes_within_its_passes_are_counted_as_what_they_are(tiny, watch):
    recipe = tiny("schedule.batch_size=16", "maximizer.kind='integrated'", "maximizer.mix_after=1")
    found = benches.bench(recipe, CPU, 1, watch, ["eager", "textbook"]).to_json()
    loop, own = (arm["flops_per_image"] for arm in found["arms"])
    assert loop == found["passes_per_image"] * found["forward_flops_per_image"]
    assert own * found["batches_per_epoch"] * 16 * found["epochs"] == found["training_flops"]
    assert own > loop


def test_the_tables_hold_every_arm_and_every_ratio(measured):
    arms, ratios = grids(measured)
    assert [row[0].value for row in arms.rows] == [arm.name for arm in measured.arms]
    assert [row[0].value for row in ratios.rows] == [TEXTBOOK, MIXUP, TEXTBOOK_BF16, DELTA_ONLY]
    assert ratios.columns == ("times as fast as", "advmix eager", "advmix compiled")
    median = measured.race.ratio(TEXTBOOK, "advmix compiled").median
    assert ratios.rows[0][2].value == f"{median:.2f}"


def test_the_tables_are_in_ms_a_batch_images_a_second_seconds_an_epoch_and_percent(measured):
    """Each arm beside the peak of its own precision: 7 passes of 16 images in 0.04 s."""
    flops = 7 * measured.cost.forward * 16 / 0.04
    seconds = {arm.name: [0.04, 0.02, 0.08] for arm in measured.arms} | {TEXTBOOK: [0.08, 0.04, 0.4]}
    shown = dataclasses.replace(measured, race=Race(seconds, 1), peaks=Peaks(4 * flops, 8 * flops, 1e10))
    arms, ratios = grids(shown)
    rows = {row[0].value: [cell.flat() for cell in row[1:]] for row in arms.rows}
    assert rows[DELTA_ONLY] == rows["advmix compiled"] == ["40.0 (20.0–80.0)", "400", "0.320 (640 ms)", "25.0 %"]
    assert rows[TEXTBOOK_BF16] == ["40.0 (20.0–80.0)", "400", "0.320 (640 ms)", "12.5 %"]
    assert rows[TEXTBOOK] == ["80.0 (40.0–400)", "200", "0.640 (1.28 s)", "12.5 %"]
    assert [cell.flat() for cell in ratios.rows[0][1:]] == ["2.00 (2.00–5.00)"] * 2


@pytest.mark.parametrize(
    "difference",
    [Difference(1e-2, 0, 0, 0, 0), Difference(0, 0, 0, 0, 0.1), Difference(0, float("nan"), 0, 0, 0)],
)
def test_no_ratio_is_given_where_compiled_and_eager_disagree(tiny, watch, monkeypatch, difference):
    def rehearsed(recipe, images, network, formulation):
        made = build.training(recipe, images, network)
        return Prepared(made, formulation, "", 1.0, Compilation(2, 0), difference)

    monkeypatch.setattr("advmix_cli.bench.compiling.rehearsed", rehearsed)
    with pytest.raises(EngineError) as caught:
        benches.bench(tiny("schedule.batch_size=16"), CPU, 1, watch)
    assert str(caught.value) == (
        f"compiled and eager disagree, so no speeds are given: {difference}; tolerated are "
        "0.001, 0.05, 0.03, 0.1, 0.001"
    )


def test_an_arm_that_cannot_be_compiled_is_missing_and_the_others_are_measured(tiny, watch, said, monkeypatch):
    def broken(_function, **_):
        def fails(*_args, **_kwargs):
            raise RuntimeError("no compiler here\nand a page more")

        return fails

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(benches, "candidates", lambda *_: (["compiled", "eager"], "for a test"))
    found = benches.bench(tiny("schedule.batch_size=16"), CPU, 1, watch)
    assert found.missing == {"compiled": "RuntimeError: no compiler here"}
    assert found.default == "eager, for a test"
    assert [arm.name for arm in found.arms][-1] == "advmix eager"
    assert "compiled cannot be measured: RuntimeError: no compiler here" in said.getvalue()
    assert "compiled: cannot be measured: RuntimeError: no compiler here" in grids(found)[0].captions


def test_the_command_knows_every_arm():
    assert list(Arm) == list(ARMS)


def test_only_the_arms_that_are_wanted_are_made_and_raced(tiny, watch, said, monkeypatch):
    made = []
    true = benches.fresh
    monkeypatch.setattr("advmix_cli.bench.compiling._empty_cache", lambda: pytest.fail("nothing is compiled"))
    monkeypatch.setattr("advmix_cli.bench.arms.fresh", lambda *args, **how: made.append(args) or true(*args, **how))
    found = benches.bench(tiny("schedule.batch_size=16"), CPU, 2, watch, ["eager", "delta-only"])
    assert [arm.name for arm in found.arms] == list(found.race.seconds) == [DELTA_ONLY, "advmix eager"]
    assert len(made) == 1, "a network for the one loop"
    assert list(found.ratios()) == [("advmix eager", DELTA_ONLY)]
    assert [len(grid.rows) for grid in grids(found)] == [2, 1]
    assert "compiling" not in said.getvalue()
    assert "racing: 4 timings\n" in said.getvalue()


@pytest.mark.parametrize("wanted", ["compiled", "textbook"])
def test_without_a_loop_or_without_the_engine_there_is_no_ratio(tiny, watch, monkeypatch, wanted):
    if wanted == "compiled":
        monkeypatch.setattr(benches, "pictures", lambda *_: pytest.fail("no loop wants pictures"))
    found = benches.bench(tiny("schedule.batch_size=16"), CPU, 1, watch, [wanted])
    assert [arm.name for arm in found.arms] == [ARMS[wanted]]
    assert found.to_json()["ratios"] == []
    (arms,) = grids(found)
    assert len(arms.rows) == 1


def test_sockets_that_would_have_too_long_a_path_are_refused(tiny, watch, monkeypatch, tmp_path):
    """Else the loader's workers would die of it, and the benchmark wait for ever."""
    place = tmp_path / ("t" * 80)
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    said = rf"^TMPDIR = {place}: the sockets of a loader's workers want at most 75 bytes of a path$"
    with pytest.raises(UsageError, match=said):
        benches.bench(tiny(), CPU, 1, watch, ["textbook"])
    benches.bench(tiny("schedule.batch_size=16"), CPU, 1, watch, ["eager"])


@pytest.mark.parametrize("wanted", ["captured", "reduce-overhead"])
def test_an_arm_for_gpus_is_refused_elsewhere(tiny, watch, wanted):
    with pytest.raises(DeviceError, match=rf"^--arm {wanted} needs a CUDA GPU, and the device is cpu$"):
        benches.bench(tiny(), CPU, 1, watch, ["eager", wanted])


def test_if_the_only_arm_cannot_be_measured_it_says_why(tiny, watch, monkeypatch):
    def rehearsed(*_):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr("advmix_cli.bench.compiling.rehearsed", rehearsed)
    with pytest.raises(EngineError, match=r"^compiled cannot be measured: RuntimeError: no compiler here$"):
        benches.bench(tiny("schedule.batch_size=16"), CPU, 1, watch, ["compiled"])


def test_the_command_prints_one_document(tmp_path):
    small = ["data.train_limit=64", "model.width=2", "schedule.batch_size=16"]
    settings = [word for setting in small for word in ("--set", setting)]
    found = CliRunner().invoke(app, ["bench", "digits", "--rounds", "1", "--json", *settings])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["batch_size"] == 16
    assert not list(tmp_path.glob("share/**/*"))


def test_the_loops_of_the_field_train_as_the_recipe_does(tiny):
    """And each is the loop that it is called, with the precision and the layout that the table says."""
    attack = ['threat.epsilon="12/255"', "maximizer.ascent.steps=3", 'maximizer.ascent.step_size="5/255"']
    recipe = tiny(*attack, "loss.pristine_weight=0.25", 'engine={precision="bf16", channels_last=false}')
    arms = textbook_arms(recipe, build.dataset(recipe, CPU, print), CPU, iter(()))
    for arm in arms:
        loop = arm.run
        assert (loop.epsilon, loop.step_size, loop.steps, loop.pristine_weight) == (12 / 255, 5 / 255, 3, 0.25)
        assert (loop.bf16, loop.channels_last) == (arm.precision == "bf16", arm.channels_last)
    assert {arm.name: (arm.run.mixup, arm.run.delta_only, arm.run.bf16, arm.run.channels_last) for arm in arms} == {
        TEXTBOOK: (False, False, False, False),
        MIXUP: (True, False, False, False),
        TEXTBOOK_BF16: (False, False, True, True),
        DELTA_ONLY: (False, True, True, False),
    }


@pytest.mark.parametrize(("wanted", "size"), [(16, 16), (1_000, 128)])
def test_the_loops_of_the_field_load_what_the_recipe_trains_on(tiny, monkeypatch, wanted, size):
    asked = []

    class Loaded:
        def __init__(self, _images, *settings, **moves):
            asked.append((*settings, moves))

        def __iter__(self):
            return self

        def __next__(self):
            raise StopIteration

        def _shutdown_workers(self):
            asked.append("ended")

    monkeypatch.setattr("advmix_cli.bench.arms.loader", Loaded)
    recipe = tiny(f"schedule.batch_size={wanted}", "data.flip=true", "data.translate=2")
    with pictures(recipe, build.dataset(recipe, CPU, print)):
        assert asked == [(size, {"flip": True, "translate": 2})]
    assert asked[1:] == ["ended"]


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ('optimizer={kind="sgd", lr=0.1, nesterov=true}', torch.optim.SGD),
        ('optimizer={kind="adam", lr=0.1}', torch.optim.Adam),
        ('optimizer={kind="adamw", lr=0.1}', torch.optim.AdamW),
    ],
)
def test_the_loops_of_the_field_have_torchs_own_optimizer(tiny, settings, kind):
    weight = torch.nn.Parameter(torch.ones(3))
    made = textbook_optimizer(tiny(settings), [weight])
    assert type(made) is kind
    assert made.defaults["lr"] == 0.1
    assert made.defaults.get("nesterov", True)


def test_and_yogi_as_its_library_has_it(tiny):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = 'optimizer={kind="yogi", lr=0.1, weight_decay=0.5, initial_accumulator=0.25}'
    made = textbook_optimizer(tiny(optimizer), [weight])
    assert type(made).__module__.startswith("pytorch_optimizer")
    assert made.defaults["weight_decouple"] is False
    assert made.defaults["weight_decay"] == 0.5
    assert made.defaults["initial_accumulator"] == 0.25


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ("kind='sgd', lr=0.1, momentum=0.8, weight_decay=0.5", {"momentum": 0.8, "weight_decay": 0.5}),
        (
            "kind='adam', lr=0.1, betas=[0.7, 0.8], eps=0.2, weight_decay=0.5",
            {"betas": (0.7, 0.8), "eps": 0.2, "weight_decay": 0.5},
        ),
        ("kind='yogi', lr=0.1, betas=[0.7, 0.8], eps=0.2", {"lr": 0.1, "betas": (0.7, 0.8), "eps": 0.2}),
    ],
)
def test_with_the_recipe_s_own_settings(tiny, settings, wanted):
    made = textbook_optimizer(tiny(f"optimizer={{{settings}}}"), [torch.nn.Parameter(torch.ones(3))])
    assert wanted.items() <= made.defaults.items()


@pytest.mark.parametrize("wanted", [True, False])
def test_the_engine_races_with_the_algorithms_that_the_recipe_trains_with(tiny, monkeypatch, wanted):
    seen, ran = set(), OnBatch.__call__

    def on_batch(self, batch):
        seen.add(torch.are_deterministic_algorithms_enabled())
        return ran(self, batch)

    monkeypatch.setattr(OnBatch, "__call__", on_batch)
    recipe = tiny("schedule.batch_size=16", f"engine.deterministic={str(wanted).lower()}")
    others = set()
    delta_only = Textbook.__call__

    def loop(self):
        others.add(torch.are_deterministic_algorithms_enabled())
        return delta_only(self)

    monkeypatch.setattr(Textbook, "__call__", loop)
    watch = Lines(Console(file=io.StringIO()))
    benches.bench(recipe, CPU, 1, watch, ["eager", "compiled", "delta-only"])
    assert (seen, others) == ({wanted}, {False})


def test_a_recipe_without_an_attack_has_loops_without_one(tiny):
    recipe = tiny('maximizer={kind="none"}')
    for arm in textbook_arms(recipe, build.dataset(recipe, CPU, print), CPU, iter(())):
        assert (arm.run.steps, arm.run.step_size) == (0, 0.0)
        assert arm.run.network.training


def test_the_engine_goes_on_with_the_next_epoch():
    training = SimpleNamespace(batches=2, order=str, set_rate=lambda _: None, train_on=lambda *batch: batch)
    run = bench_arms._batches(training, deterministic=False)
    assert [run() for _ in range(5)] == [("1", 1, 0), ("1", 1, 1), ("2", 2, 0), ("2", 2, 1), ("3", 3, 0)]


@pytest.mark.parametrize(("batch_size", "images"), [(64, 2_048), (1_000, 4_000), (20_000, 50_000)])
def test_there_are_four_batches_of_noise_and_no_more_than_images(tiny, watch, monkeypatch, batch_size, images):
    asked = []
    monkeypatch.setattr(build, "outline", lambda *_: Outline((1, 2, 2), 10, 50_000, 0, 40))
    monkeypatch.setattr(benches, "_measured", lambda _, __, images, *___, **____: asked.append(len(images.train)))
    benches.bench(tiny(f"schedule.batch_size={batch_size}"), CPU, 1, watch, ["eager"])
    assert asked == [images]


def test_where_the_memory_is_too_small_it_says_which_batch_fits_an_eager_arm(tiny, watch, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(benches, "_measured", full)
    monkeypatch.setattr(fitting, "advice", lambda recipe, *_: f"compile {recipe.engine.compile}")
    with pytest.raises(MemoryExhaustedError, match=r"^compile off; with --arm fewer are held at a time$"):
        benches.bench(tiny("engine.compile='step'"), CPU, 1, watch, ["eager"])


def compiled_with(monkeypatch, recipe, watch, rehearsed, *formulations):
    """The arms of a compiler that is `rehearsed`."""
    monkeypatch.setattr(compiling, "rehearsed", rehearsed)
    monkeypatch.setattr(compiling, "engine_arm", lambda _, made: SimpleNamespace(name=made.formulation))
    with compiled_arms(recipe, None, lambda: None, formulations, watch) as made:
        return made


def ready(formulation, *figures):
    return Prepared(None, formulation, "", 1.0, Compilation(2, 0), Difference(*(figures or [0.0] * 5)))


def test_each_is_compiled_from_nothing_and_again_with_what_all_have_compiled(tiny, watch, monkeypatch):
    done = []
    monkeypatch.setattr(compiling, "forget_compiled", lambda: done.append("forgotten"))

    def rehearsed(_recipe, _images, _network, formulation):
        done.append(formulation)
        return ready(formulation)

    compiled_with(monkeypatch, tiny(), watch, rehearsed, "compiled", "captured")
    assert done == ["forgotten", "compiled", "forgotten", "captured", "forgotten", "compiled", "captured"]


def test_in_bf16_what_bf16_tolerates_is_tolerated(tiny, watch, monkeypatch):
    def rehearsed(*words):
        return ready(words[-1], 4e-3, 0.3, 0, 0, 0)

    made = compiled_with(monkeypatch, tiny("engine.precision='bf16'"), watch, rehearsed, "compiled")
    assert made.compiled == {"compiled": Compiled(1.0, 1.0, Compilation(2, 0))}
    with pytest.raises(EngineError, match="disagree"):
        compiled_with(monkeypatch, tiny(), watch, rehearsed, "compiled")


def test_a_memory_that_is_full_is_no_arm_that_is_missing(tiny, watch, monkeypatch):
    def rehearsed(*_):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        compiled_with(monkeypatch, tiny(), watch, rehearsed, "compiled")


def test_a_cache_is_empty_while_it_is_in_use_and_then_the_users_own_is_again(monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "own")
    monkeypatch.setenv("TRITON_CACHE_DIR", "own too")
    with compiling._empty_cache() as in_use:
        with in_use():
            place = os.environ["TORCHINDUCTOR_CACHE_DIR"]
            assert not list(Path(place).iterdir())
            assert "TRITON_CACHE_DIR" not in os.environ
        assert (os.environ["TORCHINDUCTOR_CACHE_DIR"], os.environ["TRITON_CACHE_DIR"]) == ("own", "own too")
    assert not Path(place).exists()


def test_what_a_batch_needs_is_what_it_takes_beyond_what_is_held(monkeypatch):
    done = []
    monkeypatch.setattr(benches, "wait", lambda _: done.append("waited"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 100)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: done.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 350)

    def peak(formulation, on_batch=None):
        training = SimpleNamespace(on_batch=on_batch)
        prepared = formulation and Prepared(training, formulation, "")
        return benches._peak(bench_arms.Arm("", "", "fp32", True, lambda: done.append("ran"), prepared), CPU)

    assert peak(None) == peak("eager") == 250
    assert done == ["waited", "reset", "ran", "waited"] * 2
    assert peak("captured", Replayed(None, None, needs=70)) == 70
    assert peak("reduce-overhead") is None


def test_the_table_has_the_memory_of_each_arm_where_it_is_known_and_what_the_device_can_do(measured):
    assert "memory" not in grids(measured)[0].columns
    needs = {arm.name: 2_500_000 for arm in measured.arms} | {"advmix compiled": None}
    compiled = {"advmix compiled": Compiled(30.0, 4.0, Compilation(2, 0))}
    shown, _ = grids(dataclasses.replace(measured, peak_bytes=needs, compiled=compiled))
    assert [row[-1].value for row in shown.rows] == ["2.50 MB"] * 5 + [""]
    assert shown.title == "bench: tiny"
    assert "peaks: 0.200 TFLOP/s in fp32, 0.800 TFLOP/s in bf16, copy 30.0 GB/s" in shown.captions
    times = "advmix compiled: 2 graphs, no breaks, 30.0 s to compile, 4.0 s when that was done; beside eager, losses"
    assert any(caption.startswith(times) for caption in shown.captions)
