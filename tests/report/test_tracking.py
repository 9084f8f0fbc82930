"""A mirror holds each epoch once, whatever happened before; and nothing that happens to it stops a training."""

import json
import os
import struct
import subprocess
import sys
import time

import pytest
from interrupted import CPU, SMALL, bits, stopped
from made import write_run
from typer.testing import CliRunner
from wandb_server import server

from advmix_cli import run
from advmix_cli.cli import app
from advmix_cli.errors import StoppedError, UsageError
from advmix_cli.report import tracking
from advmix_cli.report.progress import Watcher
from advmix_cli.report.results import Results
from advmix_cli.report.tracking import check, tracked
from advmix_cli.rundir import METRICS


class Silent(Watcher):
    def __init__(self):
        self.said = []

    def begin(self, what, total, unit):
        pass

    def advance(self, done, note=""):
        pass

    def epoch(self, line):
        pass

    def say(self, line):
        self.said.append(line)


def scalars(directory):
    """{tag: [(step, value), ...]} of an event file, read by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(directory / "tensorboard"))
    read.Reload()
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def records(path):
    """Of an offline run's file, which is LevelDB's log after seven bytes."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return found


def history(directory):
    """The steps and losses of an offline run, and its summary."""
    (path,) = (directory / "wandb").glob("offline-run-*/*.wandb")
    until = time.monotonic() + 30
    # Another process writes it, and is told of the end a moment before it has written that.
    while not any(record.HasField("exit") for record in records(path)):
        assert time.monotonic() < until
        time.sleep(0.02)
    steps, summary = [], {}
    for record in records(path):
        items = {(one.key or ".".join(one.nested_key)): json.loads(one.value_json) for one in record.history.item}
        steps += [(items["_step"], items["loss"])] if "loss" in items else []
        summary |= {(one.key or ".".join(one.nested_key)): one.value_json for one in record.summary.update}
    return steps, summary


def lines(directory):
    return [json.loads(line) for line in (directory / METRICS).read_text().splitlines()]


def train(recipe, directory, watch, kinds=("tensorboard",), keeping=None):
    with tracked(kinds, recipe, directory, METRICS, watch) as told:
        return run.execute(recipe, directory, CPU, told, keeping)


def test_each_epoch_and_each_result_is_there_once(tiny, tmp_path):
    judges = 'evaluators=[{kind="pristine"}, {kind="pristine", split="train"}]'
    found = train(tiny("schedule.epochs=3", judges), tmp_path / "run", Silent())
    there, epochs = scalars(tmp_path / "run"), lines(tmp_path / "run")
    assert len(epochs) == 3
    for name in ("loss", "lr", "validation_accuracy", "validation_pgd_accuracy", "inner_loss_after", "seconds"):
        assert there[name] == [(line["epoch"], pytest.approx(line[name])) for line in epochs]
    assert "epoch" not in there
    for name, outcome in zip(
        ("test/last/pristine", "train/last/pristine train"), found.of("last").outcomes, strict=True
    ):
        assert there[name] == [(3, pytest.approx(outcome.accuracy))]


def test_after_a_stop_and_a_resume_each_epoch_is_there_once(tiny, tmp_path):
    recipe, directory = tiny(*SMALL), tmp_path / "run"
    watch = Silent()
    with tracked(["tensorboard"], recipe, directory, METRICS, watch) as told:
        stopped(recipe, directory, told, at=7)
    assert [step for step, _ in scalars(directory)["loss"]] == [1]
    earlier = {path.name for path in (directory / "tensorboard").iterdir()}
    train(recipe, directory, watch)
    assert scalars(directory)["loss"] == [(line["epoch"], pytest.approx(line["loss"])) for line in lines(directory)]
    assert not earlier & {path.name for path in (directory / "tensorboard").iterdir()}
    assert not any("--track" in line for line in watch.said)


