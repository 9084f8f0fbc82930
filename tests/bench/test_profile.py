"""Where the time of a batch goes."""

import dataclasses
import io
import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch.profiler import record_function

from advmix_cli.bench import bench as benches
from advmix_cli.bench.arms import DELTA_ONLY
from advmix_cli.bench.peaks import Peaks
from advmix_cli.bench.profile import Operation, Profile, _is_operation, profile
from advmix_cli.bench.race import Race
from advmix_cli.bench.show import grids
from advmix_cli.errors import StoppedError
from advmix_cli.report.progress import Lines

CPU = torch.device("cpu")
OURS = "advmix eager"
PRODUCTS = [
    "aten::mkldnn_convolution", "aten::convolution_backward", "aten::addmm", "aten::mm",
    "mkldnn::_convolution_pointwise",
    "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64_warpgroupsize1x1x1_g1_kernel",
    "sm80_xmma_wgrad_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize64x64x64_stage4_kernel",
    "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816dgrad_optimized_bf16_64x64_32x5_nhwc>(Params)",
    "void implicit_convolve_sgemm<float, float, 128, 5, 5, 3, 3, 3, 1, true, false, true>(int, int, int)",
    "aten::bmm", "aten::linear", "aten::_slow_conv2d_forward", "void gemv2T_kernel_val<int, int, float>(float)",
    "nvjet_tst_64x8_64x16_4x1_v_bz_TNT", "triton_tem_fused_convolution_3", "triton_tem_fused_mm_0",
    "void cublasLt::splitKreduce_kernel<32, 16, int, float, float>(cublasLt::cublasSplitKParams<float>)",
]  # fmt: skip
OTHERS = [
    "aten::native_batch_norm_backward", "aten::add_", "aten::empty", "aten::mul", "Memcpy HtoD (Pinned -> Device)",
    "void cudnn::bn_fw_tr_1C11_kernel_NHWC<__nv_bfloat16, float>(float)", "aten::comma", "aten::mm_prepare",
    "void cudnn::engines_precompiled::nchwToNhwcKernel<float, __nv_bfloat16, float, false, true>(Params)",
    "triton_red_fused__native_batch_norm_legit_functional_convolution_backward_threshold_backward_17",
    "triton_poi_fused_addmm_0", "triton_per_fused_mm_sum_1",
    "triton_per_fused_convolution_backward_sum_2", "triton_for_fused_addmm_3",
    "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>(int, float)",
]  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_convolutions_and_matrix_products(name):
    assert Operation(name, 1, 1.0).multiplies


@pytest.mark.parametrize("name", OTHERS)
def test_and_what_is_none(name):
    assert not Operation(name, 1, 1.0).multiplies


def test_seconds_are_of_one_batch_and_of_the_operations_alone():
    left, right = torch.rand(64, 64), torch.rand(64, 64)

    def batch():
        with record_function("a mark of Python code"):
            left.mm(right).add_(1)
            left.mm(right)

    found = profile(batch, CPU, 4, 1e9)
    calls = {one.name: one.calls for one in found.operations}
    assert (calls["aten::mm"], calls["aten::add_"]) == (2, 1)
    assert not any("mark" in name for name in calls)
    seconds = [one.seconds for one in found.operations]
    assert seconds == sorted(seconds, reverse=True)
    assert found.products == next(one.seconds for one in found.operations if one.name == "aten::mm")
    assert found.products + found.others == pytest.approx(sum(seconds))
    assert found.calls == sum(calls.values())
    assert found.products + found.others <= found.seconds < 1e9


