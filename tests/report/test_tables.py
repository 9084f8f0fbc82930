"""Results -> tables: means, differences, what is missing, and the stamp of a choice made on test images."""

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from advmix_cli.errors import RunDirectoryError
from advmix_cli.evaluation.outcome import Outcome
from advmix_cli.report import ablation
from advmix_cli.report.ablation import ablation_grid, ablation_records
from advmix_cli.report.results import Measured, Results
from advmix_cli.report.tables import outcome_grid, outcomes_grid, seconds, stamp

COLUMNS = ("pristine", "PGD20")


def line(name, runs, paper):
    """Of run directories that are not there."""
    return ablation.Line(name, runs, tuple(Path("nowhere") for _ in runs), paper)


def outcome(name, correct, n=1000):
    settings = {"split": "test", "epsilon": 8 / 255, "attacks": ["apgd-ce", "square"]}
    return Outcome(name, n, correct, {"clean": n - correct}, 1.5, settings, {"torch": "2"}, "v")


def measured(selection, epoch, *correct):
    found = (outcome(name, number) for name, number in zip(COLUMNS, correct, strict=False))
    return Measured(selection, epoch, "w", tuple(found))


def results(*entries, seed=0, diverged=None):
    return Results(
        title="t", seed=seed, digest=f"d{seed}", epochs=5, train_images=9, images={"train": "f"},
        machines=({"from_epoch": 1, "from_batches": 0, "torch": "2"},), seconds=1.25,
        measured=entries, diverged=diverged, finished=not diverged,
    )  # fmt: skip


def cells(*lines):
    """The grid's rows as (value, notes) pairs."""
    return [[(cell.value, cell.notes) for cell in row] for row in ablation_grid("T", COLUMNS, lines).rows]


def test_results_survive_json(tmp_path):
    whole = results(measured("last", 5, 800, 500), measured("best on validation", 3, 810, 490), seed=7)
    whole.save(tmp_path)
    assert Results.load(tmp_path) == whole
    stopped = results(diverged="the loss became nan at epoch 2, batch 3")
    stopped.save(tmp_path)
    assert Results.load(tmp_path) == stopped


def test_there_are_no_results_yet(tmp_path):
    assert Results.load(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"measured": 3}', '{"measured": [], "x": 1}'])
def test_results_that_cannot_be_read_are_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(RunDirectoryError, match="is damaged or was changed; delete it"):
        Results.load(tmp_path)


def test_an_outcome_survives_json():
    one = outcome("PGD20", 333)
    assert Outcome.from_json(one.to_json()) == one
    assert one.to_json()["accuracy"] == 0.333


def test_measuring_again_replaces_what_was_known_of_the_same_weights():
    first, second = measured("last", 5, 1), measured("last", 5, 2)
    best = measured("best on validation", 3, 3)
    assert results(first, best).with_measured(second).measured == (best, second)


def test_the_weights_as_they_were_trained_are_not_taken_for_averages_that_stand_before_them():
    kinds = "averaged last", "averaged best on test", "best on test", "last"
    known = results(*(measured(kind, number, 1) for number, kind in enumerate(kinds)))
    assert [known.of(kind).epoch for kind in ("last", "best", "averaged best")] == [3, 2, 1]


def test_one_seed_shows_its_interval_and_the_difference_to_the_paper():
    (row,) = cells(line("A", (results(measured("last", 5, 800, 500)),), {"pristine": 83.3, "PGD20": 47.9}))
    # Wilson's interval of 800 in 1000: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.96.
    assert row[0] == ("A", ())
    assert row[1] == ("80.0", ("77.4–82.4, n 1,000", "paper 83.3, -3.3"))
    assert row[2] == ("50.0", ("46.9–53.1, n 1,000", "paper 47.9, +2.1"))


def test_the_paper_s_number_has_the_decimals_that_it_was_given_with():
    (row,) = cells(line("A", (results(measured("last", 5, 800, 583)),), {"PGD20": 58.34}))
    assert row[2] == ("58.3", ("55.2–61.3, n 1,000", "paper 58.34, -0.04"))


def test_an_epoch_that_was_chosen_on_the_very_images_is_said():
    one = replace(outcome("V", 800), settings={"split": "validation"})
    for selection, says in (("best on validation", True), ("last", False), ("averaged best on validation", True)):
        grid = outcome_grid("T", Measured(selection, 5, "d", (one, outcome("on test images", 800))))
        said = "V: the best epoch was chosen on these images, so its accuracy on them is too high."
        assert (said in grid.captions) == says
        assert not any(caption.startswith("on test images: the best") for caption in grid.captions)
        table = ablation_grid("T", ["V"], [line("A", (results(Measured(selection, 5, "d", (one,))),), {})])
        assert (said in table.captions) == says


