"""A run directory as a document: what stands in it, what of it cannot be read, and that nothing in it is obeyed."""

import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from made import HOSTILE, MACHINE, Checked, epoch_lines, outcome, recipe_with, write_run
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from advmix_cli.cli import app
from advmix_cli.diagnosis.battery import Check
from advmix_cli.diagnosis.diagnose import Diagnosis
from advmix_cli.diagnosis.kept import Kept
from advmix_cli.document.parts import Text
from advmix_cli.document.run import again, document, environment, look
from advmix_cli.errors import RunDirectoryError
from advmix_cli.evaluation import verdict_files
from advmix_cli.failures import Failure
from advmix_cli.report.grid import Cell, Grid
from advmix_cli.report.results import Measured, Results
from advmix_cli.report.tables import interval


def advmix(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def report(directory, *words):
    """The text of report.html, checked; what was said; the exit code."""
    done = advmix("report", directory, *words)
    assert done.stdout == ""
    text = (directory / "report.html").read_text(encoding="utf-8")
    Checked(text)
    return text, done.stderr, done.exit_code


def shown(text):
    """What a reader sees."""
    return " ".join(Checked(text).text.split())


@pytest.fixture
def whole(tiny, tmp_path):
    """A run with everything."""
    recipe = recipe_with(tiny(), 'title="a run"', "schedule.epochs=8", 'averaging={kind="ema"}')
    measured = [
        Measured("last", 8, "w1", (outcome("pristine", 150), outcome("PGD2", 90))),
        Measured("best on test", 3, "w2", (outcome("pristine", 140), outcome("PGD2", 100))),
    ]
    lines = epoch_lines(8, drop=6, average_validation_accuracy=0.5, average_validation_pgd_accuracy=0.25)
    lines[2]["collapsed"] = True
    write_run(tmp_path / "run", recipe, measured, lines=lines, collapsed=(3,))
    checks = [
        Check("more steps", "50, 50 %", "no rise", True, {}), Check("noise", "1, 2 %", "no", False, {}),
        Check("a larger ε", "9, 5 %", "no", True, {"curve": [{"epsilon": e, "accuracy": 0.9 - e} for e in (0.0, 0.1)]}),
    ]  # fmt: skip
    Kept(Diagnosis(tuple(checks), 50, 10, 0.06), "w1").save(tmp_path / "run")
    (tmp_path / "run" / "figures").mkdir()
    Image.new("RGB", (400, 100)).save(tmp_path / "run" / "figures" / "pairs.png")
    return tmp_path / "run"


@pytest.fixture
def sketched(monkeypatch):
    """Curves that are drawn at once: where they are not what is looked at."""
    monkeypatch.setattr("advmix_cli.document.run.training_curves", lambda *_: Figure((1, 1)))
    monkeypatch.setattr("advmix_cli.diagnosis.figure._curve", lambda *_: Figure((1, 1)))


def test_everything_stands_in_one_file(whole):
    text, said, code = report(whole)
    assert (said, code) == (f"report: {whole / 'report.html'}\n", 0)
    read = shown(text)
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    assert headings == ["Results", "Training", "Diagnosis", "One batch", "Recipe", "Environment", "Again"]
    for stamp in (
        "COLLAPSED: the val",
        "TEST-SELECTED: ",
        "DIAGNOSIS: its accuracies under attack cannot be believed: noise",
    ):
        assert stamp in read
    for fact in (
        "75.0",
        "45.0",
        interval(outcome("PGD2", 90)),
        'title = "a run"',
        "device a CPU",
        "What measured it torch 2.14",
        "seed 0, 8 epochs of 90 images",
        "train a1",
        "12.5 s",
        "more steps",
        "PASS",
    ):
        assert fact in read, fact
    assert "UNFINISHED" not in read
    assert "robust-overfitting" not in read  # its verdicts are not there
    assert text.count("<svg") == 2
    assert text.count("<img") == 1
    assert f"advmix train {whole / 'recipe.toml'} --out NEW_DIRECTORY advmix report {whole}" in read
    names = {path.name for path in (whole / "figures").iterdir()}
    assert names == {
        f"{name}.{form}" for name in ("training-curves", "accuracy-against-epsilon") for form in ("png", "svg")
    } | {"pairs.png"}


@pytest.mark.usefixtures("sketched")
def test_it_is_semantic_and_asks_for_nothing(whole):
    text, *_ = report(whole)
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert len(re.findall("<h1>", text)) == 1
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text)
    for figure in re.findall(r"<svg[^>]*>|<img[^>]*>", text):
        assert re.search(r'(aria-label|alt)="[^"]{20,}"', figure)
    for table in re.findall(r"<table>.*?</table>", text, re.DOTALL):
        assert "<caption>" in table
        heads = len(re.findall('<th scope="col"', table))
        for row in re.findall("<tr>(.*?)</tr>", table)[1:]:
            assert len(re.findall("<td", row)) == heads - 1
            assert row.startswith('<th scope="row">')


