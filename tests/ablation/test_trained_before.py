"""What another run of the directory has trained for other evaluators is not trained again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from interrupted import CPU, bits, stopped
from PIL import Image
from typer.testing import CliRunner

from advmix_cli import checkpoint, run
from advmix_cli.ablation import trained_before
from advmix_cli.ablation.cells import cells
from advmix_cli.ablation.plan import plan_records
from advmix_cli.ablation.prepare import prepare
from advmix_cli.ablation.standing import standing
from advmix_cli.ablation.trained_before import take_over
from advmix_cli.checkpoint import BEST, NAMES
from advmix_cli.cli import app
from advmix_cli.errors import RunDirectoryError
from advmix_cli.locks import held
from advmix_cli.recipe.table import Row, Table
from advmix_cli.report.results import Results
from advmix_cli.rundir import LAST, LOG, METRICS, RESULTS

PRISTINE, PGD = '{kind="pristine"}', '{kind="pgd", steps=2, step_size="8/255"}'
OTHER = '{kind="pgd", steps=3, step_size="8/255"}'
AVERAGED = 'averaging={kind="ema"}'


@pytest.fixture
def cell(tiny, tmp_path):
    """cell(*settings): that of a row, prepared."""

    def made(*settings):
        row = Row("row", tiny(*settings), {})
        (found,) = cells(Table("t", "T", (row,)), 1, tmp_path / "runs")
        prepare(Table("t", "T", (row,)), [found], print)
        return found

    return made


@pytest.fixture
def done(cell, watch):
    """The same, run."""

    def made(*settings):
        found = cell(*settings)
        run.execute(found.row.recipe, found.directory, CPU, watch)
        return found

    return made


def evaluators(*chosen):
    return f"evaluators=[{', '.join(chosen)}]"


def timeless(directory):
    """Results without how long they took."""
    known = Results.load(directory).to_json()
    return known | {
        "seconds": 0,
        "measured": [
            entry | {"outcomes": [outcome | {"seconds": 0} for outcome in entry["outcomes"]]}
            for entry in known["measured"]
        ],
    }


@pytest.mark.parametrize("settings", [[], [AVERAGED], ["validation.fraction=0"], ['validation.report="last"']])
def test_what_is_taken_over_is_what_a_training_of_its_own_gives(settings, cell, done, watch, tmp_path, monkeypatch):
    old = done(*settings, evaluators(PRISTINE, PGD))
    new = cell(*settings, evaluators(OTHER, PRISTINE))
    own = tmp_path / "own"
    run.execute(new.row.recipe, own, CPU, watch)
    monkeypatch.setattr(run, "fit", None)
    run.execute(new.row.recipe, new.directory, CPU, watch)
    assert bits(new.directory) == bits(own)
    assert timeless(new.directory) == timeless(own)
    assert {path.name for path in new.directory.glob("verdicts/*")} == {path.name for path in own.glob("verdicts/*")}
    for name in NAMES:
        assert (new.directory / name).exists() == (own / name).exists()
        if (own / name).exists():
            assert checkpoint.load(new.directory / name).recipe == new.row.recipe
    assert (new.directory / METRICS).read_bytes() == (old.directory / METRICS).read_bytes()


def test_what_both_measure_is_not_measured_again(cell, done, watch):
    one, two = done(evaluators(PRISTINE, PGD)), done(evaluators(OTHER))
    new = cell(evaluators(PRISTINE, OTHER))
    kept = Results.load(new.directory)
    assert [outcome.name for outcome in kept.of("last").outcomes] == ["pristine", "PGD3"]
    assert not kept.finished
    found = standing(new.row.recipe, new.directory)
    assert (found.state, found.trained, found.epoch, len(found.found)) == ("stopped", True, 2, 4)
    run.execute(new.row.recipe, new.directory, CPU, watch)
    for name, other in (("pristine", one), ("PGD3", two)):
        # Seconds and all.
        assert Results.load(new.directory).of("last").outcome(name) == Results.load(other.directory).of("last").outcome(
            name
        )
    assert (two.directory / LOG).read_text() == f"trained as {one.directory.name}: only measured\n"


def test_an_evaluator_of_the_same_name_is_not_taken_for_another(cell, done):
    done(evaluators(PGD))
    for other in ('{kind="pgd", steps=2, step_size="4/255"}', '{kind="pgd", steps=2, step_size="8/255", seed=1}'):
        assert Results.load(cell(evaluators(other)).directory).of("last").outcomes == ()


@pytest.mark.parametrize(
    "change",
    ["seed=1", 'threat.epsilon="15/255"', "validation.steps=3", "validation.limit=29", "data.test_limit=30",
     "engine.threads=1", AVERAGED],
)  # fmt: skip
def test_another_training_is_not_taken_over(change, cell, done):
    done()
    new = cell(change, evaluators(OTHER))
    assert not (new.directory / LAST).exists()
    assert [record["state"] for record in plan_records([new])] == ["to do"]


def test_a_dry_run_says_trained_and_writes_nothing(tiny, done, tmp_path):
    done()
    row = Row("row", tiny(evaluators(OTHER)), {})
    found = cells(Table("t", "T", (row,)), 1, tmp_path / "runs")
    (record,) = plan_records(found)
    assert (record["state"], record["epochs"], record["passes"]) == ("trained", 0, 0)
    assert not found[0].directory.exists()


def broken(path):
    path.write_bytes(path.read_bytes()[:-1])


def other_results(directory):
    replace(Results.load(directory), digest="0" * 64).save(directory)


def negated(path):
    saved = checkpoint.load(path)
    replace(saved, state={name: -value for name, value in saved.state.items()}).save(path)


def other_training(directory):
    saved = checkpoint.load(directory / LAST)
    recipe = saved.recipe.model_copy(update={"seed": 1})
    replace(saved, recipe=recipe).save(directory / LAST)
    replace(Results.load(directory), digest=recipe.digest()).save(directory)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda directory: broken(directory / LAST), "model.safetensors: not a whole safetensors file"),
        (lambda directory: (directory / BEST).unlink(), "best.safetensors: no such file or directory"),
        (lambda directory: negated(directory / BEST), "is not the network of epoch"),
        (lambda directory: (directory / METRICS).unlink(), "metrics.jsonl is gone, or not that of its last network"),
        (lambda directory: (directory / METRICS).write_text("{}\n"), "metrics.jsonl is gone, or not that of its last"),
        (lambda directory: other_results(directory), "its results are gone, or not those of its recipe"),
        (other_training, "its last network is not of its recipe.toml"),
    ],
)
def test_what_is_damaged_is_said_and_trained_anew(damage, why, cell, done, watch, capsys):
    old = done(evaluators(PRISTINE))
    damage(old.directory)
    new = cell(evaluators(OTHER))
    assert f"row, seed 0: cannot take over the training of {old.directory}: " in (said := capsys.readouterr().out)
    assert why in said
    assert not (new.directory / LAST).exists()
    run.execute(new.row.recipe, new.directory, CPU, watch)
    assert Results.load(new.directory).finished


def test_a_training_without_results_is_not_taken_for_one(cell, done):
    (done().directory / RESULTS).unlink()
    new = cell(evaluators(OTHER))
    assert [record["state"] for record in plan_records([new])] == ["to do"]
    assert not (new.directory / LAST).exists()


def test_damaged_verdicts_are_found_again(cell, done, watch):
    old = done(evaluators(PRISTINE))
    for path in old.directory.glob("verdicts/*"):
        broken(path)
    new = cell(evaluators(PRISTINE, OTHER))
    assert Results.load(new.directory).of("last").outcomes == ()
    run.execute(new.row.recipe, new.directory, CPU, watch)
    ours, theirs = (Results.load(one.directory).of("last").outcome("pristine") for one in (new, old))
    assert ours.correct == theirs.correct


def test_a_cell_that_is_in_use_or_has_ended_is_left(tiny, done, tmp_path, capsys):
    old = done()
    (new,) = cells(Table("t", "T", (Row("row", tiny(evaluators(OTHER)), {}),)), 1, tmp_path / "runs")
    with held(new.directory):
        take_over([new], print)
    assert [path.name for path in new.directory.iterdir()] == [".lock"]
    known = Results.load(old.directory)
    replace(known, digest=new.row.recipe.digest(), finished=False, diverged="nan").save(new.directory)
    take_over([new], print)
    assert not (new.directory / LAST).exists()
    assert capsys.readouterr().out == ""


def test_a_begun_training_is_taken_over_as_well(cell, tiny, tmp_path, watch):
    new = cell(evaluators(OTHER))
    stopped(new.row.recipe, new.directory, watch, at=3)
    run.execute(tiny(), tmp_path / "runs" / "old", CPU, watch)
    take_over([new], print)
    run.execute(new.row.recipe, new.directory, CPU, watch)
    assert bits(new.directory) == bits(tmp_path / "runs" / "old")
    assert not (new.directory / "state").exists()


def test_what_another_process_did_meanwhile_is_left(tiny, done, tmp_path, watch, monkeypatch):
    done(evaluators(PRISTINE))
    (new,) = cells(Table("t", "T", (Row("row", tiny(evaluators(OTHER)), {}),)), 1, tmp_path / "runs")
    looked, before = trained_before.trainings, None

    def trainings(table):
        nonlocal before
        found = looked(table)
        run.execute(new.row.recipe, new.directory, CPU, watch)
        before = timeless(new.directory), (new.directory / LAST).stat().st_mtime_ns
        return found

    monkeypatch.setattr(trained_before, "trainings", trainings)
    take_over([new], print)
    assert (timeless(new.directory), (new.directory / LAST).stat().st_mtime_ns) == before


def test_a_source_whose_recipe_was_edited_tells_nothing(cell, done, tiny):
    old = done(evaluators(PGD))
    other = '{kind="pgd", steps=2, step_size="4/255"}'
    (old.directory / "recipe.toml").write_text(tomli_w.dumps(tiny(evaluators(other)).resolved()))
    assert Results.load(cell(evaluators(other, PRISTINE)).directory).of("last").outcomes == ()


def test_the_images_of_a_folder_are_looked_at_first(cell, tmp_path, watch, capsys):
    drawing = np.random.default_rng(0)

    def paint():
        for part, count in (("train", 40), ("test", 3)):
            for label in "ab":
                (tmp_path / "images" / part / label).mkdir(parents=True, exist_ok=True)
                for index in range(count):
                    pixels = drawing.integers(256, size=(8, 8, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(tmp_path / "images" / part / label / f"{index}.png")

    paint()
    data = f'data={{source="folder", root="{tmp_path / "images"}"}}'
    old = cell(data, "schedule.batch_size=32", evaluators(PRISTINE))
    run.execute(old.row.recipe, old.directory, CPU, watch)
    same = cell(data, "schedule.batch_size=32", evaluators(PRISTINE, OTHER))
    assert (same.directory / LAST).exists()
    paint()
    changed = cell(data, "schedule.batch_size=32", evaluators(OTHER))
    assert not (changed.directory / LAST).exists()
    assert ": the images have changed since\n" in capsys.readouterr().out
    run.execute(changed.row.recipe, changed.directory, CPU, watch)
    assert Results.load(changed.directory).finished
    (tmp_path / "images").rename(tmp_path / "away")
    cell(data, "schedule.batch_size=32", evaluators(PGD))
    assert "images is not a directory; data.root holds" in capsys.readouterr().out


def test_images_of_which_others_are_held_out_are_looked_at_for_themselves(tiny):
    images = trained_before._Fingerprints(print)
    held_out = [images.now(tiny(f"validation.fraction={share}"))["validation"] for share in (0.05, 0.1)]
    assert held_out[0] != held_out[1]


def test_a_directory_that_cannot_be_read_ends_nothing(done, cell, tmp_path, monkeypatch):
    done(evaluators(PRISTINE))
    closed = tmp_path / "runs" / "closed"
    closed.mkdir()
    monkeypatch.setattr(
        trained_before, "runs_in", lambda table: [closed, *(path for path in table.iterdir() if path != closed)]
    )
    is_file = Path.is_file

    def denied(path):
        if path.parent == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", denied)
    assert (cell(evaluators(OTHER)).directory / LAST).exists()


def test_a_take_over_that_is_cut_off_leaves_a_training_to_begin(cell, tiny, tmp_path, watch, monkeypatch):
    new = cell(evaluators(OTHER))
    stopped(new.row.recipe, new.directory, watch, at=4)  # with the metrics of an epoch
    run.execute(tiny(), tmp_path / "runs" / "old", CPU, watch)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "save", full)
        with pytest.raises(OSError, match="No space left"):
            take_over([new], print)
    run.execute(new.row.recipe, new.directory, CPU, watch)
    assert bits(new.directory) == bits(tmp_path / "runs" / "old")


def test_a_training_has_not_ended_before_its_results_are_there(cell, done, tmp_path, monkeypatch):
    done(evaluators(PRISTINE))

    def fails(_results, directory):
        raise OSError(28, "No space left on device", str(directory))

    monkeypatch.setattr(Results, "save", fails)
    with pytest.raises(RunDirectoryError) as caught:
        cell(evaluators(OTHER))
    (new,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir() and not (path / LAST).exists())
    assert str(caught.value) == f"{new} cannot be written: No space left on device"


def test_results_that_are_taken_over_have_the_title_of_their_own_row(tiny, done, tmp_path):
    done(evaluators(PRISTINE))
    table = Table("t", "T", (Row("other", tiny(evaluators(OTHER)), {}),))
    (new,) = cells(table, 1, tmp_path / "runs")
    prepare(table, [new], print)
    assert Results.load(new.directory).title == "other"


def full(_saved, path):
    raise OSError(28, "No space left on device", str(path))


def test_ablate_measures_a_finished_table_by_others(tiny, tmp_path):
    (tmp_path / "base.toml").write_text(tomli_w.dumps(tiny("schedule.epochs=1").resolved()))
    (tmp_path / "t.toml").write_text(
        'title = "T"\nbase = "base.toml"\n[[rows]]\nname = "a"\n[[rows]]\nname = "b"\nset.threat.epsilon = "8/255"\n'
    )
    words = ["ablate", str(tmp_path / "t.toml"), "--out", str(tmp_path), "--format", "json", "--set"]
    first = CliRunner().invoke(app, [*words, evaluators(PRISTINE)])
    assert first.exit_code == 0
    again = CliRunner().invoke(app, [*words, evaluators(PRISTINE, OTHER)])
    assert again.exit_code == 0, again.stderr
    assert again.stderr.count(": only measured\n") == 2
    assert "training" not in again.stderr
