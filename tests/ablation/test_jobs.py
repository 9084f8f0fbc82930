"""Cells in processes of their own: one that fails is tried again, and no other is lost by it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from interrupted import CPU, SMALL, bits
from typer.testing import CliRunner

from advmix_cli import build, run, tied
from advmix_cli.ablation import child
from advmix_cli.ablation.cells import cells
from advmix_cli.ablation.jobs import _Pool, run_jobs
from advmix_cli.ablation.prepare import prepare
from advmix_cli.ablation.slots import Slot, on_cpu
from advmix_cli.ablation.standing import standing
from advmix_cli.cli import app
from advmix_cli.commands import jobs as command
from advmix_cli.errors import CellsFailedError, DataError, InUseError, StoppedError
from advmix_cli.failures import Failure, failure
from advmix_cli.fit import Keeping
from advmix_cli.locks import held
from advmix_cli.recipe.table import Row, Table, load_table
from advmix_cli.report.results import Results
from advmix_cli.rundir import FAILURE, LAST, LOG

# Stands for a training: does what its cell's `does` has next, and what that is stays there.
FAKE = """
import os, pathlib, signal, sys, time
cell, words = pathlib.Path(sys.argv[1]), sys.argv[2:]
lines = (cell / "does").read_text().splitlines()
(cell / "does").write_text("\\n".join(lines[1:]))
print("session", os.getsid(0) == os.getpid(), "threads", os.environ["OMP_NUM_THREADS"], flush=True)
print("error: an older line", flush=True)
match lines[0].split():
    case ["done" | "diverged" as how]:
        (cell / how).rename(cell / "results.json")
        sys.exit(0 if how == "done" else 3)
    case ["exit", code]:
        print("error: it broke", flush=True)
        sys.exit(int(code))
    case ["kill"]:
        os.kill(os.getpid(), signal.SIGKILL)
    case ["sleep"]:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        (cell / "asleep").touch()
        time.sleep(60)
"""


@pytest.fixture
def table(tiny, tmp_path, monkeypatch):
    """table(a="done", b="kill done"): cells that do this, one word or two an attempt, instead of training."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(child, "command", lambda directory, *_: [sys.executable, tmp_path / "fake.py", directory])

    def make(**does):
        rows = [Row(name, tiny(f"schedule.epochs={n}"), {}) for n, name in enumerate(does, 1)]
        its = Table("t", "T", tuple(rows))
        found = cells(its, 1, tmp_path / "runs")
        prepare(its, found, print)
        for cell, what in zip(found, does.values(), strict=True):
            recipe = cell.row.recipe
            known = {"title": "", "seed": 0, "digest": recipe.digest(), "epochs": 1, "train_images": 1, "images": {}}
            for name, more in (("done", {"finished": True}), ("diverged", {"diverged": "nan"})):
                Results(**known, **more).save(cell.directory)
                (cell.directory / "results.json").rename(cell.directory / name)
            (cell.directory / "does").write_text(what.replace(", ", "\n"))
        return found

    return make


def jobs(todo, count, watch, keeping=None, looked=lambda _: None):
    prepare(Table("t", "T", tuple(cell.row for cell in todo)), todo, print)
    run_jobs(todo, on_cpu(count, {}), watch, looked, keeping or Keeping())


def states(todo):
    return [standing(cell.row.recipe, cell.directory).state for cell in todo]


def test_one_that_is_killed_is_tried_again_and_nothing_else_twice(table, watch, said):
    todo = table(a="done", b="kill, done", c="exit 1, diverged", d="done")
    jobs(todo, 2, watch)
    assert states(todo) == ["done", "done", "diverged", "done"]
    assert "[2/4] b, seed 0: failed, and is tried again: killed by SIGKILL, which is also" in said.getvalue()
    assert "[3/4] c, seed 0: failed, and is tried again: it broke\n" in said.getvalue()
    assert "[3/4] c, seed 0: diverged: nan\n" in said.getvalue()
    assert said.getvalue().count(": started (") == 6
    before = said.getvalue()
    jobs(todo, 2, watch)
    assert said.getvalue() == before


