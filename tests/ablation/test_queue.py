"""The queue runs what is not done, and goes on after a cell that diverged or failed."""

import io
import weakref
from contextlib import nullcontext

import pytest
import tomli_w
import torch
from made import outcome, write_run
from rich.console import Console
from typer.testing import CliRunner

from advmix_cli import run
from advmix_cli.ablation import queue
from advmix_cli.ablation.cells import cells
from advmix_cli.ablation.prepare import prepare
from advmix_cli.ablation.queue import run_cells
from advmix_cli.cli import app
from advmix_cli.errors import (
    AdvmixError,
    CellsFailedError,
    DataError,
    DivergedError,
    EvaluationError,
    InUseError,
    MemoryExhaustedError,
    RunDirectoryError,
)
from advmix_cli.failures import failure
from advmix_cli.files import write_atomically
from advmix_cli.fit import Keeping
from advmix_cli.locks import held
from advmix_cli.recipe.load import load
from advmix_cli.recipe.table import Row, Table
from advmix_cli.report.progress import Lines
from advmix_cli.report.results import Measured, Results
from advmix_cli.rundir import LOG, METRICS

CPU = torch.device("cpu")


def quiet():
    """A watcher that shows nothing."""
    return Lines(Console(file=io.StringIO()))


def results(recipe, **changes):
    known = {
        "title": "", "seed": recipe.seed, "digest": recipe.digest(), "epochs": 1, "train_images": 1, "images": {},
        "finished": True,
    }  # fmt: skip
    return Results(**{**known, **changes})


def ran(cells, watch=None, changed=lambda _: None):
    prepare(Table("t", "T", tuple(cell.row for cell in cells)), cells, print)
    run_cells(cells, CPU, watch or quiet(), changed)


def begin(recipe, directory):
    write_atomically(directory / run.RECIPE, tomli_w.dumps(recipe.resolved()))


def todo(directory, *settings):
    rows = [Row(name, load("digits", [f"schedule.epochs={n}", *settings]), {}) for n, name in enumerate("abc", 1)]
    return cells(Table("t", "T", tuple(rows)), 1, directory)


@pytest.fixture
def executed(monkeypatch):
    """Names of the cells that were run, instead of running them; those in `fails` diverge."""
    names, fails = [], set()

    def execute(recipe, directory, _place, _watch, _keeping):
        names.append(recipe.title)
        begin(recipe, directory)
        if recipe.title in fails:
            results(recipe, diverged="nan", finished=False).save(directory)
            raise DivergedError("nan")
        results(recipe).save(directory)

    monkeypatch.setattr(run, "execute", execute)
    return names, fails


def test_what_is_done_is_not_done_again(tmp_path, executed):
    names, _ = executed
    ran(todo(tmp_path)[:2])
    ran(todo(tmp_path))
    assert names == ["a", "b", "c"]


def test_a_changed_recipe_is_run(tmp_path, executed):
    names, _ = executed
    ran(todo(tmp_path))
    ran(todo(tmp_path, "optimizer.lr=0.5"))
    ran(todo(tmp_path, "seed=1"))
    assert names == ["a", "b", "c"] * 3


def test_a_half_done_cell_is_run_again(tmp_path, executed):
    names, _ = executed
    first = todo(tmp_path)[0]
    results(first.row.recipe, finished=False).save(first.directory)
    begin(first.row.recipe, first.directory)
    ran([first])
    assert names == ["a"]


def test_a_cell_that_diverges_does_not_stop_the_others_and_is_not_tried_again(tmp_path, executed):
    names, fails = executed
    fails.add("b")
    said = io.StringIO()
    ran(todo(tmp_path), Lines(Console(file=said)))
    assert names == ["a", "b", "c"]
    assert "[2/3] b, seed 0: diverged: nan\n" in said.getvalue()
    ran(todo(tmp_path))
    assert names == ["a", "b", "c"]


def test_a_cell_that_another_process_works_in_is_left_to_it_and_told_at_the_end(tmp_path, executed, monkeypatch):
    names, _ = executed
    fake, busy = run.execute, todo(tmp_path)[0].directory

    def execute(recipe, directory, *rest):
        with held(directory):
            fake(recipe, directory, *rest)

    monkeypatch.setattr(run, "execute", execute)
    said = io.StringIO()
    with held(busy), pytest.raises(InUseError) as caught:
        ran(todo(tmp_path), Lines(Console(file=said, width=300)))
    assert names == ["b", "c"]
    assert (
        str(caught.value)
        == "in use by other processes: a (seed 0); all others have ended; the same command tries again"
    )
    assert caught.value.exit_code == 2
    assert f"left to another process: {busy} is in use: process " in said.getvalue()


