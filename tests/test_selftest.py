"""The test that users run."""

import random
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from interrupted import CPU, SMALL
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from advmix_cli import build, run, selftest
from advmix_cli.cli import app
from advmix_cli.errors import AdvmixError
from advmix_cli.recipe.load import load
from advmix_cli.report.results import Results
from advmix_cli.selftest import Trial, _different, _finish, _started


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


def test_trials_are_of_trainings_that_were_killed_before_their_end(tiny, monkeypatch):
    """Nothing is trained: of five, the first one has ended before it is killed."""
    recipe, commands, waits = tiny("evaluators=[{kind='pristine'}]"), [], []
    states, said = [(1, 3), (1, 4), (2, 1), None], ["", "resumed at epoch 1, after 3 of its 4", "", "", ""]

    class Training(SimpleNamespace):
        def wait(self, seconds=None):
            waits.append(seconds)
            if len(waits) == 2:
                Results("t", 0, "d", 2, 9, {}, finished=True).save(self.directory)
            if len(waits) == 5:
                (self.directory / "model.safetensors").touch()
            if len(waits) > 2:
                raise subprocess.TimeoutExpired("advmix", seconds)

    @contextmanager
    def started(command, directory):
        commands.append(command)
        assert load(command[4], []) == recipe.model_copy(update={"evaluators": ()})
        directory.mkdir()
        yield Training(directory=directory)

    times = SimpleNamespace(perf_counter=iter([5.0, 15.0]).__next__, monotonic_ns=lambda: len(waits))
    monkeypatch.setattr(selftest, "time", times)
    monkeypatch.setattr(selftest, "_started", started)
    monkeypatch.setattr(selftest, "_finish", lambda *_: said.pop(0))
    monkeypatch.setattr(selftest, "reached", lambda _: states.pop(0))
    monkeypatch.setattr(selftest, "_different", lambda *places: [place.name for place in places])
    found = list(selftest.trials(recipe, 4, "cuda:3", 7))
    moments = random.Random(7)
    after = [moments.uniform(0, 10.0) for _ in range(5)]
    assert waits == [None, *after]
    assert [(one.number, one.after, one.found, one.resumed) for one in found] == [
        (1, after[1], "epoch 1, batch 3", True),
        (2, after[2], "epoch 1, batch 4", False),
        (3, after[3], "the end", True),
        (4, after[4], "none", False),
    ]
    assert [one.different for one in found] == [("whole", Path(command[-1]).name) for command in commands[2:]]
    words = ["--device", "cuda:3", "--resume", "--save-every", "0s", "--out"]
    assert [command[5:-1] for command in commands] == [words] * 6


def test_what_is_started_is_killed_at_once_when_it_has_a_state(tmp_path):
    """By what no training can answer with a state."""
    code = f"import pathlib, time; at = pathlib.Path({str(tmp_path)!r}, 'state'); at.mkdir(); (at / '1.json').touch()"
    with _started([sys.executable, "-c", f"{code}; time.sleep(600)"], tmp_path) as process:
        assert process.poll() is None
        assert (tmp_path / "state" / "1.json").exists()
    assert process.returncode == -signal.SIGKILL


def test_a_training_that_fails_of_itself_ends_the_trials(tmp_path):
    code = "import sys; print(sys.argv[1], 'it broke', file=sys.stderr); sys.exit(7)"
    with pytest.raises(AdvmixError) as caught:
        _finish([sys.executable, "-c", code], tmp_path)
    assert str(caught.value) == f"the training ended with 7: {tmp_path} it broke"


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
    for changed in (fewer, *({**state, name: state[name].view(*how)} for how in ((torch.int32,), (-1, 1)))):
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
    for changed in ({"finished": False}, {"machines": ()}):
        replace(Results.load(one), **changed).save(other)
        assert list(_different(one, other)) == ["results.json"]