def test_an_epoch_that_is_trained_anew_is_not_there_twice(tiny, tmp_path):
    """Killed after an epoch, before its state was saved: the next process goes on before it."""
    recipe, directory = tiny(*SMALL), tmp_path / "run"
    stopped(recipe, directory, Silent(), at=6)
    with (directory / METRICS).open("a") as stream:
        stream.write(json.dumps({"epoch": 2, "loss": 99.0}) + "\n")
    (directory / "tensorboard").mkdir()
    train(recipe, directory, Silent())
    losses = scalars(directory)["loss"]
    assert [step for step, _ in losses] == [1, 2, 3]
    assert 99.0 not in [value for _, value in losses]


def test_tracking_changes_neither_bits_nor_digests(tiny, tmp_path):
    recipe = tiny(*SMALL)
    run.execute(recipe, tmp_path / "plain", CPU, Silent())
    train(recipe, tmp_path / "tracked", Silent())
    assert bits(tmp_path / "plain") == bits(tmp_path / "tracked")
    assert Results.load(tmp_path / "plain").digest == Results.load(tmp_path / "tracked").digest


def test_a_finished_run_can_be_mirrored_afterwards(tiny, tmp_path):
    recipe = tiny("schedule.epochs=2")
    run.execute(recipe, tmp_path / "run", CPU, Silent())
    for _ in range(2):
        train(recipe, tmp_path / "run", Silent())
        assert [step for step, _ in scalars(tmp_path / "run")["loss"]] == [1, 2]
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