def test_a_batch_is_as_long_as_it_was_looked_at_and_on_a_gpu_as_long_as_it_was_raced(monkeypatch):
    """Four batches in 12 s; torch's profiler counts microseconds."""

    def seen(key, place, calls, microseconds):
        times = {"CPU": (microseconds, 9.0), "CUDA": (9.0, microseconds)}[place]
        return SimpleNamespace(
            key=key, count=calls, is_user_annotation=False, device_type=SimpleNamespace(name=place),
            self_cpu_time_total=times[0], self_device_time_total=times[1],
        )  # fmt: skip

    events = [seen("aten::mm", "CPU", 4, 1e6), seen("sm90_gemm", "CUDA", 8, 2e6)]
    found = nullcontext(SimpleNamespace(key_averages=lambda: events))
    monkeypatch.setattr(torch.profiler, "profile", lambda **_: found)
    monkeypatch.setattr("advmix_cli.clock.seconds", lambda *_: 12.0)
    assert profile(print, CPU, 4, 1.5) == Profile((Operation("aten::mm", 1, 0.25),), 3.0)
    assert profile(print, torch.device("cuda"), 4, 1.5) == Profile((Operation("sm90_gemm", 2, 0.5),), 1.5)


@pytest.mark.parametrize(("own", "level"), [(None, "99"), ("1", "1")])
def test_the_profiler_is_quiet_unless_the_user_wants_it_otherwise(monkeypatch, own, level):
    monkeypatch.setenv("KINETO_LOG_LEVEL", own or "")
    if own is None:
        monkeypatch.delenv("KINETO_LOG_LEVEL")
    profile(lambda: torch.ones(2).add_(1), CPU, 1, 1.0)
    assert os.environ["KINETO_LOG_LEVEL"] == level


def test_a_longer_product_takes_longer():
    small, large = torch.rand(32, 32), torch.rand(1024, 1024)
    large.mm(large)  # the first one is slow
    # The shortest of several: another process may have the core meanwhile.
    found = [
        min(profile(lambda one=one: one.mm(one), CPU, 3, 1.0).products for _ in range(3)) for one in (small, large)
    ]
    assert found[1] > 10 * found[0]


class Event:
    """As torch's profiler gives it."""

    def __init__(self, key, *, mark):
        self.key, self.is_user_annotation = key, mark


@pytest.mark.parametrize(
    ("key", "mark", "on_cpu", "on_gpu"),
    [
        ("aten::mm", False, True, True),
        ("Optimizer.step#SGD.step", True, False, False),
        ("## Call CompiledFxGraph f1 ##", True, True, False),
    ],
)
def test_a_mark_is_no_operation_and_a_compiled_graph_is_one_where_its_kernels_have_no_names(key, mark, on_cpu, on_gpu):
    assert _is_operation(Event(key, mark=mark), on_gpu=False) == on_cpu
    assert _is_operation(Event(key, mark=mark), on_gpu=True) == on_gpu


