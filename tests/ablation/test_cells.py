"""A cell is a row with a seed, in a directory named after its recipe's digest."""

import re

import pytest

from advmix_cli.ablation.cells import cells, select
from advmix_cli.errors import UsageError
from advmix_cli.recipe.load import load
from advmix_cli.recipe.shipped import table_names
from advmix_cli.recipe.table import Row, Table, load_table


def table(*names, settings=()):
    rows = (Row(name, load("digits", [f"optimizer.lr=0.{i}", *settings]), {}) for i, name in enumerate(names, 2))
    return Table("t", "T", tuple(rows))


def test_every_row_has_its_first_seed_before_any_has_its_second(tmp_path):
    found = cells(table("a", "b", settings=["seed=5"]), 3, tmp_path)
    assert [(cell.row.name, cell.row.recipe.seed) for cell in found] == [
        ("a", 5), ("b", 5), ("a", 6), ("b", 6), ("a", 7), ("b", 7),
    ]  # fmt: skip


def test_no_seed_is_beyond_what_a_recipe_can_have(tmp_path):
    last = table("a", settings=[f"seed={2**31 - 1}"])
    assert len(cells(last, 1, tmp_path)) == 1
    with pytest.raises(UsageError, match=r"^--seeds 2: seed 2,147,483,648 is beyond the largest, 2,147,483,647$"):
        cells(last, 2, tmp_path)


def test_rows_that_differ_in_their_seeds_are_no_pairs(tmp_path):
    """With the next seed the first row would be what the second one was."""
    rows = table("a", "b", settings=["optimizer.lr=0.5"]).rows
    apart = Table("t", "T", (rows[0], Row("b", rows[1].recipe.model_copy(update={"seed": 1}), {})))
    assert len(cells(apart, 1, tmp_path)) == 2
    with pytest.raises(UsageError, match=r"^--seeds 2: with seed 1 row 'a' is the same experiment as row 'b'$"):
        cells(apart, 2, tmp_path)


def test_a_cell_has_its_row_s_name_and_the_paper_s_numbers(tmp_path):
    (cell,) = cells(Table("t", "T", (Row("a, b", load("digits"), {"PGD20": 50.0}),)), 1, tmp_path)
    assert (cell.row.recipe.title, cell.row.paper) == ("a, b", {"PGD20": 50.0})
    assert (cell.name, cell.listed) == ("a, b, seed 0", "a, b (seed 0)")


def test_no_two_cells_share_a_directory(tmp_path):
    for name in table_names():
        found = cells(load_table(name), 2, tmp_path)
        assert len({cell.directory for cell in found}) == 2 * len(load_table(name).rows)


def test_the_directory_follows_what_changes_the_numbers(tmp_path):
    (before,) = cells(table("a"), 1, tmp_path)
    (same,) = cells(table("a", settings=["title='x'"]), 1, tmp_path)
    (other,) = cells(table("a", settings=["schedule.epochs=3"]), 1, tmp_path)
    assert same.directory == before.directory
    assert other.directory != before.directory
    assert before.directory.name.endswith(load("digits").digest()[:12])


def test_the_paper_s_symbols_have_words(tmp_path):
    (cell,) = cells(table("δ shared, λ > κ"), 1, tmp_path)
    assert cell.directory.name.startswith("delta-shared-lambda-kappa-seed0-")


@pytest.mark.parametrize(
    "name",
    [
        "../../etc",
        "/",
        "..",
        ".",
        "a/b\\c",
        "CON:",
        "a b",
        "λ",
        "δ",
        "日本語",
        "-rf",
        "~",
        "%00",
        "é",
        "$(x)",
        "x" * 60,
        "*?",
    ],
)
def test_a_directory_s_name_is_safe_whatever_the_row_s(tmp_path, name):
    (cell,) = cells(table(name), 1, tmp_path)
    assert cell.directory.parent == tmp_path
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*-seed0-[0-9a-f]{12}", cell.directory.name)
    assert len(cell.directory.name) < 255
    cell.directory.mkdir()


def test_rows_are_chosen_by_name_or_number_in_the_table_s_order():
    whole = table("one", "two", "three", "1x")
    names = [row.name for row in select(whole, ["3", "one", "3"]).rows]
    assert names == ["one", "three"]
    assert select(whole, []) == whole


@pytest.mark.parametrize(
    ("word", "hint"), [("twoo", "; did you mean 'two'?"), ("0", ""), ("3", ""), ("-1", ""), ("", "")]
)
def test_an_unknown_row_is_refused_with_the_known_ones(word, hint):
    with pytest.raises(UsageError) as caught:
        select(table("one", "two"), [word])
    assert str(caught.value) == f"--rows: '{word}' is no row of t{hint} (rows: 1 one, 2 two)"
