"""The cells of a table as a document: found by the table's name or in a directory, whole or not."""

import csv
import html
import io
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from made import Checked, digits_table, epoch_lines, outcome, recipe_with, write_run
from matplotlib.figure import Figure
from typer.testing import CliRunner

from advmix_cli.ablation.cells import cells
from advmix_cli.ablation.order import keep_order
from advmix_cli.cli import app
from advmix_cli.document.cells import in_directory
from advmix_cli.failures import Failure
from advmix_cli.files import read_text
from advmix_cli.recipe import load
from advmix_cli.recipe.table import load_table
from advmix_cli.report.results import Measured

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
        one = advmix(*words[1:])
        assert one.exit_code == 0, one.output
        written.add(one.stderr)
    assert len(written) == 3
    done = advmix("report", "digits", "--out", tmp_path, "--set", "data.seed=9")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {directory}: no cell of this edit is there, but of others:\n")
    assert done.stderr.count("(7 of them)") == 3


@pytest.mark.parametrize(
    "edit", ['evaluators=[{kind="pristine"}]', 'optimizer={kind="adam", lr=0.01}', "data.test_limit=40",
             "threat.epsilon=0.1", 'averaging={kind="ema"}', "validation.fraction=0", 'engine.precision="bf16"']
)  # fmt: skip
def test_any_edit_is_found_again(tmp_path, edit):
    """The command that a report names makes the very same cells."""
    directory = digits_table(tmp_path, settings=[edit])
    text = advmix("report", directory, "--format", "markdown").stdout
    assert "Table digits, 7 cells" in text
    (command,) = [line for line in text.split("\n") if line.startswith("advmix report ")]
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
    assert [row.name for row in there.table.rows] == ["two", "one"]
    assert [cell.directory.name for cell in there.cells] == [
        name for name in ("two-0", "one-0", "two-1", "one-1") if name != missing
    ]
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
