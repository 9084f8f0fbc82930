"""The cells of a table as a document: found by the table's name or in a directory, whole or not."""

import csv
import html
import io
import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from made import Checked, digits_table, epoch_lines, outcome, recipe_with, write_run
from matplotlib.figure import Figure
from typer.testing import CliRunner

from advmix_cli.ablation.cells import cells
from advmix_cli.ablation.order import keep_order
from advmix_cli.cli import app
from advmix_cli.diagnosis.battery import Check
from advmix_cli.diagnosis.diagnose import Diagnosis
from advmix_cli.diagnosis.kept import Kept
from advmix_cli.document.cells import There, in_directory
from advmix_cli.document.table import again, document
from advmix_cli.failures import Failure
from advmix_cli.files import read_text
from advmix_cli.recipe import load
from advmix_cli.recipe.table import Row, Table, load_table
from advmix_cli.report.results import Measured
from advmix_cli.report.tables import TEST_SELECTED

SET = "schedule.epochs=7"


def advmix(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(autouse=True)
def sketched(monkeypatch):
    """Figures that are drawn at once; what they show has its own tests."""
    for name in (
        "dot_plot",
        "row_curves",
    ):
        monkeypatch.setattr(f"advmix_cli.document.table.{name}", lambda *_: Figure((1, 1)))


def shown(path):
    return " ".join(Checked(path.read_text(encoding="utf-8")).text.split())


def test_a_directory_and_the_table_s_name_give_the_same(tmp_path):
    directory = digits_table(tmp_path, seeds=2)
    assert advmix("report", directory).exit_code == 0
    first = (directory / "report.html").read_text()
    assert advmix("report", "digits", "--out", tmp_path).exit_code == 0
    assert (directory / "report.html").read_text() == first
    read = shown(directory / "report.html")
    assert "Table digits, 14 cells" in read
    assert f"advmix ablate digits --seeds 2 --out NEW_DIRECTORY advmix report digits --seeds 2 --out {tmp_path}" in read
    assert "UNFINISHED" not in read
    assert 'Ours, frozen λ 8 fields maximizer.kind = "integrated"' in read
    assert first.count("<svg") == 2
    assert {path.name for path in (directory / "figures").iterdir()} == {
        f"{name}.{form}" for name in ("ablation", "row-curves") for form in ("png", "svg")
    }


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_the_table_is_the_one_that_ablate_prints(tmp_path, form):
    digits_table(tmp_path)
    printed = advmix("ablate", "digits", "--out", tmp_path, "--format", form)
    assert printed.exit_code == 0, printed.output
    assert printed.stdout.strip() in advmix("report", "digits", "--out", tmp_path, "--format", form).stdout


def test_the_numbers_are_those_of_the_records(tmp_path):
    directory = digits_table(tmp_path)
    advmix("report", directory)
    text = (directory / "report.html").read_text().partition("</table>")[0]
    rows = re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', text)
    found = {name: re.findall(r"<td[^>]*>([\d.]+)", cells) for name, cells in rows}
    records = csv.DictReader(io.StringIO(advmix("ablate", "digits", "--out", tmp_path, "--format", "csv").stdout))
    for record in records:
        assert f"{100 * float(record['accuracy']):.1f}" in found[record["row"]]


def test_what_is_missing_is_said(tmp_path):
    directory = digits_table(tmp_path, rows=[0, 4])
    (one,) = directory.glob("ours-frozen-lambda-seed0*")
    recipe = load_table("digits").rows[4].recipe.model_copy(update={"title": "Ours, frozen λ"})
    write_run(one, recipe, [], lines=epoch_lines(3), finished=False)
    Failure(2, 1, "no memory").save(one)
    row = load_table("digits").rows[0]
    again = cells(load_table("digits"), 2, directory)[7]
    half = [Measured("last", 30, "w", (outcome("pristine", 90),))]
    write_run(again.directory, again.row.recipe, half, lines=epoch_lines(4), finished=False)
    done = advmix("report", directory)
    assert (done.exit_code, done.stdout) == (0, "")
    read = shown(directory / "report.html")
    assert "UNFINISHED: 1 of 14 cells are measured" in read
    assert f"Attack 0 measured 12.5 s {row.recipe.digest()[:12]}" in read
    assert "Ours, frozen λ 0 failed 12.5 s" in read
    assert f"Attack 1 epoch 4 of {row.recipe.schedule.epochs}, measured in part" in read
    assert read.count("not begun") == 11
    assert "PGD20 split test, epsilon 8/255" in read
    assert read.index("FAILED: Ours, frozen λ, seed 0: no memory (exit code 1, 2 attempts)") < read.index("Results")


def reports(directory):
    """{name: (its page, its first figure)} of those that lie there."""
    found = {}
    for path in sorted(directory.glob("report*.html")):
        end = path.stem.removeprefix("report")
        found[path.name] = path.read_bytes(), (directory / f"figures{end}" / "ablation.png").stat().st_mtime_ns
    assert len(list(directory.glob("figures*"))) == len(found)
    return found


def test_a_report_does_not_take_the_place_of_one_of_other_cells(tmp_path):
    directory = digits_table(tmp_path, seeds=2)
    digits_table(tmp_path, settings=[SET])
    digits_table(tmp_path, settings=["threat.epsilon=0.1"])
    asked = [
        [], ["--set", SET], ["--set", "threat.epsilon=0.1"], ["--rows", "5"], ["--rows", "5", "--rows", "1"],
        ["--seeds", "1"], ["--seeds", "1", "--rows", "5"], ["--set", SET, "--rows", "5"],
    ]  # fmt: skip
    there = {}
    for number, words in enumerate(asked, 1):
        done = advmix("report", "digits", "--out", tmp_path, *words)
        assert done.exit_code == 0, done.output
        now = reports(directory)
        assert len(now) == number
        assert {name: now[name] for name in there} == there, "an earlier one was written over"
        (new,) = set(now) - set(there)
        assert done.stderr == f"report: {directory / new}\n"
        there = now
    assert "report.html" in there
    assert all(re.fullmatch(r"report(-[0-9a-f]{8})?\.html", name) for name in there)


def test_the_same_cells_asked_for_in_other_words_have_one_report(tmp_path):
    directory = digits_table(tmp_path, seeds=2)
    digits_table(tmp_path, settings=[SET])
    for same in (
        [[], ["--seeds", "2"], ["--seeds", "3"], ["--set", "data.seed=0"], [f"--rows={n}" for n in range(1, 8)]],
        [["--rows", "5", "--rows", "Ours"], ["--rows", "7", "--rows", "Ours, frozen λ", "--seeds", "2"]],
        [["--set", SET], ["--set", " schedule.epochs = 7 "], ["--set", "schedule.epochs=9", "--set", SET]],
    ):
        said = {advmix("report", "digits", "--out", tmp_path, *words).stderr for words in same}
        assert len(said) == 1
    assert len(reports(directory)) == 3


def test_stdout_writes_nothing_but_what_is_asked_for(tmp_path):
    directory = digits_table(tmp_path)
    before = set(directory.iterdir())
    for form in ("markdown", "latex"):
        done = advmix("report", "digits", "--out", tmp_path, "--format", form)
        assert "Attack" in done.stdout
        assert "ablation.png" not in done.stdout
        assert "ablation.svg" not in done.stdout
        assert done.stderr == "no figures are drawn: --figures DIR draws them there\n"
        assert set(directory.iterdir()) == before
        done = advmix("report", directory, "--format", form, "--figures", tmp_path / form)
        assert re.search(r"ablation\.(png|svg)", done.stdout)
        assert done.stderr == ""
        assert (tmp_path / form / "ablation.png").is_file()
        assert set(directory.iterdir()) == before


def test_edits_are_found_again_in_the_directory(tmp_path):
    directory = digits_table(tmp_path, settings=[SET])
    assert advmix("report", directory).exit_code == 0
    (page,) = directory.glob("report-*.html")
    read = shown(page)
    assert f"Edited with --set {SET}" in read
    assert f"advmix ablate digits --seeds 1 --set {SET} --out NEW_DIRECTORY" in read
    for words in ([], ["--set", SET]):
        assert advmix("report", "digits", "--out", tmp_path, *words).stderr == f"report: {page}\n"
    assert shown(page) == read
    digits_table(tmp_path)
    done = advmix("report", directory)
    assert done.exit_code == 2
    assert f"advmix report digits --out {tmp_path} --set {SET}  (7 of them)" in done.stderr
    assert f"advmix report digits --out {tmp_path}  (7 of them)" in done.stderr


def test_a_name_finds_the_edits_in_one_step(tmp_path):
    edits = [SET, "seed=4", "threat.epsilon=0.1"]
    for edit in edits:
        directory = digits_table(tmp_path, settings=[edit])
    done = advmix("report", "digits", "--out", tmp_path, "--rows", "5", "--seeds", "1")
    assert (done.exit_code, done.stdout) == (2, "")
    first, *commands = done.stderr.splitlines()
    assert first == f"error: {directory}: no cell of this table is there, but of others:"
    assert len(commands) == 3
    written = set()
    for command in commands:
        words = shlex.split(command.removesuffix("  (1 of them)"))
        assert words[:5] == ["advmix", "report", "digits", "--out", str(tmp_path)]
        assert words[5:9] == ["--rows", "5", "--seeds", "1"]
        one = advmix(*words[1:])
        assert one.exit_code == 0, one.output
        written.add(one.stderr)
    assert len(written) == 3
    done = advmix("report", "digits", "--out", tmp_path, "--set", "data.seed=9")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {directory}: no cell of this edit is there, but of others:\n")
    assert done.stderr.count("(7 of them)") == 3


def test_an_edit_that_is_not_there_is_not_another_one(tmp_path):
    directory = digits_table(tmp_path, settings=[SET])
    done = advmix("report", "digits", "--out", tmp_path, "--set", "data.seed=9")
    assert (done.exit_code, done.stderr.splitlines()) == (
        2,
        [
            f"error: {directory}: no cell of this edit is there, but of others:",
            f"  advmix report digits --out {tmp_path} --set {SET}  (7 of them)",
        ],
    )


def test_a_name_says_where_cells_of_another_table_are(tmp_path):
    directory = tmp_path / "digits"
    write_run(directory / "one", recipe_with(load_table("digits").rows[0].recipe, "title='mine'"), [])
    done = advmix("report", "digits", "--out", tmp_path)
    said = f"{directory}: no cell of this table is there, but others are: advmix report {directory}"
    assert (done.exit_code, done.stderr) == (2, f"error: {said}\n")


def test_seeds_that_are_edited_too_are_counted_from_the_first(tmp_path):
    there = in_directory(digits_table(tmp_path, seeds=2, settings=["seed=4"]))
    assert (there.table.settings, there.seeds, len(there.cells)) == (("seed=4",), 2, 14)


def test_cells_beyond_a_gap_in_the_seeds_are_not_left_out(tmp_path):
    directory = digits_table(tmp_path, seeds=3)
    for cell in cells(load_table("digits"), 3, directory)[7:14]:
        shutil.rmtree(cell.directory)
    there = in_directory(directory)
    assert (there.name, len(there.cells)) == (None, 14)


def test_cells_that_no_edit_of_a_table_makes_are_known_by_their_names(tmp_path):
    """One that all of its rows had would make them one experiment."""
    row = load_table("digits").rows[0]
    recipe = recipe_with(row.recipe, f"title='{row.name}'", 'maximizer={kind="none"}')
    write_run(tmp_path / "digits" / "one", recipe, [])
    there = in_directory(tmp_path / "digits")
    assert (there.name, [cell.name for cell in there.cells]) == (None, [f"{row.name}, seed 0"])


@pytest.mark.parametrize(
    "edit", ['evaluators=[{kind="pristine"}]', 'optimizer={kind="adam", lr=0.01}', "data.test_limit=40",
             "threat.epsilon=0.1", 'averaging={kind="ema"}', "validation.fraction=0", 'engine.precision="bf16"',
             'averaging={kind="ema", decay=0.5}', 'optimizer={kind="sgd", lr=0.05}',
             'evaluators=[{kind="pristine", name="𝛅"}]']
)  # fmt: skip
def test_any_edit_is_found_again(tmp_path, edit):
    """The command that a report names makes the very same cells."""
    directory = digits_table(tmp_path, settings=[edit])
    text = advmix("report", directory, "--format", "markdown").stdout
    assert "Table digits, 7 cells" in text
    (command,) = [line for line in text.split("\n") if line.startswith("advmix report digits ")]
    again = advmix(*shlex.split(command)[1:], "--format", "markdown")
    assert again.exit_code == 0, again.output
    assert again.stdout == text


def test_some_rows(tmp_path):
    digits_table(tmp_path)
    text = advmix("report", "digits", "--out", tmp_path, "--rows", "5", "--rows", "Ours", "--format", "markdown").stdout
    assert [line.split(" |")[0] for line in text.split("\n") if line.startswith("| Ours")][:2] == [
        "| Ours, frozen λ", "| Ours",
    ]  # fmt: skip
    assert "| Attack" not in text
    assert "advmix ablate digits --seeds 1 --rows 5 --rows Ours" in text


def test_a_cell_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    """As for who is not root; a glob leaves it out without a word."""
    directory = digits_table(tmp_path).rename(tmp_path / "mine")
    closed = sorted(directory.glob("*-seed0-*"))[1]
    access, glob = os.access, Path.glob

    def refused(path, longest):
        if path.parent == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, longest)

    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and access(path, mode))
    monkeypatch.setattr(Path, "glob", lambda *words: (path for path in glob(*words) if closed not in path.parents))
    monkeypatch.setattr(load, "read_text", refused)
    done = advmix("report", directory)
    assert done.exit_code == 1
    assert f"warning: {closed / 'recipe.toml'}: Permission denied" in done.stderr