def test_one_that_fails_twice_is_marked_and_the_others_go_on(table, watch, said):
    todo = table(a="exit 1, exit 7, done", b="done", c="exit 2, done")
    with pytest.raises(CellsFailedError) as caught:
        jobs(todo, 1, watch)
    assert str(caught.value) == "failed: a (seed 0), c (seed 0); all others have ended; the same command tries again"
    assert caught.value.exit_code == 1
    assert states(todo) == ["failed", "done", "failed"]
    mark = json.loads((todo[0].directory / FAILURE).read_text())
    assert mark == {"attempts": 2, "exit_code": 7, "error": "it broke"}
    # What says that nothing was started would say it again.
    assert failure(todo[2].directory).attempts == 1
    # In its order, and tried again before the next one.
    order = [line.split(":")[0] for line in said.getvalue().splitlines() if "started" in line]
    assert order == ["[1/3] a, seed 0", "[1/3] a, seed 0", "[2/3] b, seed 0", "[3/3] c, seed 0"]
    jobs(todo, 1, watch)
    assert states(todo) == ["done"] * 3
    assert not (todo[0].directory / FAILURE).exists()


def test_an_error_is_the_last_line_of_its_own_attempt(table, watch):
    todo = table(a="exit 1, kill")
    (todo[0].directory / LOG).write_bytes(b"before\n\xff\n")
    with pytest.raises(CellsFailedError):
        jobs(todo, 1, watch)
    mark = failure(todo[0].directory)
    assert (mark.attempts, mark.exit_code) == (2, -9)
    assert mark.error.startswith("killed by SIGKILL")
    log = (todo[0].directory / LOG).read_bytes()
    assert log.startswith(b"before\n\xff\n")
    assert log.count(b"session True threads ") == 2


def test_who_says_nothing_is_not_told_by_what_others_said_before(table, watch, monkeypatch):
    todo = table(a="")
    (todo[0].directory / LOG).write_text("error: an older attempt\n")
    monkeypatch.setattr(child, "command", lambda *_: [sys.executable, "-c", "raise SystemExit(9)"])
    with pytest.raises(CellsFailedError):
        jobs(todo, 1, watch)
    assert failure(todo[0].directory).error == "it said nothing"


def test_asked_to_stop_it_asks_them_and_starts_no_more(table, watch, said, monkeypatch):
    monkeypatch.setattr("advmix_cli.ablation.jobs.LOOK", 0.001)
    todo = table(a="sleep, done", b="sleep, done", c="done")
    keeping = Keeping()

    def looked(_):
        if all((cell.directory / "asleep").exists() for cell in todo[:2]):
            keeping.stop.asked = StoppedError("stopped by a test", 143)

    with pytest.raises(StoppedError, match="stopped by a test"):
        jobs(todo, 2, watch, keeping, looked)
    assert states(todo) == ["waiting"] * 3
    assert said.getvalue().count(" trainings are told to save their state and end") == 1
    assert said.getvalue().count("stopped, nothing was trained yet") == 2
    jobs(todo, 2, watch)
    assert states(todo) == ["done"] * 3


def test_a_second_interrupt_kills_them(table, watch):
    todo = table(a="sleep", b="sleep")
    running = []

    def looked(directories):
        running.append(directories)
        if all((cell.directory / "asleep").exists() for cell in todo):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs(todo, 2, watch, looked=looked)
    assert running[-1] == {cell.directory for cell in todo}
    children = [
        child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()
    ]
    told = [Path(f"/proc/{child}/cmdline").read_text() for child in children]
    assert not [words for words in told if "fake.py" in words], "one goes on, or nobody has waited for it"


