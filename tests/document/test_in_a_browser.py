"""A report in Chromium: at 1280 and at 400 pixels nothing overflows the page, in the light, in the dark and on paper,
and it asks for nothing."""

import browser
import pytest
from made import HOSTILE, digits_table, epoch_lines, outcome, recipe_with, write_run
from PIL import Image
from typer.testing import CliRunner

from advmix_cli.cli import app
from advmix_cli.diagnosis.battery import Check
from advmix_cli.diagnosis.diagnose import Diagnosis
from advmix_cli.diagnosis.kept import Kept
from advmix_cli.recipe.load import load
from advmix_cli.report.results import Measured

pytestmark = pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium is installed (Debian's package: chromium)")

SIZES = "[document.scrollingElement.scrollWidth, innerWidth]"
# What sticks out of the page and lies in no box that scrolls.
OUTSIDE = """
[...document.querySelectorAll('main *')].filter(one => {
  const right = one.getBoundingClientRect().right, left = one.getBoundingClientRect().left;
  return (right > innerWidth + 1 || left < -1) && !one.closest('.box');
}).map(one => one.outerHTML.slice(0, 100))
"""
# The titles of tables that cannot be read whole in their box, however far that is scrolled.
CUT = """
[...document.querySelectorAll('.box caption span')].filter(one => {
  const box = one.closest('.box'), edge = box.getBoundingClientRect();
  return [0, box.scrollWidth].some(to => {
    box.scrollLeft = to;
    const { left, right } = one.getBoundingClientRect();
    return left < edge.left - 1 || right > edge.right + 1;
  });
}).map(one => one.textContent)
"""
# The contrast of WCAG between the colours of an element and the page's ground.
CONTRAST = """
(() => {
  const light = text => {
    const [r, g, b] = text.match(/[0-9.]+/g).map(c => c / 255).map(c => c <= 0.04 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  const against = colour => { const l = light(colour); return (Math.max(l, ground) + 0.05) / (Math.min(l, ground) + 0.05); };
  const texts = [...document.querySelectorAll('h1, h2, p, th, td, small, figcaption, code, .stamps strong')];
  const fills = [...document.querySelectorAll('figure svg g[id*="-text_"] g')];
  return [Math.min(...texts.map(one => against(getComputedStyle(one).color))),
          Math.min(...fills.map(one => against(getComputedStyle(one).fill)))];
})()
"""  # noqa: E501


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser.page(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Of a table, and of a run with a long title, a diagnosis and pictures."""
    tmp_path = tmp_path_factory.mktemp("reports")
    table = digits_table(tmp_path, seeds=2)
    recipe = recipe_with(load("digits"), f"title={'w' * 110!r}")
    run = tmp_path / ("a-directory-with-a-name-that-is-long-and-has-no-spaces-" * 3)
    measured = [Measured("best on test", 3, "w", (outcome("PGD2", 90), outcome(f"{HOSTILE}" * 3, 40)))]
    write_run(run, recipe, measured, title=HOSTILE, lines=epoch_lines(5, drop=4, average_validation_accuracy=0.5))
    curve = [{"epsilon": e, "accuracy": 0.9 - 4 * e} for e in (0.0, 0.1, 0.2)]
    checks = [
        Check("a check", "x" * 200, "w" * 100, False, {}),
        Check("a larger ε", "1 %" * 40, "n", True, {"curve": curve}),
    ]
    Kept(Diagnosis(tuple(checks), 50, 10, 0.06), "w").save(run)
    (run / "figures").mkdir()
    Image.new("RGB", (1600, 300)).save(run / "figures" / "pairs.png")
    for place in (table, run):
        assert CliRunner().invoke(app, ["report", str(place)]).exit_code == 0
    return [table / "report.html", run / "report.html"]


def test_nothing_overflows_whatever_the_width_and_the_light(page, reports):
    for report in reports:
        page.requests.clear()
        page.open(report)
        for width in (1280, 400):
            for dark in (False, True):
                page.look(width, dark=dark)
                there, inner = page.value(SIZES)
                assert inner == width
                assert there <= inner, (report.name, width)
                assert page.value(OUTSIDE) == []
                assert page.value(CUT) == []
        page.look(794, media="print", dark=True)
        there, inner = page.value(SIZES)
        assert there <= inner
        assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert [url for url in page.requests if not url.startswith("data:image/png;base64,")] == [
            report.resolve().as_uri()
        ]


def test_it_can_be_read_in_the_light_and_in_the_dark(page, reports):
    page.open(reports[0])
    grounds = []
    for dark in (False, True):
        page.look(1280, dark=dark)
        grounds.append(page.value("getComputedStyle(document.body).backgroundColor"))
        texts, figures = page.value(CONTRAST)
        assert texts >= 4.5
        assert figures >= 4.5
    assert grounds == ["rgb(255, 255, 255)", "rgb(22, 22, 24)"]


def test_scripts_that_would_slip_through_do_not_run(page, reports):
    """The page's policy is the second lock."""
    text = reports[0].read_text(encoding="utf-8").replace("<main>", "<main><script>document.title = 'ran'</script>")
    changed = reports[0].with_name("changed.html")
    changed.write_text(text.replace("<h1>", "<img src=x onerror=\"document.title = 'ran'\"><h1>"), encoding="utf-8")
    page.open(changed)
    assert page.value("document.title").startswith("The paper's ablation")
