"""A table file: a base recipe, rows that change leaves of it, and the paper's numbers."""

import pytest

from advmix_cli.errors import RecipeError, UsageError
from advmix_cli.recipe.load import load
from advmix_cli.recipe.table import check_file, load_any, load_table

TABLE = """\
title = "T"
base = "r.toml"
[[rows]]
name = "one"
paper = { pristine = 80.5, PGD20 = 50 }
[[rows]]
name = "two"
[rows.set]
maximizer.ratio.kappa = 0.8
maximizer.ascent = { steps = 7 }
evaluators = [{ kind = "pristine" }, { kind = "pgd", steps = 20, step_size = "2/255" }]
"""


@pytest.fixture
def faults(here):
    """faults({old: new}, "a.b=1") -> the message's lines for the table with the text replaced."""

    def find(replaced, *settings):
        text = TABLE
        for old, new in replaced.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (here / "t.toml").write_text(text, encoding="utf-8")
        with pytest.raises(RecipeError) as caught:
            load_table("t.toml", settings)
        return str(caught.value).split("\n")

    return find


@pytest.fixture
def table(here):
    (here / "t.toml").write_text(TABLE, encoding="utf-8")
    return here / "t.toml"


@pytest.mark.parametrize("key", ["modle", "schedule.epoch", "schedule"])
def test_an_empty_table_says_nothing(faults, key):
    said = f"rows.1.set.{key} is an empty table, which changes nothing"
    assert faults({"maximizer.ratio.kappa = 0.8": f"{key} = {{}}"}) == [f"t.toml:9:1: {said}"]


def test_evaluators_of_one_name_are_the_row_s_fault(faults):
    (line,) = faults({'{ kind = "pristine" },': '{ kind = "pgd", steps = 20, step_size = 0.1 },'})
    assert line == "t.toml:11:1: evaluators: two are called 'PGD20'; give one of them a name"


@pytest.mark.usefixtures("table")
def test_rows_change_leaves_and_keep_the_rest():
    loaded = load_table("t.toml")
    base = load("r.toml")
    assert (loaded.name, loaded.title, loaded.columns) == ("t", "T", ("pristine", "PGD20"))
    one, two = loaded.rows
    assert (one.name, one.recipe, one.paper) == ("one", base, {"pristine": 80.5, "PGD20": 50.0})
    assert (two.name, two.paper) == ("two", {})
    # `ascent = { steps = 7 }` changes the steps and keeps the step size.
    changed = load("r.toml", ["maximizer.ratio.kappa=0.8", "maximizer.ascent.steps=7"])
    assert two.recipe.digest() == changed.digest()


@pytest.mark.usefixtures("table")
def test_settings_edit_every_row_after_its_own():
    rows = load_table("t.toml", ["schedule.epochs=2", "maximizer.ascent.steps=3"]).rows
    assert [row.recipe.schedule.epochs for row in rows] == [2, 2]
    assert [row.recipe.maximizer.ascent.steps for row in rows] == [3, 3]


def test_what_all_rows_have_in_common_comes_before_their_own(here):
    """[set] edits the base; a row's own edits come after it, --set after both."""
    text = TABLE.replace("[[rows]]", "[set]\nschedule.epochs = 4\nmaximizer.ascent.steps = 9\n[[rows]]", 1)
    (here / "t.toml").write_text(text, encoding="utf-8")
    epochs = [row.recipe.schedule.epochs for row in load_table("t.toml").rows]
    steps = [row.recipe.maximizer.ascent.steps for row in load_table("t.toml").rows]
    assert (epochs, steps) == ([4, 4], [9, 7])
    assert [row.recipe.schedule.epochs for row in load_table("t.toml", ["schedule.epochs=2"]).rows] == [2, 2]


def test_a_fault_of_what_all_have_in_common_is_said_once(faults):
    replaced = {'base = "r.toml"\n': 'base = "r.toml"\nset = { schedule = { epoch = 4 } }\n'}
    assert faults(replaced) == ["t.toml:3:22: unknown key 'epoch' in [schedule]; did you mean 'epochs'?"]


def test_the_base_lies_beside_the_table(table, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert len(load_table("../t.toml").rows) == 2
    assert check_file(table) == "a table of 2 rows"


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("maximizer.ratio.kappa = 0.8", "maximizer.ratio.kapa = 0.8",
         ["t.toml:9:1: unknown key 'kapa' in [maximizer.ratio]; did you mean 'kappa'?"]),
        ("maximizer.ratio.kappa = 0.8", "maximizer.ratioo.kappa = 0.8",
         ["t.toml:9:1: unknown key 'ratioo' in [maximizer]; did you mean 'ratio'?"]),
        ("{ steps = 7 }", "{ step_size = 0.1, stepz = 7 }",
         ["t.toml:10:39: unknown key 'stepz' in [maximizer.ascent]; did you mean 'steps'?"]),
        ("maximizer.ratio.kappa = 0.8", "maximizer.ratio.kappa = 1.8",
         ["t.toml:9:1: maximizer.ratio.kappa = 1.8 must be less than 1"]),
        ("PGD20 = 50", "PGD10 = 50",
         ["t.toml:3:3: row 'one' gives the paper's 'PGD10', which is no evaluator; did you mean 'PGD20'? "
          "(there are: pristine, PGD20)"]),
        ("PGD20 = 50", "PGD20 = 101", ["t.toml:5:28: rows.0.paper.PGD20 = 101 must be less than or equal to 100"]),
        ('name = "two"', 'name = "one"', ["t.toml:6:3: two rows are called 'one'"]),
        ("[rows.set]\n", "[[rows]]\nname = 'three'\n[rows.set]\n",
         ["t.toml:6:3: row 'two' is the same experiment as row 'one'"]),
        ('steps = 20, step_size = "2/255"', 'steps = 20, step_size = "1/255"',
         ["t.toml:6:3: row 'two' has other evaluators than row 'one'"]),
        ('name = "two"', 'nam = "two"',
         ["t.toml:6:3: [rows.1] lacks 'name'", "t.toml:7:1: unknown key 'nam' in [rows.1]; did you mean 'name'?"]),
        ('base = "r.toml"', 'base = "q.toml"', ["t.toml:2:1: q.toml: no such file"]),
        ('base = "r.toml"', 'base = "t.toml"', ["t.toml:2:1: base = t.toml is a table, and a recipe is wanted"]),
        ('base = "r.toml"\n', "", ["t.toml:1:1: the file lacks 'base'"]),
    ],
)  # fmt: skip
def test_one_fault(faults, old, new, lines):
    assert faults({old: new}) == lines


