"""What a wrong recipe is told: the exact line for each problem, with its position."""

import copy
import re
import tomllib
from pathlib import Path

import pytest
import tomli_w
from full_recipes import FULL, SMALL, leaves
from hypothesis import given
from hypothesis import strategies as st

from advmix_cli.errors import RecipeError
from advmix_cli.recipe.load import Document, load, read
from advmix_cli.recipe.positions import locate

ABOVE_1 = 'is above 1: pixels are in [0, 1], so 8 grey levels of 255 are written "8/255"'


@pytest.mark.usefixtures("here")
def test_the_small_recipe_is_valid():
    assert load("r.toml").title == "small"


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        # An unknown key, with and without a likely one.
        ("lr = 0.1", "lr = 0.1\nmomentun = 0.8",
         ["r.toml:19:1: unknown key 'momentun' in [optimizer]; did you mean 'momentum'?"]),
        ('epsilon = "8/255"', 'epsilon = "8/255"\nxyz = 1',
         ["r.toml:8:1: unknown key 'xyz' in [threat] (known: norm, epsilon)"]),
        ('title = "small"', 'titel = "small"', ["r.toml:1:1: unknown key 'titel' in the file; did you mean 'title'?"]),
        # The misspelt key is also missing: in the file's order, the table's header first.
        ('step_size = "4/255"', 'setp_size = "4/255"',
         ["r.toml:10:2: [maximizer.ascent] lacks 'step_size'",
          "r.toml:12:1: unknown key 'setp_size' in [maximizer.ascent]; did you mean 'step_size'?"]),
        # A wrong type.
        ("epochs = 3", 'epochs = "3"', ['r.toml:21:1: schedule.epochs = "3": input should be a valid integer']),
        ("epochs = 3", "epochs = true", ["r.toml:21:1: schedule.epochs = true: input should be a valid integer"]),
        ("epochs = 3", "epochs = 3.5", ["r.toml:21:1: schedule.epochs = 3.5: input should be a valid integer"]),
        ("epochs = 3", "epochs = [3]", ["r.toml:21:1: schedule.epochs = an array: input should be a valid integer"]),
        ("lr = 0.1", "lr = nan", ["r.toml:18:1: optimizer.lr = nan is not a finite number"]),
        ("lr = 0.1", "lr = inf", ["r.toml:18:1: optimizer.lr = inf is not a finite number"]),
        ("lr = 0.1", "lr = true", ["r.toml:18:1: optimizer.lr = true: input should be a valid number"]),
        ("lr = 0.1", "lr = 0", ["r.toml:18:1: optimizer.lr = 0 must be greater than 0"]),
        # Pixels.
        ('epsilon = "8/255"', "epsilon = 8", [f"r.toml:7:1: threat.epsilon = 8 {ABOVE_1}"]),
        ('epsilon = "8/255"', 'epsilon = "256/255"', [f'r.toml:7:1: threat.epsilon = "256/255" {ABOVE_1}']),
        ('epsilon = "8/255"', 'epsilon = "8"',
         ['r.toml:7:1: threat.epsilon = "8" is neither a number nor a fraction such as "8/255"']),
        ('epsilon = "8/255"', 'epsilon = "8/0"', ['r.toml:7:1: threat.epsilon = "8/0" divides by zero']),
        ('epsilon = "8/255"', "epsilon = -0.1",
         ["r.toml:7:1: threat.epsilon = -0.1 must be greater than or equal to 0"]),
        ('epsilon = "8/255"', "epsilon = true", ["r.toml:7:1: threat.epsilon = true: input should be a valid number"]),
        ('step_size = "4/255"', "step_size = 4", [f"r.toml:12:1: maximizer.ascent.step_size = 4 {ABOVE_1}"]),
        ('step_size = "2/255"', "step_size = 2", [f"r.toml:27:1: evaluators.1.step_size = 2 {ABOVE_1}"]),
        ('step_size = "2/255"', "step_size = 0", ["r.toml:27:1: evaluators.1.step_size = 0 must be greater than 0"]),
        # κ in [0.5, 1).
        ("kappa = 0.65", "kappa = 0.49",
         ["r.toml:15:1: maximizer.ratio.kappa = 0.49 must be greater than or equal to 0.5"]),
        ("kappa = 0.65", "kappa = 1.0", ["r.toml:15:1: maximizer.ratio.kappa = 1.0 must be less than 1"]),
        # A field without meaning for its kind.
        ('kind = "learned"', 'kind = "frozen"',
         ["r.toml:15:1: 'kappa' has no meaning for [maximizer.ratio] kind = \"frozen\": "
          'it belongs to kind = "learned"']),
        ('kind = "sgd"', 'kind = "adam"\nmomentum = 0.9',
         ["r.toml:18:1: 'momentum' has no meaning for [optimizer] kind = \"adam\": it belongs to kind = \"sgd\""]),
        ("[optimizer]", '[maximizer.labels]\nkind = "linear"\nendpoints = "clean"\n[optimizer]',
         ["r.toml:18:1: 'endpoints' has no meaning for [maximizer.labels] kind = \"linear\": "
          'it belongs to kind = "geometric"']),
        ('source = "digits"', 'source = "digits"\nroot = "x"',
         ["r.toml:4:1: 'root' has no meaning for [data] source = \"digits\": it belongs to source = \"cifar10\" and "
          'source = "cifar100" and source = "fashion-mnist" and source = "folder"']),
        ('kind = "integrated"', 'kind = "attack"\ndelta = "shared"',
         ["r.toml:10:1: 'delta' has no meaning for [maximizer] kind = \"attack\": it belongs to kind = \"integrated\"",
          "r.toml:14:2: 'ratio' has no meaning for [maximizer] kind = \"attack\": it belongs to "
          'kind = "mix-then-attack" and kind = "attack-then-mix" and kind = "integrated"']),
        # A missing key, table or kind; an unknown kind.
        ("lr = 0.1\n", "", ["r.toml:16:2: [optimizer] lacks 'lr'"]),
        ('[data]\nsource = "digits"\n', "", ["r.toml:1:1: the file lacks 'data'"]),
        ('kind = "sgd"\n', "", ["r.toml:16:2: [optimizer] lacks 'kind', one of sgd, adam, adamw, yogi"]),
        ('source = "digits"\n', "",
         ["r.toml:2:2: [data] lacks 'source', one of digits, cifar10, cifar100, fashion-mnist, folder"]),
        ('kind = "learned"\n', "", ["r.toml:13:2: [maximizer.ratio] lacks 'kind', one of frozen, learned"]),
        ('kind = "pristine"\n', "", ["r.toml:22:3: [evaluators.0] lacks 'kind', one of pristine, pgd, autoattack"]),
        ('kind = "sgd"', 'kind = "sdg"',
         ['r.toml:17:1: optimizer.kind = "sdg" is not one of sgd, adam, adamw, yogi; did you mean \'sgd\'?']),
        ('kind = "sgd"', 'kind = "λ"', ['r.toml:17:1: optimizer.kind = "λ" is not one of sgd, adam, adamw, yogi']),
        ("[optimizer]", '[validation]\non = "tset"\n[optimizer]',
         ["r.toml:17:1: validation.on = \"tset\" is not one of held-out, test; did you mean 'test'?"]),
        # Arrays.
        ("steps = 20", "setps = 20",
         ["r.toml:24:3: [evaluators.1] lacks 'steps'",
          "r.toml:26:1: unknown key 'setps' in [evaluators.1]; did you mean 'steps'?"]),
        ("epochs = 3", "epochs = 3\ndrops = [0.5, 1.5]", ["r.toml:22:15: schedule.drops.1 = 1.5 must be less than 1"]),
        ("epochs = 3", "epochs = 3\ndrops = [0.5,\n  'x']",
         ['r.toml:23:3: schedule.drops.1 = "x": input should be a valid number']),
        ("epochs = 3", "epochs = 3\ndrops = [0.9, 0.5]", ["r.toml:19:2: schedule: drops must ascend, each once"]),
        # Dotted keys, inline tables, quoted keys.
        ("[optimizer]", '[loss]\n"divergence" = 1\n[optimizer]',
         ["r.toml:17:1: loss.divergence = 1 is not one of kl, cross-entropy"]),
        ('title = "small"', 'engine.precision = "fp16"\nengine . channels_last = 1',
         ['r.toml:1:1: engine.precision = "fp16" is not one of fp32, bf16; did you mean \'bf16\'?',
          "r.toml:2:1: engine.channels_last = 1: input should be a valid boolean"]),
        ('[data]\nsource = "digits"', 'data = { source = "digits", flip = 1, "translate" = "x" }',
         ["r.toml:2:29: data.flip = 1: input should be a valid boolean",
          'r.toml:2:39: data.translate = "x": input should be a valid integer']),
        # Columns count characters, not bytes and not UTF-16 units.
        ('[data]\nsource = "digits"', 'data = { source = "digits", "λ😀é" = 1, flip = 1 }',
         ["r.toml:2:29: unknown key 'λ😀é' in [data] (known: train_limit, test_limit, seed, source, flip, translate)",
          "r.toml:2:40: data.flip = 1: input should be a valid boolean"]),
        # What holds between fields.
        ("steps = 20", 'steps = 20\nname = "pristine"',
         ["r.toml:22:3: evaluators: two are called 'pristine'; give one of them a name"]),
        ('kind = "preact-resnet"', 'kind = "wide-resnet"\ndepth = 12',
         ["r.toml:4:2: model: depth must be 6n + 4: 10, 16, 22, 28, 34, ..."]),
        ("kappa = 0.65", "kappa = 0.65\nalpha = 300",
         ["r.toml:13:2: maximizer.ratio: Beta(300.0, 300.0) has next to no mass above kappa = 0.65: lower alpha or "
          "kappa"]),
        ("lr = 0.1", "lr = 0.1\nmomentum = 0.0\nnesterov = true",
         ["r.toml:16:2: optimizer: nesterov needs a momentum above 0"]),
        ("steps = 20", 'steps = 20\ninit = "zero"\nrestarts = 2',
         ["r.toml:24:3: evaluators.1: restarts from init = \"zero\" are all the same: use \"uniform\""]),
    ],
)  # fmt: skip
def test_one_problem(problems, old, new, lines):
    assert problems({old: new}) == lines