class Failing:
    """Stands for a training that fails in the row "b"."""

    def __init__(self, monkeypatch, error):
        self.error, self.names = error, []
        monkeypatch.setattr(run, "execute", self)

    def __call__(self, recipe, directory, *_):
        self.names.append(recipe.title)
        begin(recipe, directory)
        if recipe.title == "b" and self.error:
            weight = torch.zeros(1000)
            self.weight = weakref.ref(weight)
            raise self.error
        results(recipe).save(directory)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nto"), "OutOfMemoryError: CUDA out of memory. Tried"),
        (
            MemoryExhaustedError("out of memory on cpu: the largest batch is 7"),
            "out of memory on cpu: the largest batch",
        ),
        (EvaluationError("no number"), "no number"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_a_cell_that_fails_is_marked_and_does_not_stop_the_others(tmp_path, monkeypatch, error, why):
    failing, said, cells = Failing(monkeypatch, error), io.StringIO(), todo(tmp_path)
    with pytest.raises(CellsFailedError) as caught:
        ran(cells, Lines(Console(file=said, width=300)))
    assert failing.names == ["a", "b", "c"]
    assert str(caught.value) == "failed: b (seed 0); all others have ended; the same command tries again"
    assert caught.value.exit_code == 1
    mark = failure(cells[1].directory)
    assert (mark.attempts, mark.exit_code) == (1, 1)
    assert mark.error.startswith(why)
    assert f"[2/3] b, seed 0: failed: {why}" in said.getvalue()
    log = cells[1].directory / LOG
    assert log.exists() != isinstance(error, AdvmixError)
    assert not log.exists() or "Traceback" in log.read_text()
    assert (f"the traceback is in {log}" in said.getvalue()) == log.exists()
    failing.error = None
    ran(cells)
    assert failing.names == ["a", "b", "c", "b"]
    assert failure(cells[1].directory) is None


def test_the_table_says_who_failed_and_why(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "fit", lambda *_: (_ for _ in ()).throw(MemoryError))
    words = ["ablate", "--rows", "1", "--rows", "2", "--out", str(tmp_path), "--device", "cpu"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        "error: failed: Attack (seed 0), Mix-then-Attack (seed 0); the same command tries again"
    )
    assert done.stdout.count("seed 0: MemoryError (exit code 1, 1 attempt)") == 2
    shown = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert shown.exit_code == 0
    assert "0 of 2 runs done · 2 failed" in shown.stdout


def test_what_a_cell_that_failed_held_is_given_back_before_the_next_one(tmp_path, monkeypatch):
    failing, alive = Failing(monkeypatch, MemoryError), []
    fake = run.execute

    def execute(recipe, *rest):
        if recipe.title == "c":
            alive.append(failing.weight())
        fake(recipe, *rest)

    monkeypatch.setattr(run, "execute", execute)
    with pytest.raises(CellsFailedError):
        ran(todo(tmp_path))
    assert alive == [None]


@pytest.mark.parametrize("error", [DataError("no images"), OSError(28, "No space left on device")])
def test_what_is_wrong_for_all_ends_all(tmp_path, monkeypatch, error):
    failing = Failing(monkeypatch, error)
    with pytest.raises(type(error)):
        ran(todo(tmp_path))
    assert failing.names == ["a", "b"]
    assert failure(todo(tmp_path)[1].directory) is None


def test_a_foreign_directory_is_refused_before_anything_runs(tmp_path, executed):
    names, _ = executed
    last = todo(tmp_path)[-1]
    last.directory.mkdir()
    (last.directory / "thesis.txt").write_text("x")
    with pytest.raises(RunDirectoryError, match="is not empty and holds no run"):
        ran(todo(tmp_path))
    assert names == []
    assert list(tmp_path.iterdir()) == [last.directory], "nothing is written for the others"


def test_a_recipe_that_is_there_is_left_as_it_is(tmp_path, executed):
    names, _ = executed
    (first, *_) = todo(tmp_path)
    begin(first.row.recipe, first.directory)
    path = first.directory / run.RECIPE
    path.write_text(written := f"# why\n{path.read_text()}")
    prepare(Table("t", "T", (first.row,)), [first], print)
    assert (names, path.read_text()) == ([], written)


def test_a_cell_is_named_before_it_is_run_and_kept_as_it_was_asked(tmp_path, monkeypatch):
    said, keeping, kept = io.StringIO(), Keeping(), []

    def execute(recipe, directory, _place, watch, keeping):
        watch.say("at work")
        kept.append(keeping)
        begin(recipe, directory)
        results(recipe).save(directory)

    monkeypatch.setattr(run, "execute", execute)
    run_cells(todo(tmp_path)[:1], CPU, Lines(Console(file=said)), lambda _: None, keeping)
    assert said.getvalue().splitlines() == ["[1/1] a, seed 0", "at work", "[1/1] a, seed 0: done"]
    assert kept[0] is keeping


def test_memory_is_given_back_after_a_cell_that_failed_alone(tmp_path, monkeypatch):
    done = []
    failing = Failing(monkeypatch, MemoryError())
    monkeypatch.setattr(queue, "release", lambda: done.append(failing.names[-1]))
    with pytest.raises(CellsFailedError):
        ran(todo(tmp_path))
    assert done == ["b"]


@pytest.mark.usefixtures("executed")
def test_who_draws_the_table_is_told_before_and_after_each_cell(tmp_path):
    told = []
    ran(todo(tmp_path), changed=lambda cell: told.append((cell.row.name, cell.results() is not None)))
    assert told == [("a", False), ("a", True), ("b", False), ("b", True), ("c", False), ("c", True)]


def test_a_cell_that_is_done_is_told_by_what_its_last_epoch_has_right(tmp_path):
    last = Measured("last", 5, "w", (outcome("pristine", 180), outcome("PGD20", 101)))
    one, other, _ = todo(tmp_path)
    write_run(one.directory, one.row.recipe, [last, Measured("best on validation", 3, "v", (outcome("PGD20", 20),))])
    assert queue.outcome(one) == "done: pristine 90.0, PGD20 50.5 %"
    write_run(other.directory, other.row.recipe, [])
    assert queue.outcome(other) == "done"


def test_a_cell_is_watched_by_its_own_mirrors(tmp_path, monkeypatch):
    watches, (cell, *_), watch = [], todo(tmp_path), quiet()
    monkeypatch.setattr(queue, "tracked", lambda *words: nullcontext(words))
    monkeypatch.setattr(run, "execute", lambda _recipe, _directory, _place, watch, _keeping: watches.append(watch))
    run_cells([cell], CPU, watch, lambda _: None, trackers=("wandb",))
    assert watches == [(("wandb",), cell.row.recipe, cell.directory, METRICS, watch)]
