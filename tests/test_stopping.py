"""How work is stopped from outside, and what it leaves."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import typer
from interrupted import CPU, SMALL
from processes import command, wait_for
from typer.testing import CliRunner

from advmix_cli import run, stopping
from advmix_cli.cli import app
from advmix_cli.commands.options import some_seconds
from advmix_cli.errors import StoppedError
from advmix_cli.evaluation.pgd import Pgd
from advmix_cli.fit import Keeping
from advmix_cli.stopping import stoppable
from advmix_cli.training_files import TrainingFiles


def send(number):
    """To this process, which hears it between two instructions."""
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 138), ("SIGUSR2", 140)])
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


def imported(directory, monkeypatch, code):
    """Import a module of that code; an import that was broken off would leave no attribute `end`."""
    (directory / "slowly.py").write_text(f"import os, signal, time\n{code}\nend = True\n")
    monkeypatch.syspath_prepend(directory)
    monkeypatch.delitem(sys.modules, "slowly", raising=False)
    return importlib.import_module("slowly")


def test_a_signal_waits_for_an_import(tmp_path, monkeypatch):
    """From within a function that the module calls, too."""
    code = "def work():\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(0.225)\nwork()"
    with stoppable() as stop:
        assert imported(tmp_path, monkeypatch, code).end
        assert stop.asked is None
        with pytest.raises(StoppedError, match="stopped by SIGTERM"):
            time.sleep(1)


def test_a_signal_does_not_wait_for_an_import_that_never_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "LONGEST_IMPORT", 0.2)
    started = time.perf_counter()
    code = "os.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)"
    with pytest.raises(StoppedError, match="stopped by SIGINT"), stoppable():
        imported(tmp_path, monkeypatch, code)
    assert 0.2 < time.perf_counter() - started < 10


def test_within_a_wait_some_work_is_ended_at_once():
    with stoppable() as stop, stop.heard_at_checks():
        with pytest.raises(StoppedError), stop.heard_at_once():
            send(signal.SIGTERM)
        with pytest.raises(StoppedError), stop.heard_at_once():
            pytest.fail("it was asked before")


def test_the_end_of_the_time_is_no_failure():
    with pytest.raises(StoppedError, match="time is up") as caught, stoppable(0.05):
        time.sleep(1)
    assert caught.value.exit_code == 0


def test_what_catches_errors_does_not_catch_a_stop():
    assert not issubclass(StoppedError, Exception)


def test_a_process_that_is_told_to_stop_saves_and_says_how_to_go_on(long, tmp_path):
    part = tmp_path / "part"
    process = command(long, part)
    wait_for(part / "metrics.jsonl", process)
    while not (part / "metrics.jsonl").read_bytes():
        time.sleep(0.05)
    # Twice: srun delivers SLURM's to every process of a step, and the parent of this one passes it on.
    process.send_signal(signal.SIGUSR2)
    process.send_signal(signal.SIGUSR2)
    out, said = process.communicate(timeout=300)
    assert (process.returncode, out) == (140, "")
    assert f"unfinished: stopped by SIGUSR2; the same command with --resume goes on in {part}" in said
    assert "Traceback" not in said
    assert list((part / "state").glob("*.json"))
    process = command(long, part, "--stop-after", "9s", "--json")
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert json.loads(out)["unfinished"] == "time is up"
    assert json.loads(out)["finished"] is False


@pytest.mark.parametrize("text", ["0", "0s", "-1s", "soon", "1d", ""])
def test_a_time_is_a_time(text):
    found = CliRunner().invoke(app, ["train", "digits", "--stop-after", text])
    assert found.exit_code == 2
    assert "write 90s, 9m or 1.5h" in " ".join(found.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("9m", 540), ("4h", 14_400), ("1.5h", 5400), (" 7 ", 7), ("100000000", 10**8)]
)
def test_a_time_is_so_many_seconds(text, seconds):
    assert some_seconds(text) == seconds


def test_a_time_is_no_more_than_three_years():
    with pytest.raises(typer.BadParameter, match="'100000001' is more than three years"):
        some_seconds("100000001")


def test_a_signal_after_the_last_batch_loses_nothing(tiny, tmp_path, watch, monkeypatch):
    recipe, part = tiny(*SMALL), tmp_path / "part"
    true = TrainingFiles.save

    def signalled(self, weights, selection, *rest, **more):
        if selection == "last":
            send(signal.SIGTERM)
        return true(self, weights, selection, *rest, **more)

    monkeypatch.setattr(TrainingFiles, "save", signalled)
    with stoppable() as stop, pytest.raises(StoppedError, match="SIGTERM"):
        run.execute(recipe, part, CPU, watch, Keeping(1e9, stop))
    assert (part / "model.safetensors").exists()
    assert run.execute(recipe, part, CPU, watch).finished


def test_an_evaluation_that_is_told_to_stop_says_how_to_go_on(tiny, tmp_path, watch, monkeypatch):
    pgd = "{kind='pgd', steps=2, step_size='1/255', epsilon='2/255', batch_size=1}"
    recipe, part, attack, looks = tiny(*SMALL[:2], f"evaluators=[{pgd}]"), tmp_path / "part", Pgd.attack, []
    run.execute(recipe, part, CPU, watch)

    def signalled(self, *arguments):
        looks.append(1)
        if len(looks) == signal_at:
            send(signal.SIGTERM)
        return attack(self, *arguments)

    monkeypatch.setattr(Pgd, "attack", signalled)
    words, signal_at = ["eval", str(part), "--device", "cpu", "--json"], None
    expected = json.loads(CliRunner().invoke(app, words).stdout)["outcomes"][0]["correct"]
    whole, signal_at = len(looks), len(looks) + 3
    done = CliRunner().invoke(app, words)
    found = json.loads(done.stdout)
    assert (done.exit_code, found["finished"], found["outcomes"]) == (143, False, [])
    assert found["unfinished"] == "stopped by SIGTERM"
    assert (
        "unfinished: stopped by SIGTERM; the same command goes on with the attack and the batch where it was"
        in done.stderr
    )
    assert len(looks) == whole + 3
    done = CliRunner().invoke(app, words)
    found = json.loads(done.stdout)
    assert (done.exit_code, found["finished"], found["outcomes"][0]["correct"]) == (0, True, expected)
    assert len(looks) == whole + 3 + (whole - 2)  # the third look was interrupted


def test_an_interrupt_while_the_program_ends_says_nothing():
    """Nothing is left to be saved, and the interpreter prints an exception that nobody can catch any more."""
    program = (
        "import atexit, os, signal, sys; from advmix_cli.cli import main; sys.argv = ['advmix', '--version']; "
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT)); main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
    assert done.stdout.startswith("advmix ")


INTERRUPTED_IMPORT = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == "advmix_cli.cli":
            os.kill(os.getpid(), signal.SIGINT)
from advmix_cli.__main__ import run
sys.meta_path.insert(0, Interrupt())
run()
"""


def test_a_ctrl_c_while_the_program_is_imported_ends_it_without_a_word():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