def test_figures_are_coloured_by_the_page(whole):
    """So that they can be read in the dark."""
    text, *_ = report(whole)
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert not re.findall(r"#[0-9a-f]{6}\b(?=[;\"])", svg)
        assert "var(--paper)" in svg
        assert "currentColor" in svg
        used = set(re.findall(r"var\(--(\w+)\)", svg))
        for scheme in re.findall(r":root \{(.*?)\}", text):
            assert used <= set(re.findall(r"--(\w+):", scheme))
    assert len(re.findall(r":root \{", text)) == 3  # light, dark, paper


def test_the_same_files_give_the_same_bytes(whole):
    assert report(whole)[0] == report(whole)[0]


@pytest.mark.parametrize("form", ["html", "markdown", "latex"])
@pytest.mark.usefixtures("sketched")
def test_a_hostile_title_is_shown_and_not_obeyed(tiny, tmp_path, form):
    directory = tmp_path / "a <b> & $x$ `|` #"
    title = f"{HOSTILE}\x1b[31m\n\\input{{x}}"
    measured = [Measured("last", 2, "w", (outcome("PGD2", 90),))]
    write_run(directory, tiny(), measured, title=title, diverged="<img src=x onerror=alert(1)> $\\end{document}")
    if form == "html":
        text, *_ = report(directory)
        assert "<script" not in text
        assert "\x1b" not in text
        assert HOSTILE.replace("  ", " ") in shown(text)
    else:
        done = advmix("report", directory, "--format", form, "--figures", tmp_path / "figures")
        assert (done.exit_code, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        assert "<img" not in done.stdout
        if form == "latex":
            assert_latex(done.stdout)


def assert_latex(text):
    """Its groups and environments close, and what is special stands only where it is ours."""
    told = "\n".join(re.sub(r"(?<!\\)%.*", "", line) for line in text.split("\n"))
    told = re.sub(r"\\detokenize\{[^{}]*\}", "", told)
    inner = re.sub(r"\\[\\%&_#${}]", " ", told)
    assert inner.count("{") == inner.count("}")
    assert inner.count("$") % 2 == 0
    assert not set(inner) & set("#~^\x1b")
    assert all(c.isascii() or ord(c) <= 0x17F for c in inner)
    opened = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", told):
        if what == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    commands = set(re.findall(r"\\([a-zA-Z]+)", told))
    assert not commands & {"input", "include", "write", "def", "catcode", "immediate", "document"}
    for table in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", told, re.DOTALL):
        for row in re.findall(r"(.*)\\\\$", table[1], re.MULTILINE):
            if "multicolumn" not in row:
                assert len(re.findall(r"(?<!\\)&", row)) == len(table[0]) - 1, row


@pytest.mark.usefixtures("sketched")
def test_markdown_and_latex_name_their_figures_from_where_they_lie(whole, tmp_path):
    (tmp_path / "paper").mkdir()
    done = advmix("report", whole, "--format", "latex", "-o", tmp_path / "paper" / "run.tex")
    assert (done.exit_code, done.stdout) == (0, "")
    text = (tmp_path / "paper" / "run.tex").read_text()
    assert_latex(text)
    assert r"\detokenize{../run/figures/training-curves.png}" in text
    assert text.count(r"\includegraphics") == 3
    assert r"%   \usepackage{booktabs}" in text
    markdown = advmix("report", whole, "--format", "markdown", "-o", whole / "README.md")
    assert markdown.exit_code == 0
    text = (whole / "README.md").read_text()
    assert "](figures/training-curves.svg)" in text
    assert "](figures/pairs.png)" in text
    assert '```toml\ntitle = "a run"' in text


@pytest.mark.usefixtures("sketched")
def test_a_fence_is_longer_than_any_within(tiny, tmp_path):
    write_run(tmp_path / "run", recipe_with(tiny(), 'title="````"'), [])
    text = advmix("report", tmp_path / "run", "--format", "markdown").stdout
    assert '`````toml\ntitle = "````"' in text


@pytest.mark.usefixtures("sketched")
def test_an_unfinished_run_says_so(tiny, tmp_path):
    write_run(tmp_path / "run", tiny("schedule.epochs=9"), [], lines=epoch_lines(4), finished=False)
    Failure(2, 1, "no memory").save(tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 5, "lo')
    text, said, code = report(tmp_path / "run")
    assert code == 0
    assert "warning" not in said
    assert "UNFINISHED: 4 of 9 epochs are trained, and not all is measured" in shown(text)
    assert shown(text).count("FAILED: no memory (exit code 1, 2 attempts)") == 1
    assert "--resume # goes on with this one" in shown(text)
    Failure(2, -9, "killed by SIGKILL").save(tmp_path / "run")
    assert "FAILED: killed by SIGKILL (exit code -9, 2 attempts)" in shown(report(tmp_path / "run")[0])


def test_a_run_that_has_only_begun_has_a_report(tiny, tmp_path):
    write_run(tmp_path / "run", tiny(), [], lines=[], finished=False)
    text, _, code = report(tmp_path / "run")
    assert code == 0
    assert "UNFINISHED: 0 of 2 epochs" in shown(text)
    assert "No epoch has ended yet." in shown(text)
    assert "<svg" not in text


@pytest.mark.parametrize("on", ["held-out", "test"])
@pytest.mark.usefixtures("sketched")
def test_a_gap_is_of_the_images_that_epochs_were_validated_on(tiny, tmp_path, on):
    write_run(tmp_path / "run", tiny(f'validation={{on="{on}", limit=30, steps=2}}'), [])
    text, _, code = report(tmp_path / "run")
    assert code == 0
    assert ("the gap, which is of the test images, on which epochs were validated" in shown(text)) == (on == "test")
    assert ("the gap, which is of the validation images" in shown(text)) == (on == "held-out")


def damage(path, how):
    content = path.read_bytes()
    path.write_bytes(how(content))


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("results.json", lambda c: c.replace(b'"epoch": 8', b'"epoch": 7'), "results.json is damaged or was changed"),
        ("results.json", lambda _: b"[" * 100_000, "results.json is damaged or was changed"),
        ("metrics.jsonl", lambda c: c.replace(b'"epoch": 4', b'"epoch": 5'), "metrics.jsonl:4: damaged: this is not"),
        ("metrics.jsonl", lambda _: b'{"epoch": 1}\n', "metrics.jsonl:1: damaged: this is not"),
        ("recipe.toml", lambda c: c + b"\nx = 1\n", "recipe.toml"),
        ("recipe.toml", lambda _: b"\xff", "recipe.toml: not a TOML file: byte 0 is not UTF-8"),
        ("diagnosis.json", lambda c: c[:-9], "diagnosis.json is damaged or was changed"),
        ("diagnosis.json", lambda c: c.replace(b'"n": 50', b'"n": 51'), "diagnosis.json is damaged or was changed"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("sketched")
def test_a_damaged_file_is_one_message_and_the_rest_is_there(whole, name, how, message):
    damage(whole / name, how)
    text, said, code = report(whole)
    assert code == 1
    warnings = [line for line in said.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert message in warnings[0]
    assert said.endswith("error: not all of its files can be read; the report says which, and has the rest\n")
    assert f"DAMAGED: {warnings[0].removeprefix('warning: ')}" in shown(text)
    assert text.count("<h2") >= 5


@pytest.mark.usefixtures("sketched")
def test_damaged_verdicts_are_said_and_missing_ones_are_none(whole):
    assert report(whole)[2] == 0
    entry = Results.load(whole).measured[0]
    path = verdict_files.place(whole / "verdicts", entry.outcomes[0].name, entry.epoch, entry.weights)
    path.parent.mkdir()
    path.write_bytes(b"\0" * 100)
    text, said, code = report(whole)
    assert code == 1
    assert f"DAMAGED: {path}: not a whole file of verdicts" in shown(text)
    assert said.count("warning: ") == 1


@pytest.mark.usefixtures("sketched")
def test_verdicts_that_cannot_be_read_are_said_once(whole, monkeypatch):
    true = Path.exists

    def exists(self):
        if self.parent == whole / "verdicts":
            raise PermissionError(13, "Permission denied", str(self))
        return true(self)

    monkeypatch.setattr(Path, "exists", exists)
    _, said, code = report(whole)
    assert code == 1
    (line,) = (line for line in said.splitlines() if line.startswith("warning: "))
    assert line == f"warning: {whole / 'verdicts'} cannot be read: Permission denied"


@pytest.mark.usefixtures("sketched")
def test_a_recipe_that_is_not_the_results_own_is_said(whole):
    recipe = (whole / "recipe.toml").read_text()
    (whole / "recipe.toml").write_text(recipe.replace("epochs = 8", "epochs = 9"))
    text, said, code = report(whole)
    assert code == 1
    assert "recipe.toml is not the recipe that results.json is of" in said
    assert "There are no results yet." in shown(text)


@pytest.mark.usefixtures("sketched")
def test_a_picture_that_is_none_is_left_out(whole):
    (whole / "figures" / "pairs.png").write_bytes(b"<svg onload=alert(1)>")
    text, _, code = report(whole)
    assert code == 0
    assert "<img" not in text


@pytest.mark.usefixtures("sketched")
def test_a_diagnosis_of_other_weights_is_said(whole):
    kept = Kept.load(whole)
    Kept(kept.diagnosis, "others").save(whole)
    assert "DIAGNOSIS: it is of other weights than those that were measured" in shown(report(whole)[0])


def test_a_diagnosis_survives_its_file(whole, tmp_path):
    kept = Kept.load(whole)
    kept.save(tmp_path / "again")
    assert Kept.load(tmp_path / "again") == kept
    assert Kept.load(tmp_path) is None
    (tmp_path / "diagnosis.json").mkdir()
    with pytest.raises(RunDirectoryError):
        Kept.load(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "no shipped table is called 'nothing'"),
        (["empty"], "empty holds neither a run nor the cells of a table"),
        (["digits"], "runs/digits: no cell of this table is there"),
        (["run", "--seeds", "2"], "--seeds has no meaning for a run directory: it is of a table"),
        (["run", "--set", "seed=1"], "--set has no meaning for a run directory"),
        (["run", "--rows", "1"], "--rows has no meaning for a run directory"),
        (["run", "--out", "x"], "--out has no meaning for a run directory"),
        (["run", "-o", "run"], "--output run: a directory; name a file in it"),
        (["run", "-o", "run/recipe.toml"], "--output run/recipe.toml: a report as html ends in .html or .htm"),
        (["run", "-o", "a.html", "--format", "latex"], "--output a.html: a report as latex ends in .tex"),
        (["run", "-o", "-", "--format", "markdown"], "--output -: a report as markdown ends in .md or .markdown"),
        (["run", "--figures", "run/recipe.toml"], "--figures run/recipe.toml: not a directory"),
    ],
)
def test_bad_input_is_exit_2_and_writes_nothing(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text("x")
    (tmp_path / "empty").mkdir()
    done = advmix("report", *words)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert done.stderr.startswith(f"error: {message}")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "recipe.toml", "run"]


@pytest.mark.usefixtures("sketched")
def test_json_in_metrics_is_not_trusted(tiny, tmp_path):
    lines = epoch_lines(2)
    lines[1]["validation_pgd_accuracy"] = "<b>"
    write_run(tmp_path / "run", tiny(), [], lines=lines)
    _, said, code = report(tmp_path / "run")
    assert code == 1
    assert "metrics.jsonl:2: damaged" in said
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])["epoch"] == 1