def test_a_recipe_that_is_damaged_beside_the_cells_of_a_shipped_table_is_said(tmp_path):
    other = digits_table(tmp_path) / "other"
    other.mkdir()
    (other / "recipe.toml").write_text("x")
    done = advmix("report", other.parent)
    assert done.exit_code == 1
    assert done.stderr.count("warning: ") == 1
    assert f"warning: {other / 'recipe.toml'}:1:2: not valid TOML" in done.stderr


def test_where_no_recipe_can_be_read_there_is_no_report(tmp_path):
    place = tmp_path / "mine"
    (place / "one").mkdir(parents=True)
    (place / "one" / "recipe.toml").write_text("x")
    done = advmix("report", place)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {place}: none of its recipes can be read\n{place}/one/recipe.toml:1:2: ")


def test_a_cell_whose_recipe_has_no_title_is_called_as_its_directory(tiny, tmp_path):
    write_run(tmp_path / "mine" / "one", recipe_with(tiny(), "title=''"), [])
    assert [row.name for row in in_directory(tmp_path / "mine").table.rows] == ["one"]


def test_a_damaged_cell_is_one_message(tmp_path):
    directory = digits_table(tmp_path)
    one, two, three, *_ = sorted(directory.glob("*-seed0-*"))
    (one / "results.json").write_text("{")
    (two / "metrics.jsonl").write_text("x\n")
    (three / "failure.json").write_text("{")
    done = advmix("report", directory)
    assert done.exit_code == 1
    assert len([line for line in done.stderr.splitlines() if line.startswith("warning: ")]) == 3
    read = shown(directory / "report.html")
    assert "UNFINISHED: 6 of 7 cells" in read
    assert f"DAMAGED: {one / 'results.json'} is damaged" in read
    assert f"DAMAGED: {three / 'failure.json'} is damaged; delete it" in read


