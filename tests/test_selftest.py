"""The test that users run."""

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from interrupted import CPU, SMALL
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from advmix_cli import build, run, selftest
from advmix_cli.cli import app
from advmix_cli.report.results import Results
from advmix_cli.selftest import Trial, _different


@pytest.mark.slow
def test_killed_at_random_moments_a_training_ends_with_the_same_bits():
    words = [sys.executable, "-m", "advmix_cli", "selftest", "resume", "--kills", "3"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 of 3 resumed, 3 of 3 ended bitwise identical\n"
    assert done.stderr.count("ended bitwise identical") == 3


@pytest.mark.parametrize(("place", "wanted"), [("cpu", False), ("cuda", True)])
def test_on_a_gpu_it_asks_for_the_same_bits(monkeypatch, place, wanted):
    tried = []

    def trials(recipe, *_):
        tried.append(recipe.engine.deterministic)
        return iter([Trial(1, 0.5, "epoch 1, batch 1", True, ())])

    monkeypatch.setattr(selftest, "trials", trials)
    monkeypatch.setattr(build, "device", lambda _: torch.device(place))
    done = CliRunner().invoke(app, ["selftest", "resume"])
    assert (done.exit_code, tried) == (0, [wanted])
    assert ("with engine.deterministic = true" in done.stderr) == wanted


def test_a_difference_in_one_bit_is_seen(tiny, tmp_path, watch):
    recipe = tiny(*SMALL)
    for name in ("one", "other"):
        run.execute(recipe, tmp_path / name, CPU, watch)
    one, other = tmp_path / "one", tmp_path / "other"
    assert list(_different(one, other)) == []
    content = bytearray((other / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (other / "model.safetensors").write_bytes(content)
    (found,) = _different(one, other)
    assert found.startswith("model.safetensors: ")
    lines = (other / "metrics.jsonl").read_text()
    (other / "metrics.jsonl").write_text(lines.replace('"epoch": 2', '"epoch": 20'))
    assert list(_different(one, other)) == [found, "metrics.jsonl"]


def test_what_is_missing_unfinished_or_of_another_type_is_seen(tiny, tmp_path, watch):
    one, other = tmp_path / "one", tmp_path / "other"
    run.execute(tiny("schedule.epochs=1", "evaluators=[]"), one, CPU, watch)
    shutil.copytree(one, other)
    state, name = load_file(one / "model.safetensors"), "linear.bias"
    fewer = {key: value for key, value in state.items() if key != name}
    for changed in (fewer, {**state, name: state[name].view(torch.int32)}):
        save_file(changed, other / "model.safetensors")
        for pair in ((one, other), (other, one)):
            assert list(_different(*pair)) == [f"model.safetensors: {name}"]
    (other / "model.safetensors").unlink()
    for pair in ((one, other), (other, one)):
        assert list(_different(*pair)) == ["model.safetensors"]
    shutil.copy(one / "model.safetensors", other)
    (other / "state").mkdir()
    assert list(_different(one, other)) == ["results.json"]
    (other / "state").rmdir()
    assert list(_different(one, other)) == []
    replace(Results.load(one), finished=False).save(other)
    assert list(_different(one, other)) == ["results.json"]
