"""Figures: what they show are the numbers, and the same numbers give the same bytes."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from PIL import Image

from advmix_cli.evaluation.outcome import Outcome
from advmix_cli.evaluation.significance import wilson
from advmix_cli.report.ablation import Line
from advmix_cli.report.curves import row_curves, said, training_curves
from advmix_cli.report.dots import dot_plot
from advmix_cli.report.figures import GREY, GRID, INK, LINES, _laid_out, written
from advmix_cli.report.metrics import Gap
from advmix_cli.report.results import Measured, Results

HOSTILE = "$\\frac{ <b> & \x1b[31m\n%λ"


def points(axes, **wanted):
    return [xy for one in drawn(axes, **wanted) for xy in one]


def epochs(count, drop=None, **more):
    return tuple(
        {
            "epoch": n, "loss": 2 / n, "lr": 0.01 if drop and n >= drop else 0.1, "inner_loss_before": 1 / n,
            "inner_loss_after": 1.5 / n, "validation_accuracy": 0.9 - 0.5 / n,
            "validation_pgd_accuracy": 0.5 - abs(n - 4) / 20, **more,
        }
        for n in range(1, count + 1)
    )  # fmt: skip


def line(name, *correct, paper=None, selection="last"):
    runs = tuple(
        Results(
            title=name, seed=seed, digest="d", epochs=5, train_images=9, images={}, finished=True,
            measured=(Measured(selection, 5, "w", (Outcome("PGD20", 200, n, {"clean": 200 - n}, 1.0, {}, {}, "v"),)),),
        )
        for seed, n in enumerate(correct)
    )  # fmt: skip
    return Line(name, runs, tuple(Path("nowhere") for _ in runs), paper or {})


def drawn(axes, **wanted):
    """The (x, y) of what has these properties."""
    found = [one for one in axes.lines if all(getattr(one, f"get_{name}")() == value for name, value in wanted.items())]
    return [list(zip(one.get_xdata(), one.get_ydata(), strict=True)) for one in found]


def test_a_training_s_curves_are_its_numbers():
    figure = training_curves("t", epochs(8, drop=6), 10)
    loss, accuracy, rate = figure.axes
    assert drawn(loss, label="loss") == [[(n, 2 / n) for n in range(1, 9)]]
    assert drawn(accuracy, label="under PGD") == [[(n, 100 * (0.5 - abs(n - 4) / 20)) for n in range(1, 9)]]
    assert drawn(accuracy, label="pristine, averaged") == []
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "% of validation images", "learning rate"]
    for axes in figure.axes:  # the drop is marked in each
        assert [x for x, _ in points(axes, color=GREY, linestyle="--")] == [6, 6]
    assert rate.get_yscale() == "log"
    assert rate.get_xlim()[1] >= 10
    ring = drawn(accuracy, markersize=10)
    assert ring == [[(4, 50.0)]]
    (bar,) = drawn(accuracy, marker="_")
    assert [y for _, y in bar] == [pytest.approx(30.0), 50.0]
    assert "best epoch 4 with 50.0 %, last epoch 8 with 30.0 %: gap 20.0 points" in figure.get_suptitle()


def test_averaged_weights_and_collapses_have_marks_of_their_own():
    lines = (*epochs(3, average_validation_pgd_accuracy=0.25, average_validation_accuracy=0.5),)
    figure = training_curves("t", (*lines[:2], {**lines[2], "collapsed": True}))
    accuracy = figure.axes[1]
    assert drawn(accuracy, label="under PGD, averaged") == [[(n, 25.0) for n in (1, 2, 3)]]
    assert drawn(accuracy, label="collapsed") == [[(3, 100 * lines[2]["validation_pgd_accuracy"])]]
    styles = {(str(one.get_linestyle()), one.get_marker()) for one in accuracy.lines[:4]}
    assert len(styles) == 4, "they would be one line in print"


def test_without_validation_or_epochs_there_is_less():
    lines = [{"epoch": 1, "loss": 1.0, "lr": 0.1}]
    assert len(training_curves("t", tuple(lines)).axes) == 2
    assert training_curves("t", ()) is None
    assert row_curves("t", [("a", [tuple(lines)])]) is None
    assert said(Gap(5, 0.5, 5, 0.5)) == "under PGD: best epoch 5 with 50.0 %, which is the last one"


def test_the_dots_are_means_their_intervals_and_the_paper_s_points():
    lines = [line("A", 100, paper={"PGD20": 55.5}), line("B", 120)]
    (axes,) = dot_plot("T", ["PGD20"], lines).axes
    assert drawn(axes, marker="D") == [[(55.5, 0)]]
    assert points(axes, markersize=6.5) == [(50.0, 0), (60.0, 1)]
    spans = drawn(axes, linewidth=2)
    assert spans == [[(100 * end, at) for end in wilson(n, 200)] for at, n in enumerate((100, 120))]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["A", "B"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first row is at the top"


def test_the_legend_says_what_was_chosen_on_test_images_and_what_is_of_one_seed():
    both, alone = line("A", 100, 120), line("B", 100)
    chosen = replace(both.runs[0].measured[0], selection="best on test")
    both = replace(both, runs=tuple(replace(run, measured=(*run.measured, chosen)) for run in both.runs))
    words = [text.get_text() for text in dot_plot("T", ["PGD20"], [both, alone]).legends[0].get_texts()]
    assert words[0] == "mean, pooled 95% interval (of one seed: of its images alone)"
    assert "best epoch, TEST-SELECTED" in words
    assert training_curves("t", epochs(8), on="test images").axes[1].get_ylabel() == "% of test images"


def test_several_seeds_are_points_and_other_selections_have_their_own_mark():
    both = line("A", 100, 120)
    best = tuple(
        replace(run, measured=(*run.measured, replace(run.measured[0], selection="best on validation")))
        for run in both.runs
    )
    figure = dot_plot("T", ["PGD20"], [replace(both, runs=best)])
    (axes,) = figure.axes
    assert drawn(axes, markersize=3.2) == [[(50.0, -0.2), (60.0, -0.2)]]
    assert points(axes, markersize=6.5) == [(pytest.approx(55.0), 0)]
    assert points(axes, marker="^") == [(pytest.approx(55.0), 0.22)]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["mean, pooled 95% interval", "one seed", "A", "best epoch"]


@pytest.mark.parametrize("columns", [["PGD20"], ["PGD20", "AA"]])
@pytest.mark.parametrize("name", ["A", "A row of the table with a name"])
def test_the_key_stays_within_the_figure(columns, name):
    figure = dot_plot("T", columns, [line(name, 100, 120)])
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_window_extent().x1 <= figure.bbox.width
    assert (legend._ncols == 1 + len(columns)) is (name == "A")


def test_nothing_measured_is_no_figure():
    assert dot_plot("T", ["PGD20"], [line("A")]) is None
    assert dot_plot("T", ["PGD20"], [Line("A", (None,), (Path("nowhere"),), {"PGD20": 50.0})]) is None


def test_rows_are_panels_and_seeds_thin_lines():
    figure = row_curves("T", [("A", [epochs(4), epochs(3)]), ("B", []), ("C", [epochs(2)])])
    first, second = figure.axes
    assert [axes.get_title("left") for axes in figure.axes] == ["A", "C"], "what has no epoch has no panel"
    assert len(drawn(first, linewidth=0.6)) == 4
    assert [[x for x, _ in one] for one in drawn(first, linewidth=1.6)] == [[1, 2, 3]] * 2  # what both have
    assert len(drawn(second, linewidth=0.6)) == 0
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[1] > 100 * (0.9 - 0.5 / 4)


def test_every_row_s_panel_has_the_epochs_at_its_axis():
    figure = row_curves("T", [(name, [epochs(75)]) for name in "ABCDEFG"])
    figure.draw_without_rendering()
    shown = [axes for axes in figure.axes if axes.axison]
    assert len(shown) == 7
    ticks = [[text.get_text() for text in axes.get_xticklabels() if text.get_visible()] for axes in shown]
    assert [[tick for tick in one if tick in ("0", "25", "50", "75")] for one in ticks] == [["0", "25", "50", "75"]] * 7
    assert {axes.get_xlabel() for axes in shown} == {"epoch"}


def draw(directory, title="T"):
    lines = [line(title, 100, 110, paper={"PGD20": 50.0}), line("B", 120)]
    figures = {
        "curves": lambda: training_curves(title, epochs(8, drop=6)),
        "dots": lambda: dot_plot(title, ["PGD20"], lines),
        "rows": lambda: row_curves(title, [(title, [epochs(4), epochs(3)])]),
        "none": lambda: None,
    }
    return {path.name: path.read_bytes() for path in written(figures, directory)}


def test_the_same_numbers_give_the_same_bytes_without_a_date(tmp_path):
    first, second = draw(tmp_path / "a"), draw(tmp_path / "b")
    assert first == second
    assert set(first) == {f"{name}.{form}" for name in ("curves", "dots", "rows") for form in ("png", "svg")}
    for name, content in first.items():
        if name.endswith("svg"):
            assert b"dc:date" not in content
        else:
            image = Image.open(tmp_path / "a" / name)
            assert set(image.info) <= {"dpi", "Software"}
            assert image.convert("L").getextrema() == (0, 255)


def test_panels_stand_where_no_address_in_memory_decides():
    """The solver's last digits are not the same in every process, and an SVG's names are made of all of them."""
    figure = _laid_out(training_curves("T", epochs(8)))
    for axes in figure.axes:
        assert all(number == pytest.approx(round(number, 6), abs=1e-15) for number in axes.get_position().bounds)


def test_a_hostile_name_is_drawn_and_no_formula(tmp_path):
    assert len(draw(tmp_path, HOSTILE)) == 6


def test_only_colours_that_the_report_knows(tmp_path):
    """Those of Okabe and Ito, ink, two greys and paper: each has its counterpart in the dark."""
    known = {*(to_hex(colour) for colour, *_ in LINES), INK, GREY, GRID, "#ffffff"}
    for name, content in draw(tmp_path).items():
        if name.endswith("svg"):
            assert set(re.findall(r"#[0-9a-f]{6}\b(?=[;\"])", content.decode())) <= known
