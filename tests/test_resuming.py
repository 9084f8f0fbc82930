"""A training that was stopped goes on as if it had not been: the same bits in weights, buffers and metrics."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import tomli_w
import torch
from safetensors.torch import load_file

from advmix_cli import fit, machine, run, state
from advmix_cli.errors import RunDirectoryError, StoppedError
from advmix_cli.fit import Keeping
from advmix_cli.locks import held
from advmix_cli.report.results import Results
from advmix_cli.stopping import Stop, stoppable
from advmix_cli.training import resuming

CPU = torch.device("cpu")
OPTIMIZERS = {
    "sgd": '{kind="sgd", lr=0.1}',
    "sgd without momentum": '{kind="sgd", lr=0.1, momentum=0.0}',
    "adam": '{kind="adam", lr=0.01}',
    "adamw": '{kind="adamw", lr=0.01}',
    "yogi": '{kind="yogi", lr=0.01}',
}
SMALL = ["schedule.epochs=3", "schedule.batch_size=32", "evaluators=[]"]  # 3 epochs of 4 batches


class StopAt(Stop):
    """Asked to stop at its n-th check."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def check(self):
        self.left -= 1
        if self.left == 0:
            self.asked = StoppedError("stopped by a test", 1)
        super().check()


def bits(directory):
    """All that a training leaves, without what it says of time."""
    files = sorted(path.name for path in directory.glob("*.safetensors"))
    tensors = {name: load_file(directory / name) for name in files}
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    timeless = [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]
    return tensors, timeless


def same(one, other):
    (tensors, lines), (others, other_lines) = one, other
    return (
        lines == other_lines
        and tensors.keys() == others.keys()
        and all(
            tensors[file].keys() == others[file].keys()
            and all(torch.equal(value, others[file][name]) for name, value in tensors[file].items())
            for file in tensors
        )
    )


@pytest.fixture
def whole(tiny, tmp_path, watch):
    """whole(*settings): (the recipe, the bits of its uninterrupted training)."""

    def train(*settings):
        recipe = tiny(*SMALL, *settings)
        run.execute(recipe, tmp_path / "whole", CPU, watch)
        return recipe, bits(tmp_path / "whole")

    return train


def stopped(recipe, directory, watch, at, every=1e9):
    with pytest.raises(StoppedError, match="stopped by a test"):
        run.execute(recipe, directory, CPU, watch, Keeping(every, StopAt(at)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_stop_in_mid_epoch_changes_no_bit(whole, tmp_path, watch, said, name):
    recipe, expected = whole(f"optimizer={OPTIMIZERS[name]}", 'maximizer.ascent.batch_norm="train"')
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=3)
    assert {path.name for path in part.iterdir()} == {".lock", "metrics.jsonl", "recipe.toml", "results.json", "state"}
    assert Results.load(part).finished is False
    run.execute(recipe, part, CPU, watch)
    assert same(bits(part), expected)
    assert "resumed at epoch 1, after 3 of its 4 batches" in said.getvalue()
    assert not (part / "state").exists()


def test_every_place_to_stop_is_as_good_as_any_other(whole, tmp_path, watch):
    """Between batches, before and after a validation, and several times in one training."""
    recipe, expected = whole("loss.pristine_weight=0.5")
    for at in (1, 4, 5, 6, 10, 15):
        part = tmp_path / f"part {at}"
        stopped(recipe, part, watch, at)
        run.execute(recipe, part, CPU, watch)
        assert same(bits(part), expected), at
    often, turns = tmp_path / "often", 0
    while not (often / "model.safetensors").exists():
        turns += 1
        try:
            run.execute(recipe, often, CPU, watch, Keeping(1e9, StopAt(2)))
        except StoppedError:
            continue
    assert turns >= 7
    assert same(bits(often), expected)


def test_a_state_that_is_damaged_is_said_and_the_one_before_it_is_used(whole, tmp_path, watch, said):
    recipe, expected = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7, every=0)
    manifests = sorted((part / "state").glob("*.json"))
    assert len(manifests) == state.KEPT == len(list((part / "state").glob("*.safetensors")))
    newest = manifests[-1].with_suffix(".safetensors")
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    run.execute(recipe, part, CPU, watch)
    assert f"{manifests[-1]} is damaged (ValueError('its tensors are not those that were saved'))" in said.getvalue()
    assert same(bits(part), expected)


def test_without_a_whole_state_it_starts_again(whole, tmp_path, watch):
    recipe, expected = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7)
    for manifest in (part / "state").glob("*.json"):
        manifest.write_text(manifest.read_text()[:-20])
    run.execute(recipe, part, CPU, watch)
    assert same(bits(part), expected)


