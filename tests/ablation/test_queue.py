"""The queue runs what is not done, and goes on after a cell that diverged."""

import io

import pytest
import tomli_w
import torch
from rich.console import Console

from advmix_cli import run
from advmix_cli.ablation.cells import cells
from advmix_cli.ablation.queue import run_cells
from advmix_cli.errors import DivergedError, InUseError, RunDirectoryError
from advmix_cli.files import write_atomically
from advmix_cli.locks import held
from advmix_cli.recipe.load import load
from advmix_cli.recipe.table import Row, Table
from advmix_cli.report.progress import Lines
from advmix_cli.report.results import Results

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
    run_cells(todo(tmp_path)[:2], CPU, quiet(), lambda _: None)
    run_cells(todo(tmp_path), CPU, quiet(), lambda _: None)
    assert names == ["a", "b", "c"]


def test_a_changed_recipe_is_run(tmp_path, executed):
    names, _ = executed
    run_cells(todo(tmp_path), CPU, quiet(), lambda _: None)
    run_cells(todo(tmp_path, "optimizer.lr=0.5"), CPU, quiet(), lambda _: None)
    run_cells(todo(tmp_path, "seed=1"), CPU, quiet(), lambda _: None)
    assert names == ["a", "b", "c"] * 3


def test_a_half_done_cell_is_run_again(tmp_path, executed):
    names, _ = executed
    first = todo(tmp_path)[0]
    results(first.row.recipe, finished=False).save(first.directory)
    begin(first.row.recipe, first.directory)
    run_cells([first], CPU, quiet(), lambda _: None)
    assert names == ["a"]


def test_a_cell_that_diverges_does_not_stop_the_others_and_is_not_tried_again(tmp_path, executed):
    names, fails = executed
    fails.add("b")
    said = io.StringIO()
    run_cells(todo(tmp_path), CPU, Lines(Console(file=said)), lambda _: None)
    assert names == ["a", "b", "c"]
    assert "diverged: nan\n" in said.getvalue()
    run_cells(todo(tmp_path), CPU, quiet(), lambda _: None)
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
        run_cells(todo(tmp_path), CPU, Lines(Console(file=said, width=300)), lambda _: None)
    assert names == ["b", "c"]
    assert str(caught.value) == "in use by other processes: a; the other rows are done"
    assert caught.value.exit_code == 2
    assert f"left to another process: {busy} is in use: process " in said.getvalue()


def test_a_foreign_directory_is_refused_before_anything_runs(tmp_path, executed):
    names, _ = executed
    last = todo(tmp_path)[-1]
    last.directory.mkdir()
    (last.directory / "thesis.txt").write_text("x")
    with pytest.raises(RunDirectoryError, match="is not empty and holds no run"):
        run_cells(todo(tmp_path), CPU, quiet(), lambda _: None)
    assert names == []


@pytest.mark.usefixtures("executed")
def test_who_draws_the_table_is_told_before_and_after_each_cell(tmp_path):
    told = []
    run_cells(todo(tmp_path), CPU, quiet(), lambda cell: told.append((cell.row.name, cell.results() is not None)))
    assert told == [("a", False), ("a", True), ("b", False), ("b", True), ("c", False), ("c", True)]