def test_a_cell_that_holds_another_recipe_is_said(tmp_path):
    directory = digits_table(tmp_path)
    one, two, *_ = sorted(directory.glob("*-seed0-*"))
    shutil.copy(one / "recipe.toml", two / "recipe.toml")
    shutil.copy(one / "results.json", two / "results.json")
    done = advmix("report", "digits", "--out", tmp_path)
    assert done.exit_code == 1
    assert f"warning: {two} holds another recipe than its row" in done.stderr


def test_stamps_of_cells_name_them(tmp_path):
    directory = digits_table(tmp_path)
    row = load_table("digits").rows[1]
    (cell,) = directory.glob("mix-then-attack-*")
    recipe = row.recipe.model_copy(update={"title": row.name})
    found = [
        Measured("last", 5, "w", (outcome("PGD20", 50),)),
        Measured("best on test", 3, "v", (outcome("PGD20", 60),)),
    ]
    write_run(cell, recipe, found, collapsed=(2,))
    advmix("report", directory)
    read = shown(directory / "report.html")
    assert "COLLAPSED: Mix-then-Attack, seed 0: the validation's accuracy under attack fell by half in epoch 2" in read
    assert "TEST-SELECTED: this epoch" in read


def first_rows(directory):
    """The names in the first column of the first table of a report, in its order."""
    text = advmix("report", directory, "--format", "markdown").stdout.replace("\\", "")
    first = text[text.index("|---") :].partition("\n\n")[0]
    return [html.unescape(line.split(" | ")[0].removeprefix("| ")) for line in first.split("\n")[1:]]


