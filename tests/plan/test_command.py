"""advmix plan: what it prints, and what it says of bad input."""

import json
import math

import pytest
import torch
from rich.cells import cell_len
from typer.testing import CliRunner

from advmix_cli import machine
from advmix_cli.cli import app
from advmix_cli.data import sources
from advmix_cli.plan import timing
from advmix_cli.plan.estimate import estimates
from advmix_cli.plan.grids import plan_grids
from advmix_cli.plan.lines import Line
from advmix_cli.recipe.load import load
from advmix_cli.recipe.table import Row, Table

QUICK = [
    "--set", "data.train_limit=64", "--set", "data.test_limit=20", "--set", "model.width=2",
    "--set", "maximizer.ascent.steps=1", "--device", "cpu", "--probe",
    "--set", 'evaluators=[{kind="pristine"}, {kind="pgd", steps=1, step_size="8/255"}]',
]  # fmt: skip


def plan(*words):
    return CliRunner().invoke(app, ["plan", *words], env={"COLUMNS": "80"})


def document(*words):
    done = plan(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def no_images(monkeypatch):
    """No dataset is at hand, and asking for one fails."""

    def missing(*_):
        raise AssertionError("a dataset was asked for")

    for name in ("digits", "cifar10", "cifar100", "fashion_mnist"):
        monkeypatch.setattr(sources, name, missing)


@pytest.fixture
def quickly(monkeypatch):
    """Every measurement is one call."""
    monkeypatch.setattr(timing, "SECONDS", 0.0)
    monkeypatch.setattr(timing, "ROUND", 0.0)


@pytest.mark.usefixtures("no_images")
def test_a_table_is_a_line_a_row_and_their_sums(tmp_path):
    found = document("table1")
    assert [row["row"] for row in found["rows"]][::6] == ["Attack", "Ours"]
    assert found["totals"] == {
        "epochs": 680,
        "training_flops": sum(row["training_flops"] for row in found["rows"]),
        "training_seconds": None,
        "evaluation_network_seconds": None,
    }
    for row in found["rows"]:
        per_epoch = row["attack_flops_per_epoch"] + row["update_flops_per_epoch"]
        assert row["training_flops"] == row["epochs"] * per_epoch
        memory = row["estimated_memory"]
        assert memory.pop("total_bytes") == sum(memory.values())
        assert row["probe"] is None
    assert not (tmp_path / "share").exists()


@pytest.mark.usefixtures("no_images")
@pytest.mark.parametrize("name", ["table1", "table2", "table3", "cifar10-wrn-ours", "digits"])
def test_it_fits_a_terminal(name):
    done = plan(name)
    assert (done.exit_code, done.stderr) == (0, "")
    assert max(cell_len(line) for line in done.stdout.splitlines()) <= 80
    assert "…" not in done.stdout


@pytest.mark.usefixtures("no_images")
def test_numbers_of_a_recipe():
    shown = plan("cifar10-ours", "--set", "validation.fraction=0", "--set", "schedule.batch_size=125").stdout
    for words in (
        "11,172,170 parameters", "1.11 GFLOP an", "0.555 PFLOP", "0.167 PFLOP", "0.722 PFLOP", "72.2 PFLOP",
        "100 epochs of 400 batches of 125 images", "60,000 images", "estimate",
        "Edited with --set validation.fraction=0 --set schedule.batch_size=125",
    ):  # fmt: skip
        assert words in " ".join(shown.split()), words


@pytest.mark.usefixtures("no_images")
def test_a_record_is_what_was_counted_and_the_table_shows_it():
    recipe = load("cifar10-ours")
    (row,), (found,) = document("cifar10-ours")["rows"], estimates([recipe], print)
    outline, counted = found.outline, found.cost
    assert row["images"] == {"train": outline.train, "validation": outline.validation, "test": outline.test}
    assert (row["attack_flops_per_epoch"], row["update_flops_per_epoch"]) == (counted.attack, counted.update)
    line = Line(Row("row", recipe, {}), found, None)
    (grid,) = plan_grids(Table("t", "T", (line.row, line.row)), [line, line])
    attack, update = (float(cell.value) for cell in grid.rows[0][1:3])
    assert attack / update == pytest.approx(counted.attack / counted.update, rel=0.01)


@pytest.mark.usefixtures("no_images", "quickly")
def test_probed_on_noise(tmp_path):
    done = plan("digits", *QUICK, "--json")
    found = json.loads(done.stdout)
    (row,) = found["rows"]
    probe = row["probe"]
    images = row["batches_per_epoch"] * row["batch_size"]
    assert probe["epoch_seconds"] * probe["images_per_second"] == pytest.approx(images)
    assert 0 < probe["images_per_second"] < math.inf
    assert found["totals"]["training_seconds"] == probe["training_seconds"]
    validation = probe["validation_network_seconds_per_epoch"]
    assert probe["training_seconds"] == pytest.approx(row["epochs"] * (probe["epoch_seconds"] + validation))
    assert all(one["network_seconds"] > 0 for one in probe["evaluators"])
    assert (probe["device"], probe["largest_batch_is"]) == (machine.device_name(torch.device("cpu")), "estimated")
    assert "engine: eager" in done.stderr
    assert not (tmp_path / "share").exists()


@pytest.mark.usefixtures("quickly")
def test_a_probed_recipe_and_a_probed_table_fit_a_terminal(tmp_path):
    path = tmp_path / "pair.toml"
    path.write_text('base = "digits"\n[[rows]]\nname = "one"\n[[rows]]\nname = "two"\n[rows.set]\nseed = 1\n')
    for name in ("digits", str(path)):
        done = plan(name, *QUICK)
        assert done.exit_code == 0, done.output
        assert max(cell_len(line) for line in done.stdout.splitlines()) <= 80
        assert f"Measured on {machine.device_name(torch.device('cpu'))}" in done.stdout
        assert "images/s" in done.stdout
        assert "PGD1" in done.stdout
    assert "measured once for rows that take the same time: one" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["digit"], "no shipped recipe is called 'digit'; did you mean 'digits'?"),
        (["nothing.toml"], "nothing.toml: no such file"),
        (["digits", "--device", "tpu"], "--device tpu: not a device"),
        (["digits", "--set", "seed"], "--set seed: write KEY=VALUE"),
        (["digits", "--set", "data.train_limit=2000"], "data.train_limit = 2000, but there are only 1350 train"),
        (["digits", "--set", 'data={source="folder", root="/gone"}'], "/gone is not a directory"),
    ],
)
def test_bad_input_is_exit_2_and_one_message(tmp_path, monkeypatch, words, start):
    monkeypatch.chdir(tmp_path)
    done = plan(*words)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert done.stderr.startswith(f"error: {start}"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["seed = [", "seeed = 1", 'rows = 1\nbase = "digits"'])
def test_a_broken_file_is_told_with_its_place(tmp_path, text):
    path = tmp_path / "broken.toml"
    path.write_text(text)
    done = plan(str(path))
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{path}:1:" in done.stderr


@pytest.mark.usefixtures("no_images")
def test_a_table_that_has_the_name_of_a_recipe_is_found_as_a_table():
    assert [len(document(name)["rows"]) for name in ("digits", "tables/digits", "tables/table1")] == [1, 7, 7]