def test_all_problems_at_once_in_the_order_of_the_file(problems):
    found = problems({
        "kappa = 0.65": "kappa = 2",
        "epochs = 3": "epochs = 0",
        "steps = 5": "steps = -1",
        'kind = "pristine"': 'kind = "pristine"\nsurplus = 1',
        'epsilon = "8/255"': 'epsilon = "x"',
    })  # fmt: skip
    assert [line.split(": ")[0] for line in found] == [
        "r.toml:7:1", "r.toml:11:1", "r.toml:15:1", "r.toml:21:1", "r.toml:24:1",
    ]  # fmt: skip


def test_problems_in_sub_tables_of_an_array_of_tables(here):
    text = SMALL.replace('[[evaluators]]\nkind = "pristine"\n', "")
    (here / "r.toml").write_text(f'{text}[evaluators.extra]\nx = 1\n[[evaluators]]\nkind = "pgd"\n', encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load("r.toml")
    assert str(caught.value).split("\n")[:3] == [
        "r.toml:26:2: unknown key 'extra' in [evaluators.0] (known: split, limit, batch_size, epsilon, seed, kind, "
        "steps, step_size, restarts, init, loss, name)",
        "r.toml:28:3: [evaluators.1] lacks 'steps'",
        "r.toml:28:3: [evaluators.1] lacks 'step_size'",
    ]


@pytest.mark.parametrize(("betas", "wrong"), [("[0.9]", 1), ("[]", 2), ("[0.9, 0.99, 0.999]", 1)])
def test_an_array_of_the_wrong_length_is_said_to_be(problems, betas, wrong):
    found = problems({'kind = "sgd"': f'kind = "adam"\nbetas = {betas}'})
    assert 1 <= len(found) <= wrong
    assert all(line.startswith("r.toml:18:") and "betas" in line for line in found)


def test_a_missing_table_whose_name_is_another_value(problems):
    """The title says "model", and [model] is missing."""
    assert problems({'title = "small"': 'title = "model"', '[model]\nkind = "preact-resnet"\n': ""}) == [
        "r.toml:1:1: the file lacks 'model'"
    ]


def tagged(value, path=()):
    """(path, tag) of every table with a kind or source."""
    if isinstance(value, dict):
        tag = value.get("kind", value.get("source"))
        if tag:
            yield path, tag
        for key, inner in value.items():
            yield from tagged(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from tagged(inner, (*path, index))


def test_a_key_named_like_its_table_s_kind_hides_no_other_problem():
    """pydantic puts the kind into a problem's location, where it must not be taken for the key."""
    for whole, path, tag in [(raw, path, tag) for raw in FULL for path, tag in tagged(raw)]:
        wrong = copy.deepcopy(whole)
        inner = wrong
        for part in path:
            inner = inner[part]
        inner |= {tag: 0, "zzz": 0}
        where = locate(tomli_w.dumps(wrong), "f")
        with pytest.raises(RecipeError) as caught:
            Document(wrong, where).recipe()
        section = ".".join(map(str, path))
        starts = [f"{where[*path, key]}: unknown key '{key}' in [{section}]" for key in (tag, "zzz")]
        found = str(caught.value).split("\n")
        assert [line[: len(start)] for line, start in zip(found, starts, strict=True)] == starts


def test_a_key_with_a_line_break_stays_on_one_line(problems):
    (found,) = problems({'title = "small"': '"a\\nb\\u001b[31m" = 1'})
    assert found.startswith("r.toml:1:1: unknown key ")
    assert "\x1b" not in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a = 1\nb = = 2\n", "r.toml:2:5: not valid TOML: Invalid value"),
        (b"a = 1\nb 2\n", "r.toml:2:3: not valid TOML: Expected '=' after a key in a key/value pair"),
        (b"a = 1\na = 2\n", "r.toml:2:6: not valid TOML: Cannot overwrite a value"),
        ("é = 1\n".encode(), "r.toml:1:1: not valid TOML: Invalid statement"),
        (b'a = 1\nb = """x\ny', "r.toml:3:2: not valid TOML: Unterminated string"),
        (b"a = [1,\n", "r.toml:2:1: not valid TOML: Invalid value"),
        (b'a = "\xff"', "r.toml: not a TOML file: byte 5 is not UTF-8"),
    ],
)
def test_not_toml(here, text, message):
    (here / "r.toml").write_bytes(text)
    with pytest.raises(RecipeError) as caught:
        read(Path("r.toml"))
    assert str(caught.value) == message