def test_a_table_of_one_s_own_is_known_by_its_rows(tiny, tmp_path):
    directory = tmp_path / "mine"
    for name, edit in (("<b>one</b>", "seed=0"), ("two", 'maximizer={kind="none"}')):
        for seed in (0, 1):
            recipe = recipe_with(tiny(edit), f"title='{name}'", f"seed={seed}")
            found = [Measured("last", 2, "w", (outcome("pristine", 100 + seed), outcome("PGD2", 50)))]
            write_run(directory / f"{recipe.digest()[:5]}-{seed}", recipe, found)
    assert advmix("report", directory).exit_code == 0
    read = shown(directory / "report.html")
    assert "Table mine, 4 cells" in read
    assert "<b>one</b>" in read
    assert f"advmix report {directory}" in read
    for order in (["two", "gone", "<b>one</b>"], ["<b>one</b>", "two"]):
        keep_order(order, directory)  # as ablate does
        assert first_rows(directory) == [name for name in order if name != "gone"]
    twice = recipe_with(tiny(), "title='two'", "threat.epsilon=0.01")
    write_run(directory / "other", twice, [])
    done = advmix("report", directory)
    assert done.exit_code == 2
    assert (
        f"two experiments are called 'two': name the table's file, with its --set and --out {tmp_path}" in done.stderr
    )