def test_one_that_somebody_stops_is_left_and_told(table, watch):
    todo = table(a="exit 143", b="done")
    with pytest.raises(CellsFailedError) as caught:
        jobs(todo, 1, watch)
    assert str(caught.value) == "stopped from outside: a (seed 0); all others have ended; the same command tries again"
    assert states(todo) == ["waiting", "done"]


def test_one_that_is_stopped_is_told_whether_anything_of_it_is_saved(table, watch, said):
    todo = table(a="exit 143", b="exit 143", c="exit 143")
    (todo[1].directory / "state").mkdir()
    (todo[1].directory / "state" / "000001-000002.json").touch()
    (todo[2].directory / LAST).touch()
    with pytest.raises(CellsFailedError):
        jobs(todo, 1, watch)
    told = [line.rpartition(": ")[2] for line in said.getvalue().splitlines() if ": stopped, " in line]
    assert told == ["stopped, nothing was trained yet", *["stopped, its state is saved"] * 2]


def test_an_interrupt_while_they_save_their_states_kills_them(table, watch, monkeypatch):
    todo, pools, wait = table(a="sleep"), [], _Pool.wait

    def interrupted(pool):
        pools.append(pool)
        if len(pools) == 1:
            raise KeyboardInterrupt
        wait(pool)

    def looked(_):
        if (todo[0].directory / "asleep").exists():
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(_Pool, "wait", interrupted)
    monkeypatch.setattr(child.Child, "ask", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        jobs(todo, 1, watch, looked=looked)
    assert [one.process.poll() for one in pools[0].running] == [-signal.SIGKILL]


def test_a_failure_that_the_disk_does_not_take_ends_no_other(table, watch, monkeypatch):
    todo = table(a="exit 2", b="done")

    def full(_failure, directory):
        raise OSError(28, "No space left on device", str(directory))

    monkeypatch.setattr(Failure, "save", full)
    with pytest.raises(CellsFailedError, match=r"^failed: a \(seed 0\); all others have ended"):
        jobs(todo, 1, watch)
    assert states(todo) == ["waiting", "done"]


def test_one_that_another_process_works_in_is_left_to_it(table, watch):
    todo = table(a="done", b="done")
    with held(todo[0].directory), pytest.raises(InUseError) as caught:
        jobs(todo, 2, watch)
    assert (
        str(caught.value)
        == "in use by other processes: a (seed 0); all others have ended; the same command tries again"
    )
    assert caught.value.exit_code == 2
    assert [cell.results() is not None for cell in todo] == [False, True]


def test_images_are_looked_at_once_and_before_anything_starts(tiny, tmp_path, watch, monkeypatch):
    settings = {"a": "seed=0", "b": "seed=1", "c": "validation.fraction=0.2"}
    rows = [Row(name, tiny("data={source='folder', root='nowhere'}", one), {}) for name, one in settings.items()]
    todo = cells(Table("t", "T", tuple(rows)), 1, tmp_path / "runs")
    with pytest.raises(DataError, match="nowhere"):
        jobs(todo, 2, watch)
    assert not (todo[0].directory / LOG).exists()
    loaded = []
    monkeypatch.setattr(build, "dataset", lambda recipe, *_: loaded.append(recipe.validation.fraction))
    monkeypatch.setattr(child, "command", lambda *_: [sys.executable, "-c", "raise SystemExit(143)"])
    with pytest.raises(CellsFailedError):
        jobs(todo, 2, watch)
    assert loaded == [0.05, 0.2]


def test_cells_that_are_taken_away_fail_and_the_others_go_on(table, watch, said):
    """One while it waits, one while it runs."""
    todo = table(a="sleep", b="done", c="done", d="done")

    def looked(_):
        if (todo[0].directory / "asleep").exists():
            todo[0].directory.rename(todo[0].directory.parent.parent / "away")
            shutil.rmtree(todo[3].directory)
            running = next(child for child in started if child.cell is todo[0])
            os.kill(running.process.pid, signal.SIGKILL)

    started = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "advmix_cli.ablation.jobs.started", lambda *words: started.append(child.started(*words)) or started[-1]
        )
        with pytest.raises(CellsFailedError) as caught:
            jobs(todo, 1, watch, looked=looked)
    assert str(caught.value).startswith("failed: a (seed 0), d (seed 0); all others have ended")
    assert states(todo) == ["waiting", "done", "done", "waiting"]
    assert not todo[0].directory.exists()
    assert not todo[3].directory.exists()
    for number, name, cell in ((1, "a", todo[0]), (4, "d", todo[3])):
        gone = f"[{number}/4] {name}, seed 0: failed: {cell.directory / 'log.txt'}: No such file or directory\n"
        assert gone in said.getvalue()


