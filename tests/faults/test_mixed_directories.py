"""Run directories that were mixed from others, or that point elsewhere: no file of another's is touched or believed."""

import json
import shutil

import pytest
from interrupted import CPU, SMALL, bits, same, stopped

from advmix_cli import run
from advmix_cli.errors import AdvmixError, CheckpointError, RunDirectoryError
from advmix_cli.fit import Keeping
from advmix_cli.report.results import Results
from advmix_cli.seals import sealed, unsealed


def names(directory):
    return sorted(path.name for path in directory.rglob("*"))


@pytest.mark.parametrize("name", ["state", "verdicts"])
def test_what_a_link_points_to_is_left_alone(tiny, tmp_path, watch, name):
    recipe, part, precious = tiny(*SMALL), tmp_path / "part", tmp_path / "precious"
    stopped(recipe, part, watch, at=7)
    precious.mkdir()
    for file in ("thesis.tex", "000001-000001.json", "x.safetensors"):
        (precious / file).write_text("mine")
    before = names(precious)
    shutil.rmtree(part / name, ignore_errors=True)
    (part / name).symlink_to(precious)
    with pytest.raises(RunDirectoryError, match=f"{name} is a link"):
        run.execute(recipe, part, CPU, watch)
    assert names(precious) == before


def test_other_files_beside_the_states_are_left_alone(whole, tmp_path, watch):
    recipe, expected = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7)
    folders = {"sub", "000009-000001.safetensors"}
    for folder in folders:
        (part / "state" / folder).mkdir()
    for file in ("notes.txt", "x.safetensors", "000001.json"):
        (part / "state" / file).write_text("mine")
    (part / "state" / ".000001-000001.json.abc").write_text("cut off")
    stopped(recipe, part, watch, at=2)
    assert {*folders, "notes.txt", "x.safetensors", "000001.json"} <= set(names(part / "state"))
    assert ".000001-000001.json.abc" not in names(part / "state")
    run.execute(recipe, part, CPU, watch)
    assert same(bits(part), expected)


def test_results_of_another_recipe_are_not_this_one_s(tiny, tmp_path, watch):
    one, other = tiny("schedule.epochs=1"), tiny("schedule.epochs=1", "optimizer.lr=0.001")
    run.execute(one, tmp_path / "one", CPU, watch)
    run.execute(other, tmp_path / "other", CPU, watch)
    shutil.copy(tmp_path / "other" / "results.json", tmp_path / "one" / "results.json")
    with pytest.raises(RunDirectoryError, match="holds the results of another recipe"):
        run.execute(one, tmp_path / "one", CPU, watch)


def spoilt(directory, **changes):
    """Results, sealed, that are finished or not, with entries of other weights or another epoch."""
    path = directory / "results.json"
    known = unsealed(json.loads(path.read_text()))
    finished = changes.pop("finished")
    measured = [{**entry, **changes} for entry in known["measured"]]
    path.write_text(json.dumps(sealed({**known, "finished": finished, "measured": measured})))


def test_results_of_other_weights_are_not_these_ones(tiny, tmp_path, watch):
    recipe, part = tiny("schedule.epochs=1"), tmp_path / "part"
    true = run.execute(recipe, part, CPU, watch)
    spoilt(part, weights="0" * 64, finished=True)
    with pytest.raises(RunDirectoryError, match=r"is not the network that results.json is of"):
        run.execute(recipe, part, CPU, watch)
    for changes in ({"weights": "0" * 64}, {"epoch": 7}):
        spoilt(part, **changes, finished=False)
        again = run.execute(recipe, part, CPU, watch)
        assert [(one.epoch, one.weights) for one in again.measured] == [
            (one.epoch, one.weights) for one in true.measured
        ]


@pytest.mark.parametrize("kind", ["garbage", "a bit", "the best one", "of another recipe"])
def test_a_network_that_is_not_the_last_one_ends_no_training(whole, tiny, tmp_path, watch, kind):
    """And the state is there, until the last network is."""
    recipe, expected = whole()
    part, last = tmp_path / "part", tmp_path / "part" / "model.safetensors"
    stopped(recipe, part, watch, at=7)
    match kind:
        case "garbage":
            last.write_bytes(b"garbage")
        case "a bit":
            content = (tmp_path / "whole" / "model.safetensors").read_bytes()
            last.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "the best one":
            shutil.copy(part / "best.safetensors", last)
        case "of another recipe":
            run.execute(tiny(*SMALL, "seed=9"), tmp_path / "other", CPU, watch)
            shutil.copy(tmp_path / "other" / "model.safetensors", last)
    before = names(part / "state")
    with pytest.raises(AdvmixError) as caught:
        run.execute(recipe, part, CPU, watch, Keeping())
    assert isinstance(caught.value, CheckpointError | RunDirectoryError)
    assert names(part / "state") == before
    assert not Results.load(part).finished
    last.unlink()
    run.execute(recipe, part, CPU, watch)
    assert same(bits(part), expected)