def test_what_has_to_be_known_of_a_run_is_stamped_on_it(tiny, tmp_path):
    lines = epoch_lines(2)
    lines[1]["collapsed"] = True
    known = {"lines": lines, "machines": (MACHINE, MACHINE), "finished": False}
    both = (
        "COLLAPSED: the validation's accuracy under attack fell by half in epoch 2",
        "MACHINES: trained on 2 of them, so not bit for bit what one would give",
    )
    write_run(tmp_path / "run", tiny(), [], **known)
    unfinished = "UNFINISHED: 2 of 2 epochs are trained, and not all is measured"
    assert document(look(tmp_path / "run"), None).stamps == (unfinished, *both)
    write_run(tmp_path / "run", tiny(), [], **known, diverged="why")
    assert document(look(tmp_path / "run"), None).stamps == ("DIVERGED: why; nothing was measured", *both)


def test_a_check_that_was_not_tried_stamps_nothing_and_neither_does_a_diagnosis_before_any_measuring(tiny, tmp_path):
    write_run(tmp_path / "run", tiny(), [Measured("last", 5, "w")])
    checks = Check("tried", "", "", True, {}), Check("not tried", "", "", None, {})
    Kept(Diagnosis(checks, 50, 10, 0.06), "w").save(tmp_path / "run")
    found = document(look(tmp_path / "run"), None)
    assert (found.stamps, found.sections[0].parts) == ((), (Text("Nothing was measured yet."),))
    write_run(tmp_path / "run", tiny(), [])
    assert document(look(tmp_path / "run"), None).stamps == ()


