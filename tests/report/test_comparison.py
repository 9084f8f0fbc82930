"""`advmix compare`: two measurements image by image, and what cannot be compared."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from advmix_cli.cli import app
from advmix_cli.errors import RunDirectoryError, UsageError
from advmix_cli.evaluation import verdict_files
from advmix_cli.evaluation.outcome import Evaluated
from advmix_cli.evaluation.significance import Paired
from advmix_cli.evaluation.verdict_files import Record
from advmix_cli.evaluation.verdicts import NOTHING, Verdicts
from advmix_cli.report.comparison import collapsed, compared, comparison_grids, corrected, records
from advmix_cli.report.results import Measured, Results
from advmix_cli.report.tables import spanned
from advmix_cli.seals import sealed


def record(robust, name="PGD20", images="f", steps=20):
    found = torch.tensor(robust)
    broken = torch.where(found, NOTHING, 0).to(torch.int8)
    verdicts = Verdicts(("pgd",), torch.ones_like(found), broken, found.float() - 0.5)
    labels = torch.arange(len(robust)) % 2
    one = Evaluated.of(name, verdicts, labels, 1.0, {"split": "test", "steps": steps}, {"torch": "2"})
    return Record(one, "w" * 64, images, ("cat", "dog", "bird"))


FIRST = [True, True, False, False, True, False]
SECOND = [True, False, True, True, True, False]


def test_gained_and_lost_are_counted_over_all_and_in_each_class():
    (found,) = compared({"PGD20": record(FIRST)}, {"PGD20": record(SECOND)})
    assert found.correct == (3, 4)
    assert found.whole == Paired(6, 2, 1)
    assert found.classes == {"cat": Paired(3, 1, 0), "dog": Paired(3, 1, 1)}  # no bird was looked at
    assert found.differ == []
    whole, classes = comparison_grids([found], ("x", "y"))
    row = [cell.value for cell in whole.rows[0]]
    assert row[:4] == ["PGD20", "50.0", "66.7", "+16.7"]
    assert row[4:] == ["2", "1", "1", "6"]
    assert whole.rows[0][3].notes == (spanned(found.whole.interval),)
    assert whole.rows[0][6].notes == ("noise",)
    assert [(line[0].value, line[1].value, line[1].notes) for line in classes.rows] == [
        ("cat", "+33.3", ("+1 -0 of 3, p 1",)),
        ("dog", "+0.0", ("+1 -1 of 3, p 1",)),
    ]


def test_ps_of_classes_are_corrected_for_all_of_them():
    second = [number % 4 == 0 for number in range(40)]
    (found,) = compared({"PGD20": record([False] * 40)}, {"PGD20": record(second)})
    assert [paired.p for paired in found.classes.values()] == [pytest.approx(2 / 2**10), 1.0]
    whole, classes = comparison_grids([found], ("x", "y"))
    assert [line[1].notes for line in classes.rows] == [("+10 -0 of 20, p 0.0039",), ("+0 -0 of 20, p 1",)]
    assert whole.rows[0][6].value == "0.002"
    written = found.to_json(corrected([found]))["classes"]
    assert [one["p"] for one in written.values()] == [pytest.approx(2 / 2**10), 1.0]
    assert [one["p_holm"] for one in written.values()] == [pytest.approx(4 / 2**10), 1.0]
    assert classes.captions == ("p by McNemar's exact test, corrected for the 2 tests of this table by Holm's method",)


def test_where_one_looked_at_more_images_it_is_the_first_of_them():
    (found,) = compared({"PGD20": record(FIRST)}, {"PGD20": record(SECOND[:2], steps=40)})
    assert found.whole == Paired(2, 0, 1)
    assert found.differ == ["steps: A 20, B 40"]
    (line,) = (caption for caption in comparison_grids([found], ("x", "y"))[0].captions if "settings" in caption)
    assert line == "PGD20: NOT the same settings: steps: A 20, B 40"


def test_classes_of_a_worst_case_are_no_tests_beside_those_of_what_it_is_over():
    first = {name: record([False] * 40, name) for name in ("PGD20", "worst case")}
    second = {name: record([number % 4 == 0 for number in range(40)], name) for name in ("PGD20", "worst case")}
    found = compared(first, second)
    assert corrected(found).keys() == {("PGD20", "cat"), ("PGD20", "dog")}
    assert found[1].to_json(corrected(found))["classes"]["cat"]["p_holm"] is None
    assert corrected(found[1:]).keys() == {("worst case", "cat"), ("worst case", "dog")}


def test_a_class_that_one_evaluator_did_not_look_at_has_a_line_and_no_number_there():
    first, second = ({"PGD20": record(found[:1]), "AA": record(found, "AA")} for found in (FIRST, SECOND))
    classes = comparison_grids(compared(first, second), ("x", "y"))[1]
    assert [[cell.value for cell in line] for line in classes.rows] == [["cat", "+0.0", "+33.3"], ["dog", "·", "+0.0"]]


def test_settings_that_differ_are_shown_as_fractions_of_255():
    def of(epsilon):
        one = record(FIRST)
        outcome = replace(one.found.outcome, settings={"split": "test", "epsilon": epsilon})
        return {"PGD20": replace(one, found=one.found._replace(outcome=outcome))}

    (found,) = compared(of(8 / 255), of(0.1))
    assert found.differ == ["epsilon: A 8/255, B 25.5/255"]


def test_a_setting_that_only_the_second_has_differs_too():
    second = record(SECOND)
    outcome = replace(second.found.outcome, settings={**second.found.outcome.settings, "restarts": 5})
    second = replace(second, found=second.found._replace(outcome=outcome))
    (found,) = compared({"PGD20": record(FIRST)}, {"PGD20": second})
    assert found.differ == ["restarts: A None, B 5"]


def test_single_ones_need_not_have_the_same_name():
    (found,) = compared({"PGD20": record(FIRST)}, {"AA": record(SECOND, name="AA")})
    assert found.whole == Paired(6, 2, 1)
    both = {"PGD20": record(FIRST), "AA": record(FIRST)}
    with pytest.raises(UsageError, match="no evaluator has measured both: PGD20, AA; none"):
        compared(both, {})
    with pytest.raises(UsageError, match="no evaluator has measured both: PGD20, AA; x"):
        compared(both, {"x": record(SECOND)})


def test_verdicts_of_two_networks_in_one_directory_are_not_one(tmp_path):
    def kept(how, **changes):
        for number, name in enumerate(("pristine", "PGD20")):
            own = {key: values[number] for key, values in changes.items()}
            replace(record(FIRST, name=name), **own).save(tmp_path / how / f"{name}.safetensors")
        with pytest.raises(UsageError) as caught:
            records(tmp_path / how, None)
        return str(caught.value).partition(": ")

    *_, said = kept("other epochs", weights=("v" * 64, "w" * 64), selection=("last", "best on validation"))
    assert said == "choose with --selection, or name one file"
    assert records(tmp_path / "other epochs", "best").keys() == {"PGD20"}
    assert kept("other weights", weights=("v" * 64, "w" * 64))[2] == "name one file"
    assert kept("said to be others", network=("v", "w"))[2] == "name one file"
    replace(record(FIRST, name="PGD20")).save(tmp_path / "said to be others" / "PGD20.safetensors")  # of before
    assert len(records(tmp_path / "said to be others", None)) == 2


@pytest.mark.parametrize(("weights", "is_known"), [("w", True), ("v", False)])
def test_a_checkpoint_stands_for_what_was_measured_of_it_alone(ran, monkeypatch, weights, is_known):
    (ran / "model.safetensors").touch()
    saved = SimpleNamespace(selection="last", weights=weights * 64)
    monkeypatch.setattr("advmix_cli.report.comparison.checkpoint.load", lambda _: saved)
    if is_known:
        for selection in (None, "best"):
            assert records(ran / "model.safetensors", selection).keys() == {"PGD20"}
    else:
        with pytest.raises(UsageError, match=r"model\.safetensors is not the network that results\.json is of: "):
            records(ran / "model.safetensors", None)


def test_different_images_are_not_compared():
    with pytest.raises(UsageError, match="PGD20: the two were measured on different images"):
        compared({"PGD20": record(FIRST)}, {"PGD20": record(SECOND, images="g")})


@pytest.fixture
def ran(tmp_path):
    """A run directory with one evaluator's verdicts."""
    one = record(FIRST)
    Results("t", 0, "d", 5, 9, {"test": "f"}, measured=(Measured("last", 5, "w" * 64, (one.found.outcome,)),)).save(
        tmp_path / "run"
    )
    one.save(verdict_files.place(tmp_path / "run" / "verdicts", "PGD20", 5, "w" * 64))
    return tmp_path / "run"