def test_an_empty_file_lacks_all_that_has_no_default(here):
    (here / "r.toml").write_text("")
    with pytest.raises(RecipeError) as caught:
        load("r.toml")
    assert str(caught.value).split("\n") == [
        f"r.toml:1:1: the file lacks '{name}'"
        for name in ("data", "model", "threat", "maximizer", "optimizer", "schedule")
    ]


def test_crlf_line_endings_move_no_position(here):
    text = SMALL.replace("epochs = 3", "epochs = 0").replace("\n", "\r\n")
    (here / "r.toml").write_bytes(text.encode())
    with pytest.raises(RecipeError) as caught:
        load("r.toml")
    assert str(caught.value) == "r.toml:21:1: schedule.epochs = 0 must be greater than 0"


def test_a_byte_order_mark_is_no_part_of_a_file(here):
    (here / "r.toml").write_bytes(b"\xef\xbb\xbf" + SMALL.replace("title", "titel").encode())
    with pytest.raises(RecipeError, match=r"^r\.toml:1:1: unknown key 'titel'"):
        load("r.toml")


names = st.sampled_from(["kind", "steps", "name", "attack", "frozen", "pgd", "alpha", "loss", "x", "a b", "λ"])
scalars = (
    st.integers(-3, 10**20)
    | st.booleans()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    | names
    | st.dates()
    | st.times()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=4
)