@pytest.mark.parametrize("drop", [None, 3])
@pytest.mark.usefixtures("sketched")
def test_a_fall_of_the_learning_rate_is_told_where_there_is_one(tiny, tmp_path, drop):
    write_run(tmp_path / "run", tiny(), [], lines=epoch_lines(4, drop=drop))
    (drawing,) = document(look(tmp_path / "run"), tmp_path / "figures").sections[1].parts
    assert ("; dotted: where the learning rate falls." in drawing.says) == (drop is not None)


def test_a_picture_that_no_page_has_room_for_is_left_out(tiny, tmp_path):
    write_run(tmp_path / "run", tiny(), [])
    path = tmp_path / "run" / "figures" / "pairs.png"
    path.parent.mkdir()
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    for size, headings in ((8 * 2**20, ["One batch"]), (8 * 2**20 + 1, [])):
        os.truncate(path, size)
        found = document(look(tmp_path / "run"), None)
        assert [one.heading for one in found.sections if one.heading == "One batch"] == headings


def test_machines_that_are_alike_are_one_whenever_they_came(tiny, tmp_path):
    write_run(tmp_path / "one", tiny(), [], machines=(MACHINE, MACHINE | {"from_epoch": 3}))
    write_run(tmp_path / "two", tiny(), [], machines=(MACHINE | {"device": "a GPU"},), seconds=2.0)
    one, two = (Results.load(tmp_path / name) for name in ("one", "two"))
    words = [("torch", "2.14"), ("device", "a CPU"), ("engine", "eager")]
    rows = tuple(tuple(map(Cell, row)) for row in words)
    trained, images = environment([one])
    assert trained == Grid("What trained it", ("", ""), rows, words=(1,))
    assert images.captions == ("12.5 s, with their validation",)
    trained, images = environment([one, two])
    assert trained.columns == ("", "machine 1", "machine 2")
    assert [[cell.value for cell in row] for row in trained.rows[:2]] == [
        ["torch", "2.14", "2.14"], ["device", "a CPU", "a GPU"],
    ]  # fmt: skip
    assert [[cell.value for cell in row] for row in images.rows] == [["train", "a1"], ["test", "b2"]]
    assert images.captions == ("14.5 s of 2 trainings, with their validation",)
    assert environment([one, replace(two, seconds=0.0)])[1].captions == ("12.5 s of 1 training, with their validation",)


