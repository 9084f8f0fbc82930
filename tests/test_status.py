"""`advmix status`: from the files alone, while others write them."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w
from interrupted import CPU, SMALL, stopped
from typer.testing import CliRunner

from advmix_cli import run
from advmix_cli.ablation.cells import cells
from advmix_cli.ablation.prepare import prepare
from advmix_cli.cli import app
from advmix_cli.files import read_text
from advmix_cli.locks import held
from advmix_cli.recipe import load
from advmix_cli.recipe.table import Row, Table
from advmix_cli.report.results import Results


@pytest.fixture
def table(tiny, tmp_path, watch):
    """The directory of a table: done, stopped in its second epoch, waiting."""
    rows = tuple(Row(name, tiny(*SMALL[:2], f"seed={n}"), {}) for n, name in enumerate(["done", "begun", "[b]idle"]))
    table = Table("t", "T", rows)
    todo = cells(table, 1, tmp_path / "runs" / "t")
    prepare(table, todo, print)
    run.execute(todo[0].row.recipe, todo[0].directory, CPU, watch)
    stopped(todo[1].row.recipe, todo[1].directory, watch, at=6)
    return todo


def status(*words):
    return CliRunner().invoke(app, ["status", *map(str, words)])


def test_rows_stand_as_in_their_table(tiny, tmp_path):
    rows = tuple(Row(name, tiny(f"schedule.epochs={n}"), {}) for n, name in enumerate("zxya", 1))
    table = Table("t", "T", rows)
    todo = cells(table, 2, tmp_path)

    def shown():
        return [(one["row"], one["seed"]) for one in json.loads(status(tmp_path, "--json").stdout)["tables"][0]["runs"]]

    prepare(table, todo[1:], print)  # as with --rows
    own = [(cell.row.name, cell.row.recipe.seed) for cell in todo]
    assert shown() == own[1:]
    prepare(table, todo, print)
    assert shown() == own == [*((name, 0) for name in "zxya"), *((name, 1) for name in "zxya")]
    prepare(Table("t", "T", (rows[3], rows[2])), [todo[3], todo[2]], print)  # two rows have left the file
    assert shown() == [(name, seed) for seed in (0, 1) for name in "ayxz"]
    (tmp_path / "rows.json").write_text('["a", 1]')
    assert shown() == sorted(own, key=lambda one: (one[1], one[0]))
    (tmp_path / "rows.json").unlink()
    (tmp_path / "rows.json").mkdir()  # stands for a disk that cannot be written
    prepare(table, todo, print)


def snapshot(directory):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file()}


def test_a_table_a_run_and_a_directory_of_tables(table, tmp_path):
    before = snapshot(tmp_path)
    done = status(tmp_path / "runs" / "t")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "or --json" not in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == [str(tmp_path / "runs" / "t")]
    assert [line[:3] for line in lines[4:7]] == [
        ["done", "0", "done"],
        ["begun", "1", "stopped"],
        ["[b]idle", "2", "waiting"],
    ]
    assert "1/3" in lines[5]
    assert done.stdout.splitlines()[7] == "1 of 3 runs done · 1 stopped · 1 waiting"
    assert "best on validation: pristine " in done.stdout
    assert status(tmp_path / "runs").stdout == done.stdout
    one = status(table[1].directory).stdout
    assert "stopped 1/3" in one
    assert "idle" not in one
    with held(table[1].directory):
        assert "epoch 1/3" in status(tmp_path / "runs").stdout
    (table[1].directory / ".lock").unlink(missing_ok=True)
    before = {path: found for path, found in before.items() if path.name != ".lock"}
    assert {path: found for path, found in snapshot(tmp_path).items() if path.name != ".lock"} == before


@pytest.mark.usefixtures("table")
def test_as_json_it_is_one_document(tmp_path):
    done = status(tmp_path / "runs", "--json")
    (found,) = json.loads(done.stdout)["tables"]
    assert found["directory"] == str(tmp_path / "runs" / "t")
    assert [(one["row"], one["state"], one["epoch"]) for one in found["runs"]] == [
        ("done", "done", 3), ("begun", "stopped", 1), ("[b]idle", "waiting", 0),
    ]  # fmt: skip
    assert len(found["runs"][0]["measured"]) == found["runs"][0]["to_measure"] == 4
    assert found["runs"][1]["last"]["epoch"] == 1
    assert found["runs"][1]["eta_seconds"] > 0
    assert found["eta_seconds"] is None  # nobody works
    with held(Path(found["runs"][1]["directory"])):
        (found,) = json.loads(status(tmp_path / "runs", "--json").stdout)["tables"]
    assert found["eta_seconds"] > 0
    assert found["eta_at_least"] is False


def test_what_is_damaged_is_said_and_the_others_are_shown(table, tmp_path):
    (table[0].directory / "results.json").write_text("{")
    (table[2].directory / "recipe.toml").write_text("title = ")
    done = status(tmp_path / "runs")
    assert done.exit_code == 1
    assert "stopped 1/3" in done.stdout
    assert done.stdout.count("damaged") >= 2
    assert f"done, seed 0: {table[0].directory / 'results.json'} is damaged or was changed" in done.stdout
    assert "recipe.toml:1:9: not valid TOML" in done.stdout
    assert done.stderr.startswith("error: damaged: ")
    assert status(tmp_path / "runs", "--json").exit_code == 1


def test_what_is_damaged_is_said_without_what_a_terminal_would_obey(tmp_path):
    (tmp_path / "a \x1b[31mred").mkdir()
    (tmp_path / "a \x1b[31mred" / "recipe.toml").write_text("x")
    said = status(tmp_path).stdout
    assert f"{tmp_path}/a \\x1b[31mred/recipe.toml:1:2: not valid TOML" in said
    assert "\x1b" not in said


def collapse(cell, *epochs):
    """As if the accuracy under attack had fallen in these epochs, the last of which may have been lost at a kill."""
    metrics = cell.directory / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    lines += [lines[-1] | {"epoch": number} for number in range(len(lines) + 1, max(epochs) + 1)]
    lines = [line | {"collapsed": line["epoch"] in epochs} for line in lines]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    replace(Results.load(cell.directory), collapsed=epochs).save(cell.directory)


def test_a_collapse_is_said_of_what_is_done_and_of_what_will_not_be_trained_anew(table, tmp_path):
    collapse(table[0], 2, 3)
    (table[0].directory / "metrics.jsonl").unlink()
    collapse(table[1], 1, 2)
    done = status(tmp_path / "runs")
    said = "COLLAPSED: the validation's accuracy under attack fell by half in"
    assert done.exit_code == 0
    assert [line for line in done.stdout.splitlines() if "COLLAPSED" in line] == [
        f"done, seed 0: {said} epochs 2, 3",
        f"begun, seed 1: {said} epoch 1",
    ]
    (found,) = json.loads(status(tmp_path / "runs", "--json").stdout)["tables"]
    assert [one["collapsed"] for one in found["runs"]] == [[2, 3], [1], []]


def test_a_collapse_that_ended_a_training_is_said_once(tiny, tmp_path):
    for name in ("warn", "stop"):
        recipe = tiny(f"title='{name}'", f"schedule.on_collapse='{name}'")
        directory = tmp_path / name
        directory.mkdir()
        (directory / "recipe.toml").write_text(tomli_w.dumps(recipe.resolved()))
        known = Results(name, 0, recipe.digest(), 9, 9, {"test": "f"}, collapsed=(1,))
        replace(known, diverged="why", finished=True).save(directory)
    assert [line for line in status(tmp_path).stdout.splitlines() if line.startswith(("warn, ", "stop, "))] == [
        "stop, seed 0: diverged: why",
        "warn, seed 0: diverged: why",
        "warn, seed 0: COLLAPSED: the validation's accuracy under attack fell by half in epoch 1",
    ]


def test_a_directory_that_cannot_be_read_hides_no_other(table, tmp_path, monkeypatch):
    """As for who is not root: all that is asked of it is refused."""
    closed, access, is_file, iterdir = table[0].directory, os.access, Path.is_file, Path.iterdir

    def refused(path):
        if closed in (path, path.parent):
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and access(path, mode))
    monkeypatch.setattr(Path, "is_file", lambda self: refused(self) or is_file(self))
    monkeypatch.setattr(Path, "iterdir", lambda self: refused(self) or iterdir(self))
    monkeypatch.setattr(load, "read_text", lambda path, longest: refused(path) or read_text(path, longest))
    done = status(tmp_path / "runs")
    assert done.exit_code == 1
    assert "stopped 1/3" in done.stdout
    assert f"{closed / 'recipe.toml'}: Permission denied" in done.stdout


@pytest.mark.parametrize(
    ("name", "said"), [("empty", "holds no run, nor do"), ("nothing", "is not there"), ("file", "is not a directory")]
)
def test_a_place_without_runs_is_a_mistake(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    done = status(tmp_path / name)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{tmp_path / name} {said}" in done.stderr


def test_it_is_quick_because_it_needs_no_torch(tiny, tmp_path):
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(tiny().resolved()))
    script = (
        "import sys; from typer.testing import CliRunner; from advmix_cli.cli import app; "
        f"found = CliRunner().invoke(app, ['status', {str(tmp_path)!r}]); assert found.exit_code == 0, found.output; "
        "assert not {'torch', 'numpy', 'scipy', 'safetensors'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_runs_of_one_name_are_told_apart_by_their_directories(tiny, tmp_path, watch):
    for place in ("first", "second"):
        stopped(tiny(*SMALL[:2]), tmp_path / place, watch, at=2)
    stopped(tiny(*SMALL[:2], "seed=7"), tmp_path / "third", watch, at=2)
    told = [line.split()[0] for line in status(tmp_path).stdout.splitlines()[4:7]]
    assert told == ["first", "second", "tiny"]
