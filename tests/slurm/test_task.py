"""What runs in a task, without a cluster: its child is a script."""

import json
import shutil
import signal
import sys
import threading
import time

import pytest

from advmix_cli.ablation.slurm import scheduler
from advmix_cli.ablation.slurm.task import Training
from advmix_cli.errors import AdvmixError, SchedulerError
from advmix_cli.locks import held

pytest.importorskip("submitit")


@pytest.fixture
def cell(tmp_path, monkeypatch):
    """cell(shell): the directory of a cell whose training is that script, in which $3 is the directory's recipe."""

    def write(shell):
        fake = tmp_path / "python"
        # It is also asked to be the one that ties it.
        tie = '[ "$1" = -I ] && shift 3 && exec "$@"'
        fake.write_text(f'#!/bin/sh\n{tie}\nshift 3; cd "$(dirname "$1")"; echo "$@" >> called\n{shell}\n')
        fake.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(fake))
        (tmp_path / "cell").mkdir()
        (tmp_path / "cell" / "recipe.toml").touch()
        return tmp_path / "cell"

    return write


@pytest.fixture
def training(tmp_path):
    return Training(str(tmp_path), "cpu", 300)


def calls(directory):
    return (directory / "called").read_text().splitlines()


@pytest.mark.parametrize("code", [0, 3])
def test_what_is_done_or_diverged_is_called_once(cell, training, code):
    directory = cell(f"exit {code}")
    (directory / "failure.json").write_text("{}")
    training(str(directory))
    assert calls(directory) == [
        f"{directory}/recipe.toml --out {directory} --resume --device cpu --save-every 300.000s"
    ]
    assert not (directory / "failure.json").exists()


@pytest.mark.parametrize(
    ("shell", "attempts", "code", "error"),
    [
        ("echo one >&2; echo 'error: no memory' >&2; exit 1", 2, 1, "no memory"),
        ("exit 1", 2, 1, "it said nothing"),
        ("kill -9 $$", 2, -9, "killed by SIGKILL, which is also what a system without memory sends"),
        ("echo 'error: no data'; exit 2", 1, 2, "no data"),
    ],
)
def test_what_fails_is_tried_twice_and_marked(cell, training, shell, attempts, code, error):
    directory = cell(shell)
    with pytest.raises(AdvmixError):
        training(str(directory))
    found = json.loads((directory / "failure.json").read_text())
    assert found == {"attempts": attempts, "exit_code": code, "error": error}
    assert len(calls(directory)) == attempts


def test_what_another_process_works_in_is_not_marked(cell, training):
    directory = cell("exit 2")
    with held(directory), pytest.raises(AdvmixError, match="is in use by another process"):
        training(str(directory))
    assert not (directory / "failure.json").exists()


def test_a_cell_that_was_deleted_while_its_task_waited_stays_deleted(cell, training):
    directory = cell("exit 0")
    shutil.rmtree(directory)
    with pytest.raises(AdvmixError, match=r"cell is gone, or has lost its recipe\.toml"):
        training(str(directory))
    assert not directory.exists()


SAVES = "trap 'sleep 0.3; echo saved; exit 140' USR2; echo ready > ready; while :; do sleep 0.02; done"


@pytest.mark.parametrize("to_main", [True, False])
def test_a_preemption_waits_until_the_training_has_saved(cell, training, to_main):
    """The handler of the signal interrupts the wait for the child, as submitit's does, even if it is another thread
    that the system gives the signal to."""
    directory = cell(SAVES)

    def preempted(*_):
        again = training.checkpoint(str(directory))
        assert (directory / "log.txt").read_text() == "saved\n"
        assert (again.function.place, again.function.device, again.args) == (training.place, "cpu", (str(directory),))
        raise SystemExit

    def when_ready():
        while not (directory / "ready").exists() or training._child is None:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident if to_main else threading.get_ident(), signal.SIGUSR2)
        time.sleep(0.5)

    before = signal.signal(signal.SIGUSR2, preempted)
    try:
        threading.Thread(target=when_ready).start()
        with pytest.raises(SystemExit):
            training(str(directory))
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert training._child.wait() == 140
    assert not (directory / "failure.json").exists()


def test_one_that_is_stopped_again_and_again_where_it_was_is_given_up(training, tmp_path):
    again = training.checkpoint(str(tmp_path)).function
    for _ in range(2):
        again = again.checkpoint(str(tmp_path)).function
    (tmp_path / "metrics.jsonl").write_text("an epoch")
    for _ in range(3):  # from anew, since it has got on
        again = again.checkpoint(str(tmp_path)).function
    with pytest.raises(AdvmixError, match="stopped 4 times at the same place: a task needs more --time"):
        again.checkpoint(str(tmp_path))
    assert json.loads((tmp_path / "failure.json").read_text())["attempts"] == 4


def test_a_preemption_before_the_training_has_started(training, tmp_path):
    assert training.checkpoint(str(tmp_path)).args == (str(tmp_path),)


@pytest.mark.parametrize(
    ("code", "state", "again"),
    [(143, "RUNNING", True), (143, "COMPLETING", False), (143, None, False), (130, "RUNNING", False)],
)
def test_what_slurm_stopped_goes_back_into_the_queue_unless_slurm_ends_the_task(
    cell, training, monkeypatch, code, state, again
):
    """SIGTERM alone, the start of a preemption with a time of grace."""

    def asked(identity):
        assert identity == "12_3"
        if state is None:
            raise SchedulerError("it does not answer")
        return state

    heard = []
    monkeypatch.setattr(scheduler, "state", asked)
    monkeypatch.setenv("SLURM_JOB_ID", "12")  # as the array's, of which it is the last task
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    before = signal.signal(signal.SIGUSR2, lambda *_: heard.append(True))
    try:
        training(str(cell(f"exit {code}")))
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == [True] * again


def test_a_task_has_as_many_threads_as_cores(cell, training, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    directory = cell("echo $OMP_NUM_THREADS")
    training(str(directory))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    training(str(directory))
    assert (directory / "log.txt").read_text() == "3\n2\n"