def test_a_torn_last_line_of_the_metrics_is_left_out(whole, tmp_path, watch):
    recipe, expected = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7)
    with (part / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"epoch": 2, "lo')
    run.execute(recipe, part, CPU, watch)
    assert same(bits(part), expected)


@pytest.mark.parametrize(
    ("lost", "words"), [("metrics.jsonl", "lacks an epoch that has been trained"), ("best.safetensors", "no such file")]
)
def test_a_file_that_is_lost_is_an_error_and_not_another_result(whole, tmp_path, watch, lost, words):
    recipe, _ = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7)
    (part / lost).unlink()
    with pytest.raises(RunDirectoryError, match=words):
        run.execute(recipe, part, CPU, watch)


def test_another_machine_is_noticed_before_it_goes_on(whole, tmp_path, watch, said, monkeypatch):
    recipe, _ = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=3)
    monkeypatch.setattr(machine, "device_name", lambda _: "another machine")
    run.execute(recipe, part, CPU, watch)
    assert "warning: not bit for bit what an uninterrupted training would be: device was " in said.getvalue()
    assert ", is another machine\n" in said.getvalue()


def test_the_tensors_of_another_training_are_refused(tiny):
    from advmix_cli import build

    recipe, other = tiny(), tiny("model.width=3")
    images = build.dataset(recipe, CPU, print)
    one, two = (build.training(each, images, build.new_network(each, images, CPU)) for each in (recipe, other))
    with pytest.raises(RuntimeError):
        resuming.restore(two, resuming.tensors(one, fit.Progress()), 1, 0, ())


def test_an_unfinished_training_wants_resume(tiny, tmp_path, watch):
    from typer.testing import CliRunner

    from advmix_cli.cli import app

    recipe = tiny(*SMALL)
    path, part = tmp_path / "r.toml", tmp_path / "part"
    path.write_text(tomli_w.dumps(recipe.resolved()))
    stopped(recipe, part, watch, at=3)
    found = CliRunner().invoke(app, ["train", str(path), "--out", str(part)])
    assert (found.exit_code, found.stdout) == (2, "")
    assert "holds an unfinished training: go on with --resume" in " ".join(found.stderr.split())
    found = CliRunner().invoke(app, ["train", str(path), "--out", str(part), "--resume"])
    assert found.exit_code == 0, found.output
    assert CliRunner().invoke(app, ["train", str(path), "--out", str(part), "--resume"]).exit_code == 0


# ---- signals, time and locks ---------------------------------------------------------------------------------------


def send(number):
    """To this process, which hears it between two instructions."""
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 138)])
def test_a_signal_waits_for_a_check_or_raises(name, code):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with stoppable() as stop:
        with stop.heard_at_checks():
            send(number)
            assert stop.asked
        with pytest.raises(StoppedError, match=f"stopped by {name}") as caught:
            stop.check()
    assert caught.value.exit_code == code
    with stoppable(), pytest.raises(StoppedError):
        send(number)
    assert signal.getsignal(number) == before


def test_a_second_interrupt_ends_at_once():
    with stoppable() as stop, stop.heard_at_checks():
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt) as caught:
            send(signal.SIGINT)
    assert not isinstance(caught.value, StoppedError)


def test_within_a_wait_some_work_is_ended_at_once():
    with stoppable() as stop, stop.heard_at_checks():
        with pytest.raises(StoppedError), stop.heard_at_once():
            send(signal.SIGTERM)
        with pytest.raises(StoppedError), stop.heard_at_once():
            pytest.fail("it was asked before")


def test_the_end_of_the_time_is_no_failure():
    with stoppable(0.05), pytest.raises(StoppedError, match="time is up") as caught:
        time.sleep(1)
    assert caught.value.exit_code == 0


def test_what_catches_errors_does_not_catch_a_stop():
    assert not issubclass(StoppedError, Exception)


def command(recipe, directory, *words):
    words = [sys.executable, "-m", "advmix_cli", "train", str(recipe), "--out", str(directory), "--resume", *words]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def long(tiny, tmp_path):
    """A recipe that trains for minutes."""
    path = tmp_path / "long.toml"
    path.write_text(tomli_w.dumps(tiny("schedule.epochs=9999", "engine.threads=1").resolved()))
    return path


def wait_for(path, process):
    for _ in range(600):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError(f"{path} did not come to be")