def test_a_table_s_name_is_a_directory_s_whatever_its_file_s(here):
    for name, found in (("...toml", "table"), (".t..toml", "t")):
        (here / name).write_text(TABLE, encoding="utf-8")
        assert load_table(name).name == found


@pytest.mark.usefixtures("table")
def test_a_table_knows_what_it_was_edited_by():
    assert load_table("t.toml", ["seed=1"]).settings == ("seed=1",)
    assert load_table("t.toml").settings == ()


@pytest.mark.usefixtures("here")
def test_a_recipe_is_a_table_of_one_row_of_its_title():
    assert [row.name for row in load_any("r.toml").rows] == ["small"]
    assert [row.name for row in load_any("r.toml", ['title=""']).rows] == ["r"]


@pytest.mark.parametrize("kept", ["base", "rows"])
def test_half_a_table_is_no_recipe(here, kept):
    (here / "t.toml").write_text({"base": 'base = "r.toml"\n', "rows": "rows = []\n"}[kept], encoding="utf-8")
    with pytest.raises(RecipeError, match=r"^t\.toml: this is a table, and a recipe is wanted$"):
        load("t.toml")


def test_an_unknown_base_is_told_the_likely_one(faults):
    (line,) = faults({'base = "r.toml"': 'base = "digit"'})
    assert line.startswith("t.toml:2:1: no shipped recipe is called 'digit'; did you mean 'digits'? (shipped: cifar10-")


def test_the_faults_of_all_rows_are_shown_at_once(faults):
    assert faults({"PGD20 = 50 }": "PGD20 = 50 }\nset.seed = -1", "ratio.kappa = 0.8": "ratio.kappa = 0.1"}) == [
        "t.toml:6:1: seed = -1 must be greater than or equal to 0",
        "t.toml:10:1: maximizer.ratio.kappa = 0.1 must be greater than or equal to 0.5",
    ]


def test_a_fault_of_the_base_is_said_once_and_points_into_it(here, faults):
    text = (here / "r.toml").read_text(encoding="utf-8")
    (here / "r.toml").write_text(text.replace("epochs = 3", "epochs = 0"), encoding="utf-8")
    assert faults({}) == ["r.toml:21:1: schedule.epochs = 0 must be greater than 0"]


def test_what_another_kind_has_no_use_for_stays_from_the_base_and_the_error_says_so(here, faults):
    other = {"maximizer.ratio.kappa = 0.8": 'maximizer.kind = "attack"'}
    found = faults(other)
    ends = [line.endswith("; a row keeps what its base has: for rows of several kinds take a base without it")
            for line in found]  # fmt: skip
    assert ends == [line.startswith("r.toml:") and "has no meaning for" in line for line in found]
    assert any(ends)
    # A fault of the base itself is not the row's doing.
    text = (here / "r.toml").read_text(encoding="utf-8")
    (here / "r.toml").write_text(text.replace("epochs = 3", "epochs = 0"), encoding="utf-8")
    assert not any("a row keeps" in line for line in faults(other))


def test_a_fault_of_a_setting_is_the_flag_s(faults):
    assert faults({}, "seed=-1") == ["--set seed=-1: seed = -1 must be greater than or equal to 0"]


@pytest.mark.usefixtures("here")
def test_settings_that_make_two_rows_one_are_refused(faults):
    found = faults({"maximizer.ratio.kappa = 0.8\n": ""}, "maximizer.ascent.steps=2")
    assert len(found) == 1
    assert "row 'two' is the same experiment as row 'one'" in found[0]


def test_a_table_without_rows_is_refused(here):
    (here / "t.toml").write_text('base = "r.toml"\nrows = []\n', encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_table("t.toml")
    assert str(caught.value).startswith("t.toml:2:1: rows = an array: ")
    assert "at least 1" in str(caught.value)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "", "x" * 61])
def test_a_row_s_name_is_one_short_printable_line(here, name):
    quoted = "".join(f"\\u{ord(c):04x}" for c in name)
    (here / "t.toml").write_text(f'base = "r.toml"\n[[rows]]\nname = "{quoted}"\n', encoding="utf-8")
    with pytest.raises(RecipeError, match=r"^t\.toml:3:1: rows\.0\.name"):
        load_table("t.toml")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tabel1", "no shipped table is called 'tabel1'; did you mean 'table1'?"),
        ("nothing.toml", "nothing.toml: no such file"),
        ("a/b", "a/b: no such file"),
    ],
)
@pytest.mark.usefixtures("here")
def test_an_unknown_table(name, message):
    with pytest.raises(UsageError) as caught:
        load_table(name)
    assert str(caught.value).startswith(message)