@pytest.fixture(scope="module")
def measured(tiny):
    """Of two arms; and peaks that nobody measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("advmix_cli.bench.race.TOGETHER", 0.0)
        patch.setattr("advmix_cli.bench.peaks.measure", lambda _: Peaks(2e11, 8e11, 3e10))
        watch = Lines(Console(file=io.StringIO()))
        yield benches.bench(tiny("schedule.batch_size=16"), CPU, 1, watch, ["eager", "delta-only"], profiled=True)


def test_every_arm_has_its_operations_in_the_document(measured):
    for arm in measured.to_json()["arms"]:
        operations = measured.profiles[arm["name"]].operations
        assert arm["operations"] == [dataclasses.asdict(one) for one in operations]
        parts = arm["products_seconds"], arm["other_operations_seconds"]
        assert sum(parts) == pytest.approx(sum(one.seconds for one in operations))
        assert parts[0] > 0
        assert sum(parts) <= arm["profiled_seconds_per_batch"]
        # K + 1 passes in each direction, through the network's convolutions.
        calls = {one.name: one.calls for one in operations}
        assert calls["aten::convolution_backward"] == calls["aten::mkldnn_convolution"] > 0
        assert calls["aten::convolution_backward"] % (measured.cost.inner_steps + 1) == 0


def test_the_table_follows_from_the_profile(measured):
    made = {
        DELTA_ONLY: Profile((Operation("aten::mkldnn_convolution", 2, 0.3), Operation("aten::add", 3, 0.1)), 0.5),
        OURS: Profile(
            (Operation("void at::native::kernel<int>(int)", 1500.4, 0.6), Operation("aten::mm", 1, 0.5)), 1.0
        ),
    }
    highest = Peaks(4 * measured.cost.image * 16, 8e11, 3e10)  # room for four batches a second
    _, _, parts, *longest = grids(dataclasses.replace(measured, profiles=made, peaks=highest))
    text = [[cell.flat() for cell in row] for row in parts.rows]
    assert text[0] == [DELTA_ONLY, "300 (60 %)", "100 (20 %)", "100 (20 %)", "5", "83.3 %"]
    assert text[1][:5] == [OURS, "500 (50 %)", "600 (60 %)", "0 (0 %)", "1,501"]
    assert [grid.columns[0] for grid in longest] == [f"{name}: longest operations" for name in made]
    assert [cell.value for cell in longest[1].rows[0]] == ["at::native::kernel", "600", "1,500"]


def test_the_longest_operations_are_shown_with_names_that_fit_a_line(measured):
    names = ["a" * 50, "b" * 51, "void c<int>(int)", *"defghij"]
    seen = Profile(tuple(Operation(name, 1, 0.01) for name in names), 1.0)
    *_, longest = grids(dataclasses.replace(measured, profiles={DELTA_ONLY: seen, OURS: seen}))
    assert [row[0].value for row in longest.rows] == ["a" * 50, "b" * 49 + "…", "c", *"defgh"]


@pytest.mark.parametrize("batches", [3, 9])
def test_at_most_five_batches_are_looked_at_and_the_median_of_the_race_is_told(tiny, watch, monkeypatch, batches):
    asked = []
    monkeypatch.setattr(benches, "race", lambda arms, *_: Race({name: [1.0, 2.0, 6.0] for name in arms}, batches))
    monkeypatch.setattr(benches, "profile", lambda *words: asked.append(words[2:]) or Profile((), 1.0))
    benches.bench(tiny("schedule.batch_size=16"), CPU, 3, watch, ["eager"], profiled=True)
    assert asked == [(min(batches, 5), 2.0)]


@pytest.mark.parametrize("seen", [Profile((), 1.0), Profile((Operation("Memcpy DtoD", 9, 0.1),), 1.0)])
def test_an_arm_of_which_no_product_was_seen_is_said_to_be_one(measured, seen):
    empty = dataclasses.replace(measured, profiles={DELTA_ONLY: seen, OURS: measured.profiles[OURS]})
    _, _, parts, *_ = grids(empty)
    assert [row[0].value for row in parts.rows] == [OURS]
    assert f"{DELTA_ONLY}: the profiler saw no product" in parts.captions


def test_without_being_asked_nothing_is_profiled(tiny, watch, monkeypatch):
    monkeypatch.setattr(benches, "profile", lambda *_: pytest.fail("profiled"))
    found = benches.bench(tiny("schedule.batch_size=16"), CPU, 1, watch, ["eager"])
    assert "operations" not in found.to_json()["arms"][0]
    assert len(grids(found)) == 1


@pytest.mark.parametrize(("rounds", "caption"), [(2, "median of 2 rounds and their range"), (1, "one round")])
def test_a_race_that_was_stopped_is_not_profiled(tiny, watch, monkeypatch, rounds, caption):
    def race(arms, *_):
        return Race({name: [1.0] * rounds for name in arms}, 1, StoppedError("stopped by a test", 143))

    monkeypatch.setattr(benches, "race", race)
    monkeypatch.setattr(benches, "profile", lambda *_: pytest.fail("profiled"))
    found = benches.bench(tiny("schedule.batch_size=16"), CPU, 2, watch, ["eager"], profiled=True)
    assert found.to_json()["finished"] is False
    assert grids(found)[0].captions[2].startswith(f"{caption} before it was stopped; batches a round: 1; ")
