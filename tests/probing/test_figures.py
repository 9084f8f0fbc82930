"""What a picture would not show by itself."""

from itertools import pairwise

import pytest
import torch
from interrupted import CPU
from small_probes import OURS, SMALL

from advmix_cli.probing.figures import _apart, _caption, _columns, loss_path, mixing_ratio
from advmix_cli.probing.perturbation import roles
from advmix_cli.probing.probe import probe


@pytest.fixture
def found(tiny, watch):
    return probe(tiny(*SMALL, OURS), None, None, CPU, watch)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 5.0, 9.0], [1.0, 5.0, 9.0]),
        ([1.0, 1.0, 1.5, 9.0], [1.0, 2.0, 3.0, 9.0]),
        ([2.0, 9.5, 9.6, 9.7], [2.0, 8.0, 9.0, 10.0]),
        ([10.0], [10.0]),
    ],
)
def test_names_at_the_ends_of_lines_do_not_touch(values, expected):
    found = _apart(values, 1.0, 10.0)
    assert found == expected
    assert all(above - below >= 1 for below, above in pairwise(found))


def test_lines_of_the_loss_are_the_paths_and_are_named_at_their_ends(found):
    (axes,) = loss_path(found).axes
    paths = {tuple(line.get_ydata()) for line in axes.lines}
    assert paths == {one.path for one in found.standings}
    assert len(axes.lines) == len(paths) == 5  # the adversary of 1 and 3 is the same
    assert {text.get_text(): text.xy[1] for text in axes.texts} == {
        {"1 attack": "1 attack, 3 attack-then-mix", "4+6 learned λ": "4+6 learned λ (this recipe's)"}.get(
            one.name, one.name
        ): one.path[-1]
        for one in found.standings
        if one.name != "3 attack-then-mix"
    }


def test_a_ratio_that_fell_is_drawn_below_the_line_over_what_it_was(found):
    _, fell, rose = mixing_ratio(found).axes[0].lines
    assert all(after < before for before, after in zip(*fell.get_data(), strict=True))
    assert all(after >= before for before, after in zip(*rose.get_data(), strict=True))
    before = found.climb.ratio_before.double().tolist()
    assert sorted([*fell.get_xdata(), *rose.get_xdata()]) == sorted(before)
    assert len(fell.get_xdata()) > 0 < len(rose.get_xdata())


def test_the_columns_of_a_pair_are_its_own(found):
    (left, right), partner = roles(found.climb), found.climb.draws.permutation
    columns = _columns(found, left, right, mixed=True)
    assert list(columns) == ["$x_i$", "$x_j$", "$δ_i$", "$δ_j$", "$x'_m$"]
    wanted = (found.x, found.x[partner], left.delta, right.delta, found.climb.found.x)
    assert all(torch.equal(images, other) for (images, _), other in zip(columns.values(), wanted, strict=True))
    index = int((found.y != found.y[partner]).any(1).nonzero()[0])
    own, other = (found.classes[int(label)] for label in found.y.argmax(1)[[index, int(partner[index])]])
    ratios = (float(values[index]) for values in (found.climb.ratio_before, found.climb.found.ratio))
    assert _caption(found, index, mixed=True) == f"{own} + {other}\nλ {next(ratios):.2f} → {next(ratios):.2f}"
