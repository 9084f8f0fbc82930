"""A batch that does not fit is an error that names the one that does, never another batch."""

import json

import pytest
import torch
from typer.testing import CliRunner

from advmix_cli import build, fitting, memory, run
from advmix_cli.cli import app
from advmix_cli.errors import MemoryExhaustedError
from advmix_cli.networks.preactivation import PreActivationNetwork
from advmix_cli.report.results import Results
from advmix_cli.training.batch import OnBatch

CPU = torch.device("cpu")


@pytest.fixture
def holding(monkeypatch):
    """holding(n): every network runs out of memory with more than n images in train mode."""
    monkeypatch.setattr(memory, "release", lambda: None)  # in a process as large as this one it takes its time
    monkeypatch.setattr("advmix_cli.fit.release", lambda: None)
    monkeypatch.setattr("advmix_cli.engine.release", lambda: None)
    forward = PreActivationNetwork.forward

    def limit(most):
        def limited(self, x):
            if self.training and len(x) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return forward(self, x)

        monkeypatch.setattr(PreActivationNetwork, "forward", limited)

    return limit


def told(recipe, directory, watch):
    with pytest.raises(MemoryExhaustedError) as caught:
        run.execute(recipe, directory, CPU, watch)
    assert caught.value.exit_code == 1
    assert not (directory / "model.safetensors").exists()
    assert not Results.load(directory).finished
    return str(caught.value)


@pytest.mark.parametrize("compiled", ["off", "step"])
@pytest.mark.parametrize(("most", "asked"), [(63, 64), (40, 64), (2, 64), (100, 128)])
def test_the_largest_batch_that_fits_is_named(tiny, tmp_path, watch, holding, monkeypatch, compiled, most, asked):
    monkeypatch.setattr(torch, "compile", lambda function, **_settings: function)
    holding(most)
    recipe = tiny(f'engine.compile="{compiled}"', f"schedule.batch_size={asked}", "model.width=1")
    text = told(recipe, tmp_path / "run", watch)
    start = f"out of memory on cpu with schedule.batch_size = {asked}: the largest batch that fits is "
    assert text.startswith(start)
    found = int(text.removeprefix(start).split(";")[0])
    assert most * 31 / 32 <= found <= most
    assert text == (
        f"{start}{found}; --set schedule.batch_size={found} (the learning rate may want to follow), "
        "or --set 'engine.precision=\"bf16\"'"
    )


@pytest.mark.parametrize(("compiled", "way"), [("step", "--set 'engine.compile=\"off\"', or "), ("off", "")])
def test_where_an_eager_batch_fits_no_smaller_one_is_named(tiny, tmp_path, watch, holding, monkeypatch, compiled, way):
    """What ran out may have been the capture, which needs more; naming one image less would never end."""

    def exhausted(*_arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    holding(64)
    monkeypatch.setattr("advmix_cli.engine.prepare", exhausted)
    text = told(tiny(f'engine.compile="{compiled}"', "model.width=1"), tmp_path / "run", watch)
    assert text == (
        "out of memory on cpu, where an eager batch of schedule.batch_size = 64 fits by itself: "
        f"{way}choose a smaller batch"
    )


def test_what_the_training_had_is_given_back_before_the_search(tiny, tmp_path, watch, holding, monkeypatch):
    holding(10)
    done = []
    monkeypatch.setattr("advmix_cli.fit.release", lambda: done.append("given back"))
    monkeypatch.setattr(fitting, "advice", lambda *_: done.append("searched") or "advice")
    assert told(tiny("model.width=1"), tmp_path / "run", watch) == "advice"
    assert done == ["given back", "searched"]


def test_a_batch_that_fits_trains_without_a_word(tiny, tmp_path, watch, holding):
    holding(64)
    assert run.execute(
        tiny("model.width=1", "evaluators=[]", "schedule.epochs=1"), tmp_path / "run", CPU, watch
    ).finished


def test_where_no_batch_fits_the_model_or_the_device_is_too_much(tiny, tmp_path, watch, holding):
    holding(1)
    text = told(tiny("model.width=1"), tmp_path / "run", watch)
    assert text == "out of memory on cpu: not even a batch of 2 images fits; choose a smaller model or another device"


def test_bf16_is_no_advice_to_who_has_it(tiny, tmp_path, watch, holding):
    holding(40)
    text = told(tiny("model.width=1", 'engine.precision="bf16"'), tmp_path / "run", watch)
    assert text.endswith("(the learning rate may want to follow)")


def test_of_a_batch_that_is_the_whole_training_set_its_true_size_is_named(tiny, tmp_path, watch, holding):
    holding(20)
    text = told(tiny("model.width=1", "data.train_limit=30", "schedule.batch_size=500"), tmp_path / "run", watch)
    assert text.startswith("out of memory on cpu with schedule.batch_size = 30: the largest batch that fits is 20;")


@pytest.mark.parametrize("asked", [2, 3])
def test_one_image_is_no_batch(tiny, holding, asked):
    holding(1)
    recipe = tiny("model.width=1")
    images = build.dataset(recipe, CPU, print)
    assert fitting.largest_batch(recipe, images, CPU, at_most=asked - 1) == 0


def test_a_fault_that_is_no_lack_of_memory_is_not_taken_for_one(tiny, tmp_path, watch, monkeypatch):
    def broken(_self, _x):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(PreActivationNetwork, "forward", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        run.execute(tiny('engine.compile="off"'), tmp_path / "run", CPU, watch)


def test_the_search_trains_on_nothing_that_is_kept(tiny, holding):
    holding(40)
    recipe = tiny("model.width=1")
    images = build.dataset(recipe, CPU, print)
    before = torch.get_rng_state(), images.fingerprints()
    assert fitting.largest_batch(recipe, images, CPU, at_most=64) in (39, 40)
    assert fitting.largest_batch(recipe, images, CPU, at_most=30) == 30
    assert torch.equal(torch.get_rng_state(), before[0])
    assert images.fingerprints() == before[1]


def test_a_batch_that_fits_only_before_the_optimizer_has_moments_is_too_large(tiny, monkeypatch):
    true = OnBatch.__call__

    def second(self, batch):
        if self.step.optimizer.state and len(batch.indices) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return true(self, batch)

    monkeypatch.setattr(OnBatch, "__call__", second)
    recipe = tiny("model.width=1", "optimizer={kind='adam', lr=0.01}")
    assert fitting.largest_batch(recipe, build.dataset(recipe, CPU, print), CPU, at_most=64) == 10


def test_the_command_ends_with_1_and_one_message(tmp_path, monkeypatch, holding):
    holding(10)
    monkeypatch.chdir(tmp_path)
    words = ["--set", "model.width=1", "--set", "data.train_limit=64", "--set", "schedule.batch_size=32"]
    done = CliRunner().invoke(app, ["train", "digits", "--out", "run", "--device", "cpu", *words])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert "the largest batch that fits is 10; --set schedule.batch_size=10" in " ".join(done.stderr.split())
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text() or "null") is None