@pytest.mark.parametrize("missing", [None, "two-0"])
def test_the_rows_of_a_directory_stand_as_the_table_was_run(tiny, tmp_path, missing):
    """So the others are compared with the same first row as in the report of its file."""
    for name, edit in (("one", "seed=0"), ("two", 'maximizer={kind="none"}')):
        for seed in (0, 1):
            recipe = recipe_with(tiny(edit), f"title='{name}'", f"seed={seed}")
            found = [Measured("last", 2, "w", (outcome("pristine", 100 + seed), outcome("PGD2", 50)))]
            write_run(tmp_path / "mine" / f"{name}-{seed}", recipe, found)
    if missing:
        shutil.rmtree(tmp_path / "mine" / missing)
    keep_order(["two", "one"], tmp_path / "mine")
    there = in_directory(tmp_path / "mine")
    assert [(row.name, row.recipe.seed) for row in there.table.rows] == [("two", 0), ("one", 0)]
    assert there.seeds == 2
    assert [cell.directory.name for cell in there.cells] == [
        name for name in ("two-0", "one-0", "two-1", "one-1") if name != missing
    ]
    keep_order(["two"], tmp_path / "mine")
    assert [row.name for row in in_directory(tmp_path / "mine").table.rows] == ["two", "one"]
    (tmp_path / "mine/rows.json").write_text("{")
    assert {row.name for row in in_directory(tmp_path / "mine").table.rows} == {"one", "two"}


def test_seeds_are_as_many_as_there_are(tmp_path):
    directory = digits_table(tmp_path, seeds=3, rows=[0])
    table = load_table("digits")
    for cell in cells(table, 3, directory)[7:14]:
        shutil.rmtree(cell.directory, ignore_errors=True)
    advmix("report", "digits", "--out", tmp_path)
    assert "7 cells in" in shown(directory / "report.html")
    advmix("report", "digits", "--out", tmp_path, "--seeds", "3")
    assert "21 cells in" in shown(directory / "report.html")


@pytest.mark.parametrize("flag", [["--seeds", "2"], ["--rows", "1"], ["--set", "seed=1"], ["--out", "x"]])
def test_options_of_a_name_mean_nothing_to_a_directory(tmp_path, flag):
    directory = digits_table(tmp_path, rows=[0])
    done = advmix("report", directory, *flag)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{flag[0]} has no meaning for a directory of cells: name the table, as for ablate" in done.stderr
    assert not (directory / "report.html").exists()


def part(found, heading):
    """The last one under that heading."""
    (section,) = (section for section in found.sections if section.heading == heading)
    return section.parts[-1]


def values(grid):
    return [[cell.value for cell in row] for row in grid.rows]


def small(tiny, place, **edits):
    """There(...) of rows of the small recipe, a seed each."""
    rows = tuple(Row(name, tiny(*settings), {}) for name, settings in edits.items())
    table = Table("t", "T", rows)
    return There(table, cells(table, 1, place / "t"), place / "t", "t")


def test_a_cell_that_diverged_is_done(tiny, tmp_path):
    there = small(tiny, tmp_path, one=())
    write_run(there.cells[0].directory, there.cells[0].row.recipe, [], diverged="why", finished=False)
    found = document(there, None)
    assert found.about == f"Table t, 1 cell in {tmp_path / 't'}"
    assert found.stamps == ("DIVERGED: one, seed 0: why; nothing was measured",)
    assert [row[:3] for row in values(part(found, "Cells"))] == [["one", "0", "diverged"]]