def test_what_a_cell_that_is_gone_died_of(tmp_path):
    assert child.cause(1, tmp_path / "cell") == f"{tmp_path / 'cell'} is gone"
    assert child.cause(1, tmp_path) == "its log.txt is gone"


def test_a_process_has_its_slot_s_environment_above_ours_and_is_taken_for_no_terminal(table, monkeypatch):
    (cell,), names = table(a=""), ("OMP_NUM_THREADS", "FORCE_COLOR", "TTY_COMPATIBLE")
    said = f"import os; print([os.environ.get(name) for name in {names}])"
    monkeypatch.setattr(child, "command", lambda *_: [sys.executable, "-c", said])
    slot, ours = Slot("a slot", "cpu", {names[0]: "3"}), {**os.environ, **dict.fromkeys(names, "7")}
    child.started(cell, slot, 1.0, ours).process.wait()
    assert (cell.directory / LOG).read_text() == "['3', None, None]\n"


def test_what_a_cell_died_of_is_told_without_what_a_terminal_would_obey(tmp_path):
    (tmp_path / LOG).write_text("before\nerror: a \x1b[31mred\x07 word\n\n")
    assert child.cause(1, tmp_path) == r"a \x1b[31mred\x07 word"
    assert child.cause(-40, tmp_path) == "killed by signal 40"


def test_one_that_found_the_cell_in_use_was_busy_though_nobody_is_there_any_more(tmp_path):
    (tmp_path / LOG).write_text(f"error: {tmp_path} is in use: process 7 on a machine\n")
    assert child.is_busy(2, tmp_path)
    assert not child.is_busy(1, tmp_path)
    assert not child.is_busy(2, tmp_path, (tmp_path / LOG).stat().st_size)