def test_wandb_is_offline_whole_and_silent(tiny, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")  # a user's own
    recipe, directory = tiny("schedule.epochs=3", "schedule.batch_size=32"), tmp_path / "run"
    watch = Silent()
    with tracked(["wandb"], recipe, directory, METRICS, watch) as told:
        stopped(recipe, directory, told, at=7)
    train(recipe, directory, watch, ["wandb", "wandb"])
    assert not [line for line in watch.said if "--track" in line]
    steps, summary = history(directory)
    assert steps == [(line["epoch"], line["loss"]) for line in lines(directory)]
    assert len(steps) == 3
    for outcome in Results.load(directory).of("last").outcomes:
        assert json.loads(summary[f"test/last/{outcome.name}"]) == outcome.accuracy
    assert capfd.readouterr() == ("", "")


def test_wandb_sync_sends_each_epoch_once_after_a_resume(tiny, tmp_path):
    """To a server on this machine: Weights and Biases' own reader has to read what is there."""
    recipe, directory = tiny(*SMALL), tmp_path / "run"
    with tracked(["wandb"], recipe, directory, METRICS, Silent()) as told:
        stopped(recipe, directory, told, at=7)
    train(recipe, directory, Silent(), ["wandb"])
    history(directory)  # it is whole
    with server() as (address, got):
        own = {"HOME": str(tmp_path), "WANDB_BASE_URL": address, "WANDB_API_KEY": "a" * 40, "NO_PROXY": "127.0.0.1"}
        own["WANDB_SERVICE"] = ""  # or it would be done by the process of this one's mirror
        words = [sys.executable, "-m", "wandb", "sync", "wandb"]
        done = subprocess.run(
            words, cwd=directory, env={**os.environ, **own}, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    # One without files says that the run is over, or still there, where an answer took long.
    sent = [json.loads(text).get("files", {}) for path, text in got if path.endswith("/file_stream")]
    found = [json.loads(text) for files in sent for text in files.get("wandb-history.jsonl", {}).get("content", [])]
    assert [(one["_step"], one["loss"]) for one in found] == [(one["epoch"], one["loss"]) for one in lines(directory)]
    summary = [
        json.loads(files["wandb-summary.json"]["content"][-1]) for files in sent if "wandb-summary.json" in files
    ]
    for outcome in Results.load(directory).of("last").outcomes:
        assert summary[-1][f"test/last/{outcome.name}"] == outcome.accuracy
    assert {path for path, _ in got if path.startswith("/upload/")} == {
        "/upload/config.yaml", "/upload/wandb-summary.json"
    }, "nothing of the machine"  # fmt: skip


class Full:
    """A mirror that breaks at its n-th use."""

    def __init__(self, at):
        self.left = at

    def begin(self, *_):
        self.left -= 1
        if self.left <= 0:
            raise OSError(28, "No space left on device")

    add = result = close = begin


@pytest.mark.parametrize("at", [1, 2, 4, 5, 6])
def test_a_mirror_that_breaks_is_said_once_and_stops_nothing(tiny, tmp_path, monkeypatch, at):
    monkeypatch.setattr(tracking, "_mirror", lambda kind, *_: Full(at) if kind == "wandb" else REAL(kind, *_))
    watch = Silent()
    found = train(tiny("schedule.epochs=3"), tmp_path / "run", watch, ["wandb", "tensorboard"])
    assert found.finished
    warnings = [line for line in watch.said if line.startswith("warning: --track")]
    assert warnings == [
        f"warning: --track wandb has ended: OSError: [Errno 28] No space left on device; {tmp_path / 'run' / METRICS} "
        "has all of it"
    ]
    assert [step for step, _ in scalars(tmp_path / "run")["loss"]] == [1, 2, 3]


REAL = tracking._mirror


def test_a_stop_passes_through_a_mirror(tiny, tmp_path, monkeypatch):
    class Stopping(Full):
        def begin(self):
            raise StoppedError("stopped by SIGTERM", 143)

    monkeypatch.setattr(tracking, "_mirror", lambda *_: Stopping(1))
    with pytest.raises(StoppedError):
        train(tiny("schedule.epochs=2"), tmp_path / "run", Silent())


def test_a_link_is_not_followed(tiny, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("x")
    recipe = tiny("schedule.epochs=2")
    run.execute(recipe, tmp_path / "run", CPU, Silent())
    for kind in ("tensorboard", "wandb"):
        (tmp_path / "run" / kind).symlink_to(tmp_path / "elsewhere")
    watch = Silent()
    train(recipe, tmp_path / "run", watch, ["tensorboard", "wandb"])
    assert sum("is a link" in line for line in watch.said) == 2
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["mine"]


@pytest.mark.parametrize("command", ["train", "ablate"])
def test_a_missing_package_is_said_before_anything_starts(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wandb").mkdir()  # as a run directory has it: no package
    known = tracking.distribution

    def none(name):
        if name == "wandb":
            raise tracking.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(tracking, "distribution", none)
    done = CliRunner().invoke(app, [command, "digits", "--track", "tensorboard", "--track", "wandb"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: --track wandb needs a package that is missing: pip install 'advmix[wandb]'\n"
    assert [path.name for path in tmp_path.iterdir()] == ["wandb"]
    with pytest.raises(UsageError):
        check(["wandb"])
    check(["tensorboard"])


def test_cells_of_a_table_have_mirrors_of_their_own(tmp_path):
    quick = [
        "schedule.epochs=1", "data.train_limit=160", "data.test_limit=20", "maximizer.ascent.steps=1", "model.width=2",
        'evaluators=[{kind="pristine"}]', "validation.limit=5", "validation.steps=1",
    ]  # fmt: skip
    words = ["ablate", "digits", "--rows", "1", "--rows", "2", "--out", str(tmp_path), "--track", "tensorboard"]
    done = CliRunner().invoke(app, [*words, *(word for one in quick for word in ("--set", one)), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    directories = [path for path in (tmp_path / "digits").iterdir() if path.is_dir()]
    assert len(directories) == 2
    for directory in directories:
        assert [step for step, _ in scalars(directory)["loss"]] == [1]


def test_a_run_that_another_process_works_in_is_not_touched(tiny, tmp_path):
    recipe = tiny()
    write_run(tmp_path / "run", recipe, [], finished=False)
    with pytest.raises(UsageError), tracked(["tensorboard"], recipe, tmp_path / "run", METRICS, Silent()):
        raise UsageError("in use")
    assert not (tmp_path / "run" / "tensorboard").exists()
