"""How a run stands, by its files, whatever is being done to them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from interrupted import CPU, SMALL, stopped
from processes import command, wait_for

from advmix_cli import run
from advmix_cli.ablation.standing import standing
from advmix_cli.errors import InUseError, RunDirectoryError
from advmix_cli.locks import held, is_held
from advmix_cli.rundir import FAILURE, METRICS, RESULTS, STATE, reached

FOUR_EPOCHS = "".join(f'{{"epoch": {number}, "loss": 1, "seconds": 1}}\n' for number in range(1, 5))  # of three
FAILED = json.dumps({"attempts": 2, "exit_code": 1, "error": "out of memory"})


def test_a_run_from_waiting_to_done(tiny, tmp_path, watch):
    recipe, part = tiny("schedule.epochs=3", "schedule.batch_size=32", "validation.report='last'"), tmp_path / "part"
    found = standing(recipe, part)
    assert (found.state, found.epoch, found.epochs, found.line, found.pace) == ("waiting", 0, 3, {}, None)
    assert not part.exists()
    stopped(recipe, part, watch, at=6)  # of the four batches of an epoch
    found = standing(recipe, part)
    assert (found.state, found.epoch, found.line["epoch"], found.trained) == ("stopped", 1, 1, False)
    assert found.pace >= found.line["seconds"] > 0
    with held(part):
        assert standing(recipe, part).state == "running"
    results = run.execute(recipe, part, CPU, watch)
    found = standing(recipe, part)
    assert (found.state, found.epoch, found.trained, found.wanted, found.error) == ("done", 3, True, 2, None)
    assert [(one.selection, one.evaluator) for one in found.found] == [("last", "pristine"), ("last", "PGD2")]
    assert [one.accuracy for one in found.found] == [one.accuracy for one in results.measured[0].outcomes[:2]]


def test_both_epochs_of_both_networks_are_measured(tiny, tmp_path):
    assert standing(tiny(), tmp_path).wanted == 4
    assert standing(tiny("validation.fraction=0"), tmp_path).wanted == 2
    assert standing(tiny("averaging={kind='ema'}"), tmp_path).wanted == 8


def test_who_failed_says_why_until_it_is_tried_again(tiny, tmp_path, watch):
    recipe, part = tiny(*SMALL), tmp_path / "part"
    stopped(recipe, part, watch, at=2)
    (part / FAILURE).write_text(FAILED)
    found = standing(recipe, part)
    assert (found.state, found.error) == ("failed", "out of memory (exit code 1, 2 attempts)")
    with held(part):
        assert standing(recipe, part).state == "running"
    stopped(recipe, part, watch, at=2)
    assert standing(recipe, part).state == "stopped"


def test_a_run_that_diverged_says_where(tiny, tmp_path, watch, monkeypatch):
    recipe = tiny(*SMALL)
    monkeypatch.setattr(run, "fit", lambda *_: (_ for _ in ()).throw(run.DivergedError("at epoch 2")))
    with pytest.raises(run.DivergedError):
        run.execute(recipe, tmp_path / "part", CPU, watch)
    found = standing(recipe, tmp_path / "part")
    assert (found.state, found.error, found.ended) == ("diverged", "at epoch 2", True)


@pytest.fixture
def one_epoch(tiny, tmp_path, watch):
    """(recipe, directory) of a run that was stopped in its second epoch."""
    recipe, part = tiny(*SMALL), tmp_path / "part"
    stopped(recipe, part, watch, at=6)
    return recipe, part


@pytest.mark.parametrize("torn", ["", '{"epoch": 2, "lo', "\x00\x00", '{"epoch": 2}'])
def test_a_line_without_its_end_is_none(one_epoch, torn):
    recipe, part = one_epoch
    with (part / METRICS).open("a") as stream:
        stream.write(torn)
    assert standing(recipe, part).epoch == 1


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (METRICS, '{"epoch": 1}\n', "metrics.jsonl is damaged or was changed"),
        (METRICS, '{"epoch": 1, "loss": 1}\n', "metrics.jsonl is damaged or was changed"),
        (METRICS, '{"epoch": 1, "loss": 1e999, "seconds": 1}\n', "metrics.jsonl is damaged or was changed"),
        (METRICS, "[1]\n", "metrics.jsonl is damaged or was changed"),
        (METRICS, '{"epoch": 2, "seconds": 1}\n', "metrics.jsonl is damaged or was changed"),
        (METRICS, '{"epoch": 1, "loss": 1, "seconds": -1}\n', "metrics.jsonl is damaged or was changed"),
        (METRICS, FOUR_EPOCHS, "metrics.jsonl is damaged or was changed"),
        (RESULTS, "{", "results.json is damaged or was changed"),
        (RESULTS, "[]", "results.json is damaged or was changed"),
        (FAILURE, "{}", "failure.json is damaged; delete it"),
    ],
)
def test_a_damaged_file_is_named(one_epoch, name, content, told):
    recipe, part = one_epoch
    (part / name).write_text(content)
    with pytest.raises(RunDirectoryError, match=told):
        standing(recipe, part)


def test_another_recipe_s_results_are_not_believed(one_epoch, tiny):
    _, part = one_epoch
    with pytest.raises(RunDirectoryError, match="holds the results of another recipe"):
        standing(tiny("seed=1"), part)


def test_looking_writes_nothing_and_refuses_nobody(one_epoch):
    recipe, part = one_epoch
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [part, *part.rglob("*")]}
    # Who lost the processor while it looked would be taken for one that works there, so it looks with pauses.
    look = "import sys, time, pathlib; from advmix_cli.locks import is_held; part = pathlib.Path(sys.argv[1])"
    look += "; print('looking', flush=True)\nwhile 1: is_held(part); time.sleep(0.001)"
    watching = subprocess.Popen([sys.executable, "-c", look, str(part)], stdout=subprocess.PIPE)
    assert watching.stdout
    try:
        assert watching.stdout.readline() == b"looking\n"
        for _ in range(1_000):
            with held(part):
                assert is_held(part)
    finally:
        watching.kill()
        watching.communicate()
    standing(recipe, part)
    after = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [part, *part.rglob("*")]}
    assert {path: state for path, state in after.items() if path.name != ".lock"} == {
        path: state for path, state in before.items() if path.name != ".lock"
    }


def test_a_process_that_is_killed_leaves_a_run_that_is_stopped(long, tmp_path):
    from advmix_cli.recipe.load import load

    part = tmp_path / "part"
    process = command(long, part)
    wait_for(part / METRICS, process)
    assert standing(load(str(long)), part).state == "running"
    with pytest.raises(InUseError), held(part):
        pytest.fail("entered")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert standing(load(str(long)), part).state == "stopped"


def test_after_a_kill_it_stands_where_it_goes_on(long, tmp_path):
    """What was written after the newest state is trained anew, and so is not done."""
    from advmix_cli.recipe.load import load

    recipe, part = load(str(long)), tmp_path / "part"

    def ahead():
        """How many epochs were written after the one that the newest state is in, if there is one."""
        at = reached(part / STATE)
        return (part / METRICS).read_bytes().count(b"\n") - at[0] if at else 0

    while ahead() < 1:  # a new state may come to be before the kill arrives
        process = command(long, part, "--save-every", "1h")  # so that only an epoch that is the best so far has a state
        while ahead() < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    found = standing(recipe, part)
    written = (part / METRICS).read_bytes().count(b"\n")
    assert 0 < found.epoch == found.line["epoch"] < written - 1
    assert found.pace > 0
    with held(part):  # by one that has not come to write
        assert standing(recipe, part).epoch == found.epoch
    process = command(long, part)
    try:
        said = next(line for line in process.stderr if line.startswith("resumed"))
    finally:
        process.kill()
        process.communicate()
    assert said.startswith(f"resumed at epoch {found.epoch + 1}, after ")


def test_of_who_works_in_it_all_counts_that_it_has_written(one_epoch):
    recipe, part = one_epoch
    with (part / METRICS).open("a") as stream:
        stream.write('{"epoch": 2, "loss": 1, "seconds": 1.0}\n')
    assert standing(recipe, part).epoch == 1  # the state is in the second one
    before = time.time() - 1  # a file system's clock may not tell two moments of one test apart
    os.utime(part / METRICS, (before, before))
    with held(part):
        assert (standing(recipe, part).epoch, standing(recipe, part).since) == (1, None)
        (part / METRICS).touch()
        assert standing(recipe, part).epoch == 2
    shutil.rmtree(part / "state")
    found = standing(recipe, part)
    assert (found.state, found.epoch, found.line) == ("stopped", 0, {})  # it would start again


def test_the_pace_is_that_of_whole_epochs_with_their_validation(one_epoch):
    recipe, part = one_epoch
    for manifest in (part / "state").glob("*"):
        manifest.unlink()
    recipe = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"epochs": 9})})
    results = json.loads((part / RESULTS).read_text())
    from advmix_cli.seals import sealed, unsealed

    (part / RESULTS).write_text(json.dumps(sealed({**unsealed(results), "digest": recipe.digest()})))
    # The second was resumed just before its end.
    times = [2.0, 0.1, 4.0]
    (part / METRICS).write_text(
        "".join(f'{{"epoch": {n}, "loss": 1, "seconds": {s}}}\n' for n, s in enumerate(times, 1))
    )
    assert standing(recipe, part).pace == pytest.approx(4.0)
    (part / METRICS).write_text("".join(f'{{"epoch": {n}, "loss": 1, "seconds": 2.0}}\n' for n in range(1, 4)))
    assert standing(recipe, part).pace == pytest.approx(2.0)
    # Of the last five alone.
    (part / METRICS).write_text(
        "".join(f'{{"epoch": {n}, "loss": 1, "seconds": {9.0 if n == 1 else 2.0}}}\n' for n in range(1, 7))
    )
    assert standing(recipe, part).pace == pytest.approx(2.0)
    (part / METRICS).write_text("".join(f'{{"epoch": {n}, "loss": 1, "seconds": 2.0}}\n' for n in range(1, 4)))
    # Half of it again was for validations: 6 s of training until the fourth epoch, of 9 in all.
    (part / "state" / "000004-000000.json").write_text('{"seconds": 9.0}')
    assert standing(recipe, part).pace == pytest.approx(3.0)
    # Of 10.5 s until the middle of the fourth epoch, 9 were before it.
    (part / "state" / "000004-000002.json").write_text('{"seconds": 10.5}')
    assert standing(recipe, part).pace == pytest.approx(3.0)
    # No epoch is shorter than its training.
    for manifest in (part / "state").glob("*"):
        manifest.write_text('{"seconds": 3.0}')
    assert standing(recipe, part).pace == pytest.approx(2.0)