def test_what_cannot_be_started_leaves_nobody_behind(table, watch):
    """An error of ours in the middle: those that run save their state first."""
    todo = table(a="sleep", b="done")

    def looked(_):
        if (todo[0].directory / "asleep").exists():
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        jobs(todo, 1, watch, looked=looked)
    assert states(todo) == ["waiting", "waiting"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_they_end_with_who_started_them_however_it_ends(tmp_path):
    sleeper = (
        "import pathlib, signal, sys, time\n"
        f"place = pathlib.Path({str(tmp_path)!r})\n"
        "def end(*_): (place / 'told').touch(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); (place / 'there').touch(); time.sleep(60)"
    )
    tie = "[sys.executable, '-I', tied, str(os.getpid()), sys.executable, '-c', sleeper]"
    parent = "import os, subprocess, sys; tied, sleeper = sys.argv[1:]; subprocess.Popen(" + tie + ").wait()"
    process = subprocess.Popen([sys.executable, "-c", parent, tied.__file__, sleeper])
    until(lambda: (tmp_path / "there").exists())
    assert not (tmp_path / "told").exists()
    process.kill()
    process.wait()
    until(lambda: (tmp_path / "told").exists())


def until(true):
    end = time.monotonic() + 300
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_table_names_who_failed_and_why(tmp_path, monkeypatch):
    said = "import sys; print('error: out of [red]memory[/red]'); sys.exit(1)"
    monkeypatch.setattr(child, "command", lambda *_: [sys.executable, "-c", said])
    words = ["ablate", "--rows", "1", "--out", str(tmp_path), "--jobs", "1", "--device", "cpu"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == "error: failed: Attack (seed 0); the same command tries again"
    assert "FAILED: Attack, seed 0: out of [red]memory[/red] (exit code 1, 2 attempts)" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.strip().startswith("Attack"))
    assert line.split() == ["Attack", "failed", "failed", "failed"]


def test_the_view_is_drawn_when_who_works_changes_and_every_second(table, watch, monkeypatch):
    """And what is done needs no process."""
    todo, now, drawn, given = table(a="done", b="done"), [], [], []
    (todo[0].directory / "done").rename(todo[0].directory / "results.json")

    def working(_todo, slots, _watch, looked, *_):
        given.append(len(slots))
        for at, running in ((10.0, {"b"}), (10.5, {"b"}), (11.0, {"b"}), (11.9, {"b"}), (11.95, set())):
            now.append(at)
            looked(frozenset(map(Path, running)))

    monkeypatch.setattr(command, "monotonic", lambda: now[-1])
    monkeypatch.setattr("advmix_cli.ablation.jobs.run_jobs", working)
    view = nullcontext((watch, lambda: drawn.append(now[-1])))
    monkeypatch.setattr("advmix_cli.report.live.live_view", lambda *_: view)
    rows = Table("t", "T", tuple(cell.row for cell in todo))
    command.run_at_once(rows, todo, "4", "cpu", Keeping(), ())
    assert (given, drawn) == ([1], [10.0, 11.0, 11.95])


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", "", "99999"])
def test_a_number_of_jobs_is_one(wrong, tmp_path):
    for more in ([], ["--dry-run"]):
        done = CliRunner().invoke(app, ["ablate", "--out", str(tmp_path / "runs"), "--jobs", wrong, *more])
        assert (done.exit_code, done.stdout) == (2, "")
        said = " ".join(done.stderr.replace("│", " ").split())
        assert f"Invalid value for '--jobs': '{wrong}': write auto, or a number from 1 to 9999" in said
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_is_killed_goes_on_and_all_bits_are_those_of_one_process(tiny, tmp_path, watch, said):
    """The whole way, with real processes: neither the kill, nor how many work at once, is in the numbers."""
    rows = tuple(Row(name, tiny(*SMALL, "schedule.epochs=9", f"seed={n}"), {}) for n, name in enumerate("ab"))
    todo = cells(Table("t", "T", rows), 1, tmp_path / "jobs")
    prepare(Table("t", "T", rows), todo, print)
    alone = cells(Table("t", "T", rows), 1, tmp_path / "alone")
    for cell in alone:
        run.execute(cell.row.recipe, cell.directory, CPU, watch)
    killed = []

    def kill_the_first():
        lock, state = todo[0].directory / ".lock", todo[0].directory / "state"
        until(lambda: any(state.glob("*.json")))
        killed.append(int(lock.read_text().split()[1]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    run_jobs(todo, on_cpu(2, {"OMP_NUM_THREADS": "1"}), watch, lambda _: None, Keeping(0.0))
    killer.join()
    assert killed
    assert "failed, and is tried again: killed by SIGKILL" in said.getvalue()
    assert "resumed at epoch " in (todo[0].directory / LOG).read_text()
    for one, other in zip(todo, alone, strict=True):
        assert bits(one.directory) == bits(other.directory)


def test_the_shipped_table_s_cells_are_there_to_be_seen_from_the_start(tmp_path):
    table = load_table("digits")
    todo = cells(table, 1, tmp_path)
    prepare(table, todo, print)
    assert states(todo) == ["waiting"] * 7
    assert all((Path(cell.directory) / "recipe.toml").is_file() for cell in todo)