def test_verdicts_are_found_in_a_run_a_directory_and_a_file(ran, tmp_path):
    (path,) = (ran / "verdicts").iterdir()
    for place in (ran, ran / "verdicts", path):
        assert records(place, None).keys() == {"PGD20"}
    assert records(ran, None)["PGD20"].selection == "last"  # whose file may be that of the best epoch, too
    said = r"its best epoch was not measured \(there is: last\)"
    with pytest.raises(UsageError, match=f"{said}$"):
        records(ran, "best")
    (ran / "best.safetensors").touch()
    with pytest.raises(UsageError, match=rf"{said}; `advmix eval .*run/best\.safetensors --save DIR` measures it"):
        records(ran, "best")
    replace(Results.load(ran), measured=()).save(tmp_path / "unmeasured")
    with pytest.raises(UsageError, match=r"its last epoch was not measured \(there is: nothing\)$"):
        records(tmp_path / "unmeasured", None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"holds neither results\.json nor files of verdicts"):
        records(tmp_path / "empty", "last")
    with pytest.raises(UsageError, match="no such file or directory"):
        records(tmp_path / "nowhere", "last")
    (tmp_path / "empty" / "recipe.toml").touch()
    with pytest.raises(UsageError, match=r"empty: a run without results\.json: nothing of it has been measured"):
        records(tmp_path / "empty", "last")
    (ran / "verdicts" / "again.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match="holds several files of PGD20"):
        records(ran / "verdicts", None)
    record(SECOND).save(path)
    with pytest.raises(UsageError, match=r"its verdicts of PGD20 are not those that results\.json is of"):
        records(ran, "last")


def test_of_a_directory_of_several_epochs_one_is_chosen(tmp_path):
    kept = {"last": FIRST, "best on test": SECOND}
    for selection, verdicts in kept.items():
        replace(record(verdicts), selection=selection).save(tmp_path / f"{selection}.safetensors")
    for selection, name in (("last", "last"), ("best", "best on test")):
        found = records(tmp_path, selection)["PGD20"]
        assert (found.selection, found.found.outcome.correct) == (name, record(kept[name]).found.outcome.correct)
    said = r"none of its verdicts are of the averaged last epoch \(there is: best on test, last\)"
    with pytest.raises(UsageError, match=said):
        records(tmp_path, "averaged last")
    record(FIRST).save(tmp_path / "foreign" / "x.safetensors")
    assert records(tmp_path / "foreign", "best").keys() == {"PGD20"}


def test_the_command_prints_tables_or_one_document(ran, tmp_path):
    record(SECOND).save(tmp_path / "b.safetensors")
    words = ["compare", str(ran), str(tmp_path / "b.safetensors")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "B against A, on the same images" in done.stdout
    document = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    (one,) = document["evaluators"]
    assert document["of_one_alone"] == []
    assert (one["gained"], one["lost"], one["n"], one["p"]) == (2, 1, 6, 1.0)
    assert (one["a"], one["b"]) == (3 / 6, 4 / 6)
    assert one["low"] < one["difference"] < one["high"]
    assert one["classes"]["dog"]["lost"] == 1
    assert one["classes"]["dog"]["p_holm"] == 1.0
    done = CliRunner().invoke(app, ["compare", str(ran), str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "no such file or directory" in " ".join(done.stderr.split())


def test_a_choice_on_test_images_is_stamped():
    chosen = replace(record(SECOND), selection="best on test")
    (found,) = compared({"PGD20": replace(record(FIRST), selection="last")}, {"PGD20": chosen})
    captions = comparison_grids([found], ("x", "y"))[0].captions
    assert captions[:2] == ("A: x, last epoch", "B: y, best on test epoch")
    assert captions[2].startswith("B is TEST-SELECTED")
    assert found.to_json({})["test_selected"] == [False, True]


def test_a_training_that_collapsed_is_told_of(ran):
    replace(Results.load(ran), collapsed=(2, 4)).save(ran)
    (verdicts,) = (ran / "verdicts").iterdir()
    (ran / "model.safetensors").touch()
    assert [collapsed(place) for place in (ran, ran / "model.safetensors")] == [(2, 4)] * 2
    assert [collapsed(place) for place in (verdicts, ran / "verdicts", ran / "nothing")] == [()] * 3
    words = ["compare", str(verdicts), str(ran)]
    printed = " ".join(CliRunner().invoke(app, words).stdout.split())
    assert "B COLLAPSED: the validation's accuracy under attack fell by half in epochs 2, 4" in printed
    assert "A COLLAPSED" not in printed
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["collapsed"] == {"a": [], "b": [2, 4]}


def test_what_only_one_has_is_named(ran, tmp_path):
    for name in ("PGD20", "other"):
        record(SECOND, name=name).save(tmp_path / "b" / f"{name}.safetensors")
    done = CliRunner().invoke(app, ["compare", str(ran), str(tmp_path / "b")])
    assert "measured of one alone: other" in done.stdout
    document = json.loads(CliRunner().invoke(app, ["compare", str(ran), str(tmp_path / "b"), "--json"]).stdout)
    assert document["of_one_alone"] == ["other"]


def test_a_checkpoint_is_no_file_of_verdicts(tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "m.safetensors", {"advmix": json.dumps(sealed({"recipe": {}}))})
    with pytest.raises(RunDirectoryError, match="it is a checkpoint; name its run directory"):
        records(tmp_path / "m.safetensors", "last")