def test_several_seeds_show_their_mean_and_standard_deviation():
    runs = tuple(results(measured("last", 5, n, n - 300), seed=seed) for seed, n in enumerate((800, 810, 850)))
    (row,) = cells(line("A", runs, {"pristine": 80.0}))
    spread = statistics.stdev((80.0, 81.0, 85.0))
    assert row[1] == ("82.0", (f"3 seeds ± {spread:.1f}, n 1,000", "paper 80.0, +2.0"))
    assert row[2] == ("52.0", (f"3 seeds ± {spread:.1f}, n 1,000",))


def test_what_is_not_measured_yet_shows_the_paper_s_number_alone():
    (row,) = cells(line("A", (None,), {"PGD20": 50.2}))
    assert row[1:] == [("·", ()), ("·", ("paper 50.2",))]
    (row,) = cells(line("A", (results(measured("last", 5, 800)),), {"PGD20": 50.2}))
    assert row[1][0] == "80.0"
    assert row[2] == ("·", ("paper 50.2",))


def test_a_diverged_row_says_so():
    rows = cells(
        line("A", (results(diverged="nan"),), {"pristine": 80.0}),
        line("B", (results(measured("last", 5, 800, 500)), results(diverged="nan", seed=1)), {}),
        line("C", (results(measured("last", 5, 800, 500)),), {}),
    )
    assert [[value for value, _ in row] for row in rows] == [
        ["A", "diverged", "diverged"],
        ["B", "80.0", "50.0"],
        ["C", "80.0", "50.0"],
    ]
    # The seeds that ended are still worth showing, beside the count of those that did not.
    assert [["1 diverged" in notes for _, notes in row[1:]] for row in rows] == [[False] * 2, [True] * 2, [False] * 2]


def test_the_best_epoch_has_a_line_under_its_row_without_the_paper_s_numbers():
    one = results(measured("last", 5, 800, 500), measured("best on validation", 3, 810, 490))
    rows = cells(line("A", (one,), {"pristine": 80.0}), line("B", (results(measured("last", 5, 700, 400)),), {}))
    assert [row[0][0] for row in rows] == ["A", "└ best on validation (epoch 3)", "B"]
    assert [value for value, _ in rows[1][1:]] == ["81.0", "49.0"]
    assert not any("paper" in note for _, notes in rows[1] for note in notes)


def test_seeds_that_were_given_up_are_counted_in_the_row_and_not_again_at_its_best_epoch():
    one = results(measured("last", 5, 800, 500), measured("best on validation", 3, 810, 490))
    rows = cells(replace(line("A", (one, None), {}), failed=("seed 1: out of memory",)))
    assert ["1 failed" in row[1][1] for row in rows] == [True, False]


@pytest.mark.parametrize("paper", [{}, {"pristine": 80.0}])
def test_only_where_the_paper_s_numbers_are_shown_an_edit_says_whose_they_are(paper):
    lines = [line("A", (results(measured("last", 5, 800, 500)),), paper)]
    captions = ablation_grid("T", COLUMNS, lines, ["schedule.epochs=3"]).captions
    said = "The paper's numbers are those of the table as it is shipped, not of this edit."
    assert (said in captions) == bool(paper)


def test_averages_have_their_lines_under_the_row_they_belong_to():
    kinds = ("last", 5), ("best on test", 3), ("averaged last", 5), ("averaged best on test", 4)
    runs = tuple(
        results(*(measured(*kind, 800 + 10 * place, 500) for place, kind in enumerate(kinds)), seed=seed)
        for seed in (0, 1)
    )
    plain = results(measured("last", 5, 700, 400))
    rows = cells(line("A", runs, {"pristine": 80.0}), line("B", (plain,), {}))
    names = [
        "A",
        "└ best on test (epoch 3, 3)",
        "└ averaged last (epoch 5, 5)",
        "└ averaged best on test (epoch 4, 4)",
        "B",
    ]
    assert [row[0][0] for row in rows] == names
    assert [row[1][0] for row in rows] == ["80.0", "81.0", "82.0", "83.0", "70.0"]
    assert [any("paper" in note for note in row[1][1]) for row in rows] == [True, False, False, False, False]
    records = ablation_records(COLUMNS, [line("A", runs, {"pristine": 80.0})])
    assert {record["selection"] for record in records if record["paper"]} == {"last"}


def stamped(selection):
    lines = [line("A", (results(measured("last", 5, 800, 500), measured(selection, 3, 810, 490)),), {})]
    return ablation_grid("T", COLUMNS, lines), ablation_records(COLUMNS, lines)


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_a_choice_on_test_images_is_stamped(form):
    for kind in ("", "averaged "):
        chosen, honest = (getattr(stamped(f"{kind}best on {images}")[0], form)() for images in ("test", "validation"))
        assert "TEST-SELECTED" in chosen
        assert "TEST-SELECTED" not in honest


