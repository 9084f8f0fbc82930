"""Reports through pdflatex: nothing in them is an error, and nothing is wider or longer than the page."""

import re
import shutil
import subprocess

import pytest
from made import HOSTILE, digits_table, epoch_lines, outcome, recipe_with, write_run
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from advmix_cli.cli import app
from advmix_cli.diagnosis.battery import Check
from advmix_cli.diagnosis.diagnose import Diagnosis
from advmix_cli.diagnosis.kept import Kept
from advmix_cli.recipe.load import load
from advmix_cli.report.results import Measured

pytestmark = pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="no pdflatex is installed (Debian's packages: texlive-latex-base, texlive-latex-recommended)",
)

NAME = "& % $ # _ { } ~ ^ \\ λ δ ε Δ × ≤ é ß → 中 [x] * `q` -- a|b <c> └"


def hostile_table(out):
    """With rows whose names are long, a path of one piece, a diagnosis, and more columns than the page has room for."""
    place = out / f"a_table-{'of-a-long-name-' * 8}"
    columns = [f"PGD{steps} of several" for steps in range(1, 9)]
    evaluators = ", ".join(
        f'{{kind="pgd", steps={at}, step_size=0.01, name="{name}"}}' for at, name in enumerate(columns, 1)
    )
    for number, title in enumerate((NAME, f"second {NAME}", "all/in/one-word_" * 6)):
        settings = f"title='''{title}'''", f"schedule.epochs={5 + number}", f"evaluators=[{evaluators}]"
        recipe = recipe_with(load("digits"), *settings)
        found = tuple(outcome(name, 60 + number) for name in columns)
        write_run(place / f"cell-{number}", recipe, [Measured("last", 5 + number, "w", found)])
    return place


def hostile_run(out):
    recipe = recipe_with(load("digits"), f"title='''{NAME}'''")
    run = out / ("a_run-" + "with-a-long-name-" * 8)
    measured = [Measured("best on test", 3, "w", (outcome("PGD2", 90), outcome(HOSTILE, 40)))]
    write_run(run, recipe, measured, title=HOSTILE, lines=epoch_lines(5), diverged=f"it says {HOSTILE} and {'y' * 200}")
    curve = [{"epsilon": e, "accuracy": 0.9 - 4 * e} for e in (0.0, 0.1, 0.2)]
    checks = [
        Check("a check", "x" * 200, "w" * 100, False, {}), Check(NAME, "1 %" * 40, NAME, True, {"curve": curve})
    ]  # fmt: skip
    Kept(Diagnosis(tuple(checks), 50, 10, 0.06), "w").save(run)
    (run / "figures").mkdir()
    Image.new("RGB", (1600, 300)).save(run / "figures" / "pairs.png")
    return run


def compiled(directory, *names):
    """The log of a paper that has these files; it has the packages that they say they want, and no others."""
    wanted = {line for name in names for line in re.findall(r"\\usepackage.*", (directory / name).read_text())}
    assert len(wanted) == 4
    inputs = [rf"\input{{{name}}}\clearpage" for name in names]
    text = [r"\documentclass{article}", *sorted(wanted), r"\begin{document}", *inputs, r"\end{document}"]
    (directory / "paper.tex").write_text("\n".join(text))
    words = ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(words, cwd=directory, capture_output=True, timeout=120, check=False)
    log = (directory / "paper.log").read_text(errors="replace")
    assert done.returncode == 0, log[-2000:]
    return log


def test_a_paper_with_tables_and_a_run_compiles_and_nothing_sticks_out(tmp_path, monkeypatch):
    for name in ("document.table.dot_plot", "document.table.row_curves", "document.run.training_curves"):
        monkeypatch.setattr(f"advmix_cli.{name}", lambda *_: Figure((1, 1)))  # drawn at once
    places = digits_table(tmp_path, seeds=6), hostile_table(tmp_path), hostile_run(tmp_path)
    names = [f"{number}.tex" for number in range(len(places))]
    for name, place in zip(names, places, strict=True):
        done = CliRunner().invoke(app, ["report", str(place), "--format", "latex", "-o", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    log = compiled(tmp_path, *names)
    assert not re.findall(r"Overfull \\hbox.*|.*Float too large.*|.*too narrow.*|.*[Uu]ndefined.*", log)