def test_a_process_that_is_told_to_stop_saves_and_says_how_to_go_on(long, tmp_path):
    part = tmp_path / "part"
    process = command(long, part)
    wait_for(part / "metrics.jsonl", process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    out, said = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, "")
    assert f"unfinished: stopped by SIGTERM; the same command with --resume goes on in {part}" in said
    assert "Traceback" not in said
    assert list((part / "state").glob("*.json"))
    process = command(long, part, "--stop-after", "12s", "--json")
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert json.loads(out)["unfinished"] == "time is up"
    assert json.loads(out)["finished"] is False


def test_a_directory_has_one_holder_which_is_named_and_a_killed_one_frees_it(long, tmp_path):
    part = tmp_path / "part"
    process = command(long, part)
    wait_for(part / "metrics.jsonl", process)
    second = command(long, part)
    out, said = second.communicate(timeout=60)
    assert (second.returncode, out) == (2, "")
    assert f"{part} is in use: process {process.pid} on " in said
    process.kill()
    process.communicate()
    with held(part):
        pass


def test_of_many_at_once_one_works(tmp_path):
    entered, refused, start = [], [], threading.Barrier(8)

    def enter():
        start.wait()
        try:
            with held(tmp_path / "run"):
                entered.append(1)
                time.sleep(0.3)
        except RunDirectoryError:
            refused.append(1)

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(entered), len(refused)) == (1, 7)


@pytest.mark.slow
def test_killed_at_random_moments_a_training_ends_with_the_same_bits():
    words = [sys.executable, "-m", "advmix_cli", "selftest", "resume", "--kills", "3"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 of 3 resumed, 3 of 3 ended bitwise identical\n"
    assert done.stderr.count("ended bitwise identical") == 3


def test_a_difference_in_one_bit_is_seen(tiny, tmp_path, watch):
    from advmix_cli.selftest import _different

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


def test_after_damage_to_all_states_the_new_ones_are_kept(whole, tmp_path, watch):
    recipe, expected = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=9, every=0)
    for manifest in (part / "state").glob("*.json"):
        manifest.write_text("{")
    stopped(recipe, part, watch, at=2)
    assert [path.stem for path in (part / "state").glob("*.json")] == ["000001-000002"]
    run.execute(recipe, part, CPU, watch)
    assert same(bits(part), expected)


def test_killed_right_after_the_last_weights_it_still_knows_how_they_came_to_be(tiny, tmp_path, watch, monkeypatch):
    recipe, part = tiny(*SMALL), tmp_path / "part"
    with monkeypatch.context() as patch:
        patch.setattr("advmix_cli.run.shutil.rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run.execute(recipe, part, CPU, watch, Keeping(every=0))
    assert (part / "model.safetensors").exists()
    assert (part / "state").exists()
    results = run.execute(recipe, part, CPU, watch)
    assert results.finished
    assert [machine["engine"] for machine in results.machines] == ["eager"]
    assert results.seconds > 0
    assert not (part / "state").exists()


def test_killed_in_the_very_first_write_the_directory_can_be_used_and_is_cleaned(tiny, tmp_path, watch):
    part = tmp_path / "part"
    part.mkdir()
    for name in (".lock", ".recipe.toml.abc"):
        (part / name).touch()
    run.execute(tiny(*SMALL), part, CPU, watch)
    assert not (part / ".recipe.toml.abc").exists()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "thesis.txt")
    with pytest.raises(RunDirectoryError, match="cannot be written"), held(tmp_path / "run"):
        pytest.fail("entered")
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("text", ["0", "0s", "-1s", "soon", "1d", ""])
def test_a_time_is_a_time(text):
    from typer.testing import CliRunner

    from advmix_cli.cli import app

    found = CliRunner().invoke(app, ["train", "digits", "--stop-after", text])
    assert found.exit_code == 2
    assert "write 90s, 9m or 1.5h" in " ".join(found.stderr.replace("│", " ").split())


def test_a_signal_after_the_last_batch_loses_nothing(tiny, tmp_path, watch, monkeypatch):
    recipe, part = tiny(*SMALL), tmp_path / "part"
    true = fit._Fit._save

    def signalled(self, network, name, selection, line):
        if name == "model.safetensors":
            send(signal.SIGTERM)
        true(self, network, name, selection, line)

    monkeypatch.setattr(fit._Fit, "_save", signalled)
    with stoppable() as stop, pytest.raises(StoppedError, match="SIGTERM"):
        run.execute(recipe, part, CPU, watch, Keeping(1e9, stop))
    assert (part / "model.safetensors").exists()
    assert run.execute(recipe, part, CPU, watch).finished