def test_latex_prints_the_stamp_rather_than_hiding_it_in_a_comment():
    lines = stamped("best on test")[0].latex().split("\n")
    assert any("TEST-SELECTED" in line and not line.startswith("%") for line in lines)


def test_records_say_how_the_epoch_was_chosen():
    records = stamped("best on test")[1]
    assert [(record["selection"], record["epoch"]) for record in records] == [("last", 5)] * 2 + [
        ("best on test", 3)
    ] * 2


def test_one_checkpoint_s_grid_is_stamped_too():
    for selection, wanted in (
        ("best on test", True), ("best on validation", False), ("last", False),
        ("averaged best on test", True), ("averaged best on validation", False), ("averaged last", False),
    ):  # fmt: skip
        captions = outcome_grid("T", measured(selection, 3, 800, 500)).captions
        assert any("TEST-SELECTED" in caption for caption in captions) is wanted


def test_one_checkpoint_s_grid_says_what_each_number_depends_on():
    grid = outcome_grid("T", measured("last", 5, 800, 500))
    assert [cell.value for cell in grid.rows[0]] == ["pristine", "80.0", "77.4–82.4", "800", "1,000", "1.5 s"]
    assert grid.captions[1] == "PGD20: split test, epsilon 8/255, attacks apgd-ce+square"


def test_machines_are_named_by_what_differs_and_the_epochs_that_they_came_in():
    entry = measured("last", 5, 800)
    first = {"from_epoch": 1, "from_batches": 0, "device": "A", "torch": "2"}
    second = {**first, "from_epoch": 3, "from_batches": 4, "device": "B"}
    said = "trained on 2 machines: device A from epoch 1; device B from epoch 3"
    assert said in outcome_grid("T", entry, (first, second)).captions
    assert not any("trained on" in line for line in outcome_grid("T", entry, (first,)).captions)


def test_settings_in_pixels_are_levels_of_grey():
    one = replace(outcome("P", 800), settings={"epsilon": 8 / 255, "step_size": 2 / 255, "steps": 20})
    assert stamp(one) == "epsilon 8/255, step_size 2/255, steps 20"
    assert stamp(replace(one, settings={"epsilon": 2.0, "step_size": 0.5})) == "epsilon 2.0, step_size 127.5/255"


def test_only_of_steps_that_a_recipe_can_have_it_is_asked_how_far_they_lead(monkeypatch):
    monkeypatch.setattr("advmix_cli.report.tables.falls_short", lambda *_: True)
    for steps, asked in ((1, True), (0, False), (1_000_000, True), (1_000_001, False)):
        one = replace(outcome("P", 800), settings={"epsilon": 0.1, "step_size": 0.01, "steps": steps})
        _, *said, _ = outcomes_grid("T", [one], ("first",)).captions
        assert [line.startswith("P: its steps do not lead to the edge") for line in said] == [True] * asked


def test_where_several_attacks_broke_images_each_has_its_count():
    one = outcome("A", 800)
    several = replace(one, broken={"clean": 50, "apgd-ce": 100, "square": 50})
    alone = replace(one, broken={"clean": 50, "pgd": 150})
    (broken,), (silent,) = (outcomes_grid("T", [each], ()).captions for each in (several, alone))
    assert broken.endswith("; broken by apgd-ce 100, square 50")
    assert "broken by" not in silent


@pytest.mark.parametrize(
    ("count", "said"),
    [(99.94, "99.9 s"), (100, "1 min 40 s"), (3599.6, "1 h 00 min"), (7200, "2 h 00 min"), (90_061, "25 h 01 min")],
)
def test_a_duration_is_in_seconds_minutes_or_hours(count, said):
    assert seconds(count) == said


def test_records_are_unrounded_fractions():
    one = line("A", (results(measured("last", 5, 333, 1)), None), {"pristine": 83.3})
    first, second = ablation_records(COLUMNS, [one])
    assert (first["row"], first["seed"], first["n"], first["correct"]) == ("A", 0, 1000, 333)
    assert first["accuracy"] == 0.333
    assert first["low"] < 0.333 < first["high"]
    assert first["paper"] == pytest.approx(0.833, abs=1e-12)
    assert (second["evaluator"], second["accuracy"], second["paper"]) == ("PGD20", 0.001, None)


def test_a_diverged_run_is_among_the_records():
    """A row must not vanish from the formats that programs read."""
    records = ablation_records(COLUMNS, [line("A", (results(diverged="nan at epoch 2"),), {})])
    assert [record["row"] for record in records]
    assert "diverged" in str(records)
