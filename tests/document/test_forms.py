"""What the parts of a document become in Markdown, LaTeX and HTML."""

from pathlib import Path

import pytest
from PIL import Image

from advmix_cli.document.html import to_html
from advmix_cli.document.latex import to_latex
from advmix_cli.document.markdown import to_markdown
from advmix_cli.document.parts import Document, Listing, Part, Photograph, Section, Text
from advmix_cli.document.svg import inlined
from advmix_cli.report.grid import Cell, Grid


def document(part: Part, damage=()):
    return Document("a title", "about it", (), damage, (Section("One", (part,)),))


def test_what_is_damaged_is_said_in_every_form():
    damaged = document(Text("x"), ("a_file: broken",))
    assert "\n\n- **DAMAGED**: a\\_file: broken\n\n" in to_markdown(damaged, Path())
    assert "{\\raggedright \\textbf{DAMAGED}: a\\_file: broken\\par}\n" in to_latex(damaged, Path())
    assert "<li><strong>DAMAGED</strong>: a_file: broken</li>" in to_html(damaged)


def test_blocks_of_markdown_are_an_empty_line_apart():
    assert to_markdown(document(Text("x")), Path()) == "# a title\n\nabout it\n\n## One\n\nx\n"


def test_a_listing_keeps_its_lines_and_spaces_and_sends_nothing():
    listing = document(Listing("a  <b>\x1b[31m\n\nc\n", "sh"))
    assert to_markdown(listing, Path()).endswith("\n\n```sh\na  <b>\\x1b[31m\n\nc\n```\n")
    lines = r"a\ \ \textless{}b\textgreater{}\textbackslash{}x1b[31m\\", r"\mbox{}\\", r"c\\", r"\end{flushleft}"
    assert "\n".join(lines) in to_latex(listing, Path())
    assert "<pre><code>a  &lt;b&gt;\\x1b[31m\n\nc\n</code></pre>" in to_html(listing)


def test_a_figure_in_markdown_is_a_link_whatever_its_name():
    text = to_markdown(document(Photograph(Path("a (b) #1") / "pairs.png", "x_i [1]")), Path())
    assert text.endswith("\n\n![x\\_i \\[1\\]](a%20%28b%29%20%231/pairs.png)\n")


@pytest.mark.parametrize("sign", "%#{}~^\\$&")
def test_a_figure_that_latex_cannot_name_is_left_out(sign):
    text = to_latex(document(Photograph(Path(f"a{sign}b") / "pairs.png", "x")), Path())
    assert f"\n% a{sign}b/pairs.png has a name that LaTeX cannot read\n" in text
    assert r"\includegraphics" not in text


@pytest.mark.parametrize(("rows", "pages"), [(0, 1), (35, 1), (36, 2), (70, 2), (71, 3)])
def test_a_long_table_in_latex_goes_on_and_its_captions_are_under_its_end(rows, pages):
    grid = Grid("T", ("row", "n"), tuple((Cell(f"r{number}"), Cell("1")) for number in range(rows)), ("the end",))
    parts = to_latex(document(grid), Path()).split(r"\begin{table}")[1:]
    assert [r"\caption{T (continued)}" in part for part in parts] == [False] + [True] * (pages - 1)
    assert ["the end" in part for part in parts] == [False] * (pages - 1) + [True]


def test_a_page_may_load_and_run_nothing():
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">" in to_html(document(Text("x")))


def test_figures_have_the_size_that_they_are_drawn_in(tmp_path):
    """Or a little less, or more: two inches of 200 dots are 192 pixels of CSS, and an inch of 72 points is 96."""
    Image.new("RGB", (400, 100)).save(tmp_path / "pairs.png")
    photograph = to_html(document(Photograph(tmp_path / "pairs.png", "x")))
    assert 'style="min-width: 163px; max-width: 240px"' in photograph
    drawing = inlined('<?xml version="1.0"?>\n<svg viewBox="0 0 72 36"></svg>', "one", "x")
    assert 'viewBox="0 0 72 36" style="min-width: 82px; max-width: 120px"' in drawing


def test_a_drawing_has_neither_styles_nor_names_that_others_in_the_page_have():
    style = '<style type="text/css">*{stroke-linejoin: round}</style>'
    clip = '<g clip-path="url(#p1)"><use xlink:href="#m1"/></g><path id="m1"/><clipPath id="p1"/>'
    text = inlined(f'<svg viewBox="0 0 9 9"><defs>{style}</defs>{clip}</svg>', "two-1", 'of "a" <b>')
    assert 'aria-label="of &quot;a&quot; &lt;b&gt;"' in text
    assert text.endswith(
        '<defs></defs><g clip-path="url(#two-1-p1)"><use href="#two-1-m1"/></g><path id="two-1-m1"/>'
        '<clipPath id="two-1-p1"/></svg>'
    )