@given(st.data())
def test_whatever_a_file_says_every_problem_has_a_position(data):
    """A recipe damaged anywhere is a recipe, or lines that each begin with a place in the file: never a crash."""
    raw = copy.deepcopy(data.draw(st.sampled_from(FULL)))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([path for path, _ in leaves(raw)]))
        path = path[: data.draw(st.integers(1, len(path)))]
        inner = raw
        for part in path[:-1]:
            inner = inner[part]
        if isinstance(inner, dict) and data.draw(st.booleans()):
            del inner[path[-1]]
        elif isinstance(inner, dict) and data.draw(st.booleans()):
            inner[data.draw(names)] = data.draw(values)
        else:
            inner[path[-1]] = data.draw(values)
    text = tomli_w.dumps(raw)
    lines = []
    try:
        Document(tomllib.loads(text), locate(text, "f")).recipe()
    except RecipeError as error:
        lines = str(error).split("\n")
    assert all(re.match(r"f:\d+:\d+: .", line) for line in lines)


@pytest.mark.parametrize("text", [f"[{'.'.join('z' * 80)}]\nx = 1\n", f"{'.'.join('a' * 100)} = 1\n"])
def test_tables_in_tables_without_end_are_one_message(tmp_path, text):
    path = tmp_path / "deep.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load(str(path))
    assert str(caught.value) == f"{path}: tables are nested more than 20 deep"


@pytest.mark.parametrize("field", ["schedule.epochs", "maximizer.ascent.steps", "validation.steps"])
def test_whole_numbers_end_at_a_million(field):
    assert load("digits", [f"{field}=1000000"])
    with pytest.raises(RecipeError, match="must be less than or equal to 1000000"):
        load("digits", [f"{field}=1{'0' * 400}"])
