"""--set: KEY=VALUE with a TOML value, on top of a file."""

import pytest

from advmix_cli.errors import RecipeError
from advmix_cli.recipe.load import Document, load, parse_setting
from advmix_cli.recipe.positions import Position


@pytest.mark.parametrize(
    ("setting", "find", "value"),
    [
        ("schedule.epochs=9", lambda recipe: recipe.schedule.epochs, 9),
        (" schedule.epochs = 9 # nine", lambda recipe: recipe.schedule.epochs, 9),
        ('threat.epsilon="16/255"', lambda recipe: recipe.threat.epsilon, 16 / 255),
        ("threat.epsilon=0.5", lambda recipe: recipe.threat.epsilon, 0.5),
        ("title='a=b'", lambda recipe: recipe.title, "a=b"),
        ("schedule.drops=[0.25, 0.5]", lambda recipe: recipe.schedule.drops, (0.25, 0.5)),
        ("evaluators.1.steps=7", lambda recipe: recipe.evaluators[1].steps, 7),
        ('evaluators.0={kind="pgd", steps=3, step_size=0.1}', lambda recipe: recipe.evaluators[0].name, "PGD3"),
        ("evaluators=[]", lambda recipe: recipe.evaluators, ()),
        # Tables that the file does not have.
        ("loss.pristine_weight=0.5", lambda recipe: recipe.loss.pristine_weight, 0.5),
        ('maximizer.labels.kind="geometric"', lambda recipe: recipe.maximizer.labels.endpoints, "clean"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("here")
def test_a_value_is_toml(setting, find, value):
    assert find(load("r.toml", [setting])) == value


@pytest.mark.usefixtures("here")
def test_what_is_not_named_is_kept():
    before, after = load("r.toml").resolved(), load("r.toml", ["evaluators.1.steps=7"]).resolved()
    assert before["evaluators"][1].pop("steps") == 20
    assert after["evaluators"][1].pop("steps") == 7
    assert (before["evaluators"][1].pop("name"), after["evaluators"][1].pop("name")) == ("PGD20", "PGD7")
    assert after == before


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (["evaluators.1.steps=1"], ["pristine", "PGD1", "AA standard"]),
        (['evaluators.2.version="rand"'], ["pristine", "PGD20", "AA rand"]),
        (['evaluators.1.name="mine"', "evaluators.1.steps=1"], ["pristine", "mine", "AA standard"]),
        (['evaluators.0={kind="pgd", steps=2, step_size=0.1}'], ["PGD2", "PGD20", "AA standard"]),
        (["seed=1"], ["pristine", "PGD20", "AA standard"]),
        (['evaluators.1.split="train"'], ["pristine", "PGD20 train", "AA standard"]),
        (['evaluators.0.split="validation"'], ["pristine validation", "PGD20", "AA standard"]),
        (
            ['evaluators.0.kind="pgd"', "evaluators.0.steps=9", "evaluators.0.step_size=0.1"],
            ["PGD9", "PGD20", "AA standard"],
        ),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_name_that_says_what_an_evaluator_does_follows_it(settings, names):
    """Those of a resolved recipe are written there."""
    attack = (
        'evaluators=[{kind="pristine"}, {kind="pgd", steps=20, step_size=0.1}, {kind="autoattack", version="standard"}]'
    )
    resolved = load("r.toml", [attack]).resolved()
    assert [one["name"] for one in resolved["evaluators"]] == ["pristine", "PGD20", "AA standard"]
    edited = Document(resolved, {(): Position("here")}).edited([parse_setting(text) for text in settings]).recipe()
    assert [one.name for one in edited.evaluators] == names


@pytest.mark.usefixtures("here")
def test_names_of_before_that_had_no_split_follow_their_fields_too():
    resolved = load("r.toml", ['evaluators.1.split="train"']).resolved()
    resolved["evaluators"][1]["name"] = "PGD20"
    document = Document(resolved, {(): Position("here")})
    assert document.edited([]).recipe().evaluators[1].name == "PGD20"  # and so its digest is what it was
    names = [document.edited([parse_setting(text)]).recipe().evaluators[1].name
             for text in ("evaluators.1.steps=3", 'evaluators.1.split="test"', "seed=1")]  # fmt: skip
    assert names == ["PGD3 train", "PGD20", "PGD20 train"]


@pytest.mark.usefixtures("here")
def test_a_name_of_one_s_own_stays():
    recipe = load("r.toml", ['evaluators.1.name="strong"'])
    edited = Document(recipe.resolved(), {}).edited([parse_setting("evaluators.1.steps=50")]).recipe()
    assert (edited.evaluators[1].name, edited.evaluators[1].steps) == ("strong", 50)


@pytest.mark.usefixtures("here")
def test_later_settings_win():
    recipe = load("r.toml", ["schedule.epochs=9", 'schedule={kind="cosine", epochs=8}', "schedule.epochs=10"])
    assert (recipe.schedule.kind, recipe.schedule.epochs) == ("cosine", 10)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("schedule.epochs", "write KEY=VALUE, for example --set maximizer.ascent.steps=10"),
        ("=3", "write KEY=VALUE, for example --set maximizer.ascent.steps=10"),
        ("title=hello", "'hello' is not a TOML value; a string needs quotes: 'title=\"...\"'"),
        ("title=", "'' is not a TOML value; a string needs quotes: 'title=\"...\"'"),
        ("evaluators.2.steps=1", "evaluators has 2 items, the last is number 1"),
        ("evaluators.x=1", "evaluators is an array"),
        ("evaluators.-1.steps=1", "evaluators is an array"),
        ("title.x=1", "title is not a table"),
        ("schedule.epochs.x.y=1", "schedule.epochs is not a table"),
        # What is wrong with the value is the flag's fault, not the file's.
        ('schedule.epochs="x"', 'schedule.epochs = "x": input should be a valid integer'),
        ('optimizer.kind="sdg"', 'optimizer.kind = "sdg" is not one of sgd, adam, adamw, yogi; did you mean \'sgd\'?'),
        ("evaluators.1.steps=0", "evaluators.1.steps = 0 must be greater than 0"),
        ("optimizer.lrr=1", "unknown key 'lrr' in [optimizer]; did you mean 'lr'?"),
        ("losss.divergence='kl'", "unknown key 'losss' in the file; did you mean 'loss'?"),
        ('evaluators=[{kind="pgd", steps=3, step_size=2}]',
         'evaluators.0.step_size = 2 is above 1: pixels are in [0, 1], so 8 grey levels of 255 are written "8/255"'),
        ("optimizer={kind='sgd'}", "[optimizer] lacks 'lr'"),
    ],
)  # fmt: skip
def test_a_problem_names_the_flag(problems, setting, message):
    assert problems({}, setting) == [f"--set {setting}: {message}"]


def test_a_file_s_own_problem_keeps_its_position(problems):
    assert problems({"epochs = 3": "epochs = 0"}, "optimizer.lr=0") == [
        "--set optimizer.lr=0: optimizer.lr = 0 must be greater than 0",
        "r.toml:21:1: schedule.epochs = 0 must be greater than 0",
    ]
    lacks = "r.toml:16:2: [optimizer] lacks 'kind', one of sgd, adam, adamw, yogi"
    assert problems({'kind = "sgd"\n': ""}, "optimizer.lr=0.2") == [lacks]


def test_a_wrong_value_can_be_set_right(here):
    text = (here / "r.toml").read_text(encoding="utf-8")
    (here / "r.toml").write_text(text.replace("epochs = 3", "epochs = 0"), encoding="utf-8")
    with pytest.raises(RecipeError):
        load("r.toml")
    assert load("r.toml", ["schedule.epochs=4"]).schedule.epochs == 4


def test_a_new_kind_is_told_what_the_file_still_says(problems):
    assert problems({}, 'maximizer.kind="attack"') == [
        "r.toml:13:2: 'ratio' has no meaning for [maximizer] kind = \"attack\": it belongs to "
        'kind = "mix-then-attack" and kind = "attack-then-mix" and kind = "integrated"'
    ]


def test_a_long_setting_is_cut_and_one_of_two_lines_is_refused(problems):
    (line,) = problems({}, f"title={'x' * 200}")
    assert line.startswith(f"--set title={'x' * 91}...: '{'x' * 200}' is not a TOML value; ")
    (line,) = problems({}, "seed=1\nx=2")
    assert line.startswith("--set seed=1\\nx=2: '1\\nx=2' is not a TOML value; ")