def test_cells_whose_epoch_was_chosen_on_test_images_are_named_together(tiny, tmp_path):
    there = small(tiny, tmp_path, one=(), two=("seed=3",))
    for cell in there.cells:
        write_run(cell.directory, cell.row.recipe, [Measured("best on test", 1, "w", (outcome("PGD2", 9),))])
    assert document(there, None).stamps == (f"{TEST_SELECTED} one, seed 0; two, seed 3",)


def test_a_column_that_was_not_measured_alike_says_so(tiny, tmp_path):
    there = small(tiny, tmp_path, one=(), two=("seed=3",))
    for cell, epsilon in zip(there.cells, (8 / 255, 4 / 255), strict=True):
        other = replace(outcome("PGD2", 9), settings={"epsilon": epsilon})
        write_run(cell.directory, cell.row.recipe, [Measured("last", 1, "w", (outcome("pristine", 9), other))])
    assert values(part(document(there, None), "Results")) == [
        ["pristine", "split test, epsilon 8/255"], ["PGD2", "not the same in all rows"],
    ]  # fmt: skip


@pytest.mark.parametrize(("seeds", "on", "images"), [(1, "held-out", "validation"), (2, "test", "test")])
def test_what_the_figures_of_a_table_show_is_told(tiny, tmp_path, seeds, on, images):
    """Not what a row without an epoch is going to be validated on."""
    other = {"held-out": "test", "test": "held-out"}[on]
    rows = tuple(
        Row(name, tiny(f'validation={{on="{where}", limit=30, steps=2}}'), paper)
        for name, where, paper in (("one", on, {"PGD2": 50.0}), ("<two>", other, {}))
    )
    table = Table("t", "T", rows)
    there = There(table, cells(table, seeds, tmp_path / "t"), tmp_path / "t", "t")
    for cell in there.cells:
        lines = epoch_lines(2) if cell.row.name == "one" else []
        write_run(cell.directory, cell.row.recipe, [], lines=lines, finished=False)
    found = document(there, tmp_path / "figures")
    (section,) = (section for section in found.sections if section.heading == "Figures")
    means = "; thin lines are single seeds, the thick one is their mean" if seeds == 2 else ""
    assert {one.path.stem: one.says for one in section.parts} == {
        "ablation": "The accuracy of each row with its 95% interval; the dashed line is the first row's; diamonds are "
        "the paper's numbers.",
        "row-curves": f"Accuracy on the {images} images by epoch, as they are and under PGD; no epoch has ended: "
        f"<two>{means}.",
    }


def test_a_check_that_was_not_tried_has_not_failed(tiny, tmp_path):
    there = small(tiny, tmp_path, one=(), two=("seed=3",))
    for cell, passed in zip(there.cells, (False, True), strict=True):
        write_run(cell.directory, cell.row.recipe, [])
        checks = (Check("a", "", "", passed, {}), Check("b", "", "", True, {}), Check("c", "", "", None, {}))
        Kept(Diagnosis(checks, 1500, 10, 0.06), "w").save(cell.directory)
    assert values(part(document(there, None), "Diagnosis")) == [
        ["one, seed 0", "a", "2", "1,500"], ["two, seed 3", "none", "2", "1,500"],
    ]  # fmt: skip


def test_what_other_rows_change_is_told_without_their_seeds(tiny, tmp_path):
    there = small(tiny, tmp_path, one=(), two=("seed=3", "threat.epsilon=0.1"), three=("seed=4",))
    assert [(row[1].value, row[1].notes) for row in part(document(there, None), "Recipes").rows] == [
        ("1 field", ("threat.epsilon = 0.1",)), ("0 fields", ()),
    ]  # fmt: skip


def test_the_commands_of_a_table_can_be_pasted(tiny, tmp_path):
    there = small(tiny, tmp_path / "a b", one=())._replace(name="my table.toml", rows=("one", "O'urs, frozen λ"))
    for command, out in zip(again(there).split("\n"), ("NEW_DIRECTORY", str(tmp_path / "a b")), strict=True):
        words = ["my table.toml", "--seeds", "1", "--rows", "one", "--rows", "O'urs, frozen λ", "--out", out]
        assert shlex.split(command)[2:] == words
