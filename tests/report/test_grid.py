"""A grid of text in every format: nothing cut, wrapped, or taken for markup."""

import csv
import io

import pytest
from rich.console import Console

from advmix_cli.report.grid import Cell, Grid, folded, write_csv

NUMBERS = ("12345678901234567890.123456", "98765432109876543210.654321", "±0.000000000000000001")


def printed(grid, width=40):
    stream = io.StringIO()
    grid.print(Console(file=stream, width=width))
    return stream.getvalue()


def grid_of(*names, title="T"):
    return Grid(title, ("", "PGD20"), tuple((Cell(name), Cell("1.5", ("paper 1.0",))) for name in names))


def test_no_number_is_cut_or_wrapped_however_narrow_the_console():
    columns = tuple(f"column {n}" for n in range(6))
    row = (Cell("a row with a long name, of some words"), *(Cell(n, (f"paper {n}",)) for n in NUMBERS * 2))
    text = printed(Grid("T", ("", *columns), (row[:7],)))
    lines = text.split("\n")
    for number in NUMBERS:
        assert any(line.count(f" {number} ") == 2 for line in lines)
        assert any(line.count(f"paper {number}") == 2 for line in lines)
    assert any(all(column in line for column in columns) for line in lines)
    assert any("a row with a long name, of some words" in line for line in lines)
    assert "…" not in text


def test_a_terminal_breaks_names_where_that_is_enough_and_a_file_nothing():
    name = "geometric labels, perturbed ends"
    grid = Grid("T", ("row", "state"), ((Cell(name, ("x" * 49,)), Cell("to do")),))

    def lines(width, terminal):
        stream = io.StringIO()
        grid.print(Console(file=stream, width=width, force_terminal=terminal, color_system=None))
        return [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()][3:]

    whole = [f"  {name}{' ' * (52 - len(name))}to do", f"  {'x' * 49}"]
    assert lines(50, terminal=False) == lines(61, terminal=True) == whole
    assert lines(50, terminal=True) == [
        f"  {name}{' ' * (41 - len(name))}to do", f"  {'x' * 38}", f"  {'x' * 11}"
    ]  # fmt: skip
    assert lines(28, terminal=True)[1:] == [
        "  labels,", "  perturbed ends", *[f"  {'x' * 16}"] * 3, "  x"
    ]  # fmt: skip
    assert lines(27, terminal=True) == whole, "the terminal wraps it"


@pytest.mark.parametrize(
    ("width", "notes"),
    [(76, ["5 seeds ± 2.2, n 297", "Δ -13.7 (-17.5 to -10.0)"]),
     (61, ["5 seeds ± 2.2,", "n 297", "Δ -13.7", "(-17.5 to -10.0)"]),
     (47, ["5 seeds", "± 2.2,", "n 297", "Δ -13.7", "(-17.5 to", "-10.0)"])]
)  # fmt: skip
def test_notes_are_folded_between_words_where_that_makes_a_table_fit_a_terminal(width, notes):
    row = (Cell("Ours, frozen λ"), *[Cell("90.8", ("5 seeds ± 2.2, n 297", "Δ -13.7 (-17.5 to -10.0)"))] * 2)
    grid = Grid("T", ("", "PGD20", "AA cheap-2020"), (row,))
    stream = io.StringIO()
    grid.print(Console(file=stream, width=width, force_terminal=True, color_system=None))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    first = next(index for index, line in enumerate(lines) if "90.8" in line)
    assert lines[first].split() == ["Ours,", "frozen", "λ", "90.8", "90.8"]
    assert [line.split() for line in lines[first + 1 :] if line.strip()] == [2 * note.split() for note in notes]
    narrower, whole = (io.StringIO() for _ in range(2))
    grid.print(Console(file=narrower, width=45, force_terminal=True, color_system=None))
    grid.print(Console(file=whole, width=45))
    assert narrower.getvalue() == whole.getvalue(), "no number is broken: the terminal wraps it"


@pytest.mark.parametrize(
    ("width", "lines"),
    [(17, ["Δ -13.7", "(-17.5 to -10.0),", "noise"]), (16, ["Δ -13.7", "(-17.5 to", "-10.0), noise"])],
)
def test_brackets_are_broken_where_they_and_what_touches_them_are_too_wide(width, lines):
    assert folded("Δ -13.7 (-17.5 to -10.0), noise", width).split("\n") == lines


def test_notes_stand_under_their_number():
    lines = printed(grid_of("row")).split("\n")
    (at,) = (index for index, line in enumerate(lines) if line.strip().startswith("row"))
    assert lines[at].split() == ["row", "1.5"]
    assert lines[at + 1].split() == ["paper", "1.0"]