def test_the_commands_of_a_run_can_be_pasted_and_one_that_diverged_does_not_go_on(tiny, tmp_path):
    run = tmp_path / "a run; $x"
    write_run(run, tiny(), [], diverged="why", finished=False)
    assert again(look(run)).split("\n") == [
        f"# digest of the recipe: {tiny().digest()}",
        f"advmix train {shlex.quote(str(run / 'recipe.toml'))} --out NEW_DIRECTORY",
        f"advmix report {shlex.quote(str(run))}",
    ]


@pytest.mark.parametrize("left", ["recipe.toml", "results.json", "metrics.jsonl"])
def test_of_any_file_of_a_run_there_is_a_report(tiny, tmp_path, left):
    write_run(tmp_path / "run", tiny(), [])
    for name in {"recipe.toml", "results.json", "metrics.jsonl"} - {left}:
        (tmp_path / "run" / name).unlink()
    done = advmix("report", tmp_path / "run", "--format", "markdown")
    assert done.exit_code == (0 if left == "recipe.toml" else 1)
    assert f"\nRun directory {tmp_path / 'run'}".replace("_", "\\_") in done.stdout
    assert done.stdout.endswith("\n```\n")


@pytest.mark.usefixtures("sketched")
def test_a_file_s_ending_may_be_in_capitals(tiny, tmp_path):
    write_run(tmp_path / "run", tiny(), [])
    assert advmix("report", tmp_path / "run", "-o", tmp_path / "RUN.HTML").exit_code == 0
    assert (tmp_path / "RUN.HTML").read_text().startswith("<!DOCTYPE html>")