@pytest.mark.parametrize(
    "name", ["[red]x[/red]", "[/]", "[/x]", "[bold", "a]b", "\\[red]x", "back\\", "[link=x]y[/link]", ":warning:",
     "a:100:b"]
)  # fmt: skip
def test_a_name_is_shown_literally(name):
    grid = Grid(name, ("", f"col {name}"), ((Cell(f"row {name}"), Cell("1", (f"note {name}",))),), (f"caption {name}",))
    lines = [line.strip() for line in printed(grid, 200).split("\n")]
    assert name in lines
    assert f"col {name}" in lines
    assert f"row {name}" in [line.rsplit(None, 1)[0] for line in lines if line.endswith(" 1")]
    assert f"note {name}" in lines
    assert f"caption {name}" in lines


def test_markdown_has_as_many_cells_in_a_row_as_columns():
    lines = grid_of("a|b", "c").markdown().split("\n")
    assert lines == [
        "**T**",
        "",
        "|  | PGD20 |",
        "|---|---:|",
        r"| a\|b | 1.5 (paper 1.0) |",
        "| c | 1.5 (paper 1.0) |",
    ]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("50 %", r"50 \%"), ("a&b", r"a\&b"), ("a_b", r"a\_b"), ("#1", r"\#1"), ("$x$", r"\$x\$"), ("{x}", r"\{x\}"),
        ("~", r"\textasciitilde{}"), ("^", r"\textasciicircum{}"), ("a\\b", r"a\textbackslash{}b"),
        ("λ δ γ ε", r"$\lambda$ $\delta$ $\gamma$ $\varepsilon$"), ("1 ± 2", r"1 $\pm$ 2"), ("1–2", "1--2"),
    ],
)  # fmt: skip
def test_latex_escapes_what_it_would_read(text, written):
    grid = Grid("", ("", text), ((Cell(text), Cell(text, (text,))),))
    assert f" & {written} \\\\" in grid.latex()
    assert f"{written} & {written} \\\\\n & {{\\scriptsize {written}}} \\\\" in grid.latex()


def test_latex_is_a_whole_tabular():
    lines = grid_of("a").latex().split("\n")
    assert lines == [
        "% T",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r" & PGD20 \\",
        r"\midrule",
        r"a & 1.5 \\",
        r" & {\scriptsize paper 1.0} \\",
        r"\addlinespace[2pt]",
        r"\bottomrule",
        r"\end{tabular}}",
    ]


def test_columns_of_text_begin_at_the_left_and_have_their_notes_beside_them():
    row = (Cell("a"), Cell("2 fields", ("x = 1", "y = -1", "and as much again")), Cell("-1.5"))
    grid = Grid("", ("", "changes", "Δ"), (row,), ("said",), words=(1,))
    assert grid.latex().split("\n") == [
        "% ",
        r"\begin{tabularx}{\linewidth}{l>{\raggedright\arraybackslash}Xr}",
        r"\toprule",
        r" & changes & $\Delta$ \\",
        r"\midrule",
        r"a & 2 fields {\footnotesize (x = 1; y = -1; and as much again)} & $-$1.5 \\",
        r"\bottomrule",
        r"\end{tabularx}",
        r"\par\smallskip",
        r"{\footnotesize\raggedright",
        r"said\par",
        "}",
    ]
    short = Grid("", ("", "device"), ((Cell("a"), Cell("a CPU")),), words=(1,)).latex()
    assert r"\begin{tabular}{ll}" in short
    assert grid.markdown().split("\n")[1] == "|---|---|---:|"
    assert '<th scope="col" class="words">changes</th><th scope="col">Δ</th>' in grid.html()


def test_a_hyphen_before_a_number_is_a_minus_in_latex():
    grid = Grid("", ("", "x"), ((Cell("a-1"), Cell("-1.5", ("gap -0.5, p 2e-22", "-3.0 to -1.0, n 1-2"))),))
    for written in ("$-$1.5", "gap $-$0.5, p 2e-22", "$-$3.0 to $-$1.0, n 1-2", "a-1 &"):
        assert written in grid.latex()


def test_captions_are_in_markdown_and_latex():
    grid = Grid("T", ("", "x"), ((Cell("a"), Cell("1")),), ("first", "second"))
    assert grid.markdown().endswith("\n\nfirst\n\nsecond")
    assert "first" in grid.latex()
    assert "second" in grid.latex()


def test_csv_is_unrounded_and_quotes_what_needs_it():
    records = [{"row": 'a,"b"\nc', "accuracy": 1 / 3}, {"row": "d", "accuracy": 0.1 + 0.2, "paper": None}]
    read = list(csv.DictReader(io.StringIO(write_csv(records))))
    assert read[0]["row"] == 'a,"b"\nc'
    assert [float(line["accuracy"]) for line in read] == [1 / 3, 0.1 + 0.2]
    assert read[1]["paper"] == ""
