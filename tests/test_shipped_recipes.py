"""The recipes and tables that ship: all valid, documented, and with the paper's settings and numbers."""

from pathlib import Path

import pytest

from advmix_cli.plan.estimate import estimates
from advmix_cli.recipe.load import load, read
from advmix_cli.recipe.shipped import ROOT, recipe_names, table_names
from advmix_cli.recipe.table import check_file, load_table

FILES = sorted(ROOT.rglob("*.toml"))
ABLATION = (
    "Attack", "Mix-then-Attack", "Attack-then-Mix", "Ours, frozen λ, shared δ", "Ours, frozen λ", "Ours, shared δ",
    "Ours",
)  # fmt: skip
# Row by row: pristine, PGD20, PGD100, AAch (Tables 1 and 2); pristine, PGD10, AA (Table 3).
PUBLISHED = {
    "table1": (
        ("pristine", "PGD20", "PGD100", "AA cheap-2020"),
        dict(zip(ABLATION, (
            (83.3, 50.2, 49.8, 47.3), (78.5, 52.1, 51.9, 47.1), (82.5, 49.9, 49.7, 46.6), (82.3, 51.5, 51.1, 47.6),
            (80.5, 52.4, 52.2, 48.2), (81.6, 52.9, 52.7, 48.3), (79.8, 54.1, 54.0, 48.7),
        ), strict=True)),
    ),
    "table2": (
        ("pristine", "PGD20", "PGD100"),
        dict(zip(ABLATION, (
            (56.7, 25.1, 24.9), (50.3, 28.6, 28.5), (55.7, 27.3, 27.2), (55.1, 28.0, 27.9), (53.8, 29.3, 29.2),
            (53.7, 28.8, 28.6), (52.0, 29.2, 29.1),
        ), strict=True)),
    ),
    "table3": (
        ("pristine", "PGD10", "AA standard"),
        {
            "Baseline": (86.20, 56.54, 51.99),
            "Ours, Alg 4+6": (85.11, 58.31, 52.64),
            "Ours, Alg 4+5+6": (85.04, 58.34, 52.69),
        },
    ),
}  # fmt: skip


def test_there_are_twelve_recipes_and_seven_tables():
    assert len(FILES) == 19
    assert len(recipe_names()) == 12
    assert table_names() == [
        "digits", "digits-sensitivities", "table1", "table1-mini", "table1-short", "table2", "table3",
    ]  # fmt: skip
    assert {path.parent for path in FILES} == {ROOT, ROOT / "tables"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_is_valid_and_opens_with_its_command(path):
    is_table = path.parent.name == "tables"
    assert check_file(path).startswith("a table of " if is_table else "a recipe, digest ")
    header = [line for line in path.read_text(encoding="utf-8").split("\ntitle = ")[0].split("\n") if line]
    assert len(header) >= 2
    assert all(line.startswith("#") for line in header)
    command = f"advmix ablate {path.stem}" if is_table else f"advmix train {path.stem}"
    # The table `digits` is the default.
    command = f"#   {command.removesuffix(' digits') if is_table else command}"
    assert any(line == command or line.startswith(f"{command} --") for line in header)
    assert read(path).data["title"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_columns_and_numbers_are_the_paper_s(name):
    columns, numbers = PUBLISHED[name]
    table = load_table(name)
    assert table.columns == columns
    assert [row.name for row in table.rows] == list(numbers)
    for row in table.rows:
        assert row.paper == dict(zip(columns, numbers[row.name], strict=True)), row.name


def test_digits_has_the_rows_of_table_1_and_no_numbers():
    table = load_table("digits")
    assert tuple(row.name for row in table.rows) == ABLATION
    assert table.columns == ("pristine", "PGD20", "AA cheap-2020")
    assert all(row.paper == {} for row in table.rows)


@pytest.mark.parametrize("name", ["digits", "table1", "table1-mini", "table1-short", "table2"])
def test_the_seven_methods(name):
    """Kind, δ, λ and labels of each row; everything that is not named is one setting for all rows."""
    found = []
    rest = set()
    for row in load_table(name).rows:
        method = row.recipe.resolved()["maximizer"]
        ratio = method.get("ratio", {})
        found.append((method["kind"], method.get("delta"), ratio.get("kind"), method.get("labels", {}).get("kind")))
        assert ratio.get("alpha", 0.5) == 0.5
        assert ratio.get("kappa", 0.65) == 0.65
        assert ratio.get("per", "sample") == "sample"
        content = row.recipe.resolved()
        del content["title"], content["schedule"]["epochs"], content["maximizer"]
        rest.add((repr(content), repr(method["ascent"])))
    assert found == [
        ("attack", None, None, None),
        ("mix-then-attack", None, "frozen", None),
        ("attack-then-mix", None, "frozen", None),
        ("integrated", "shared", "frozen", "linear"),
        ("integrated", "independent", "frozen", "linear"),
        ("integrated", "shared", "learned", "linear"),
        ("integrated", "independent", "learned", "linear"),
    ]
    assert len(rest) == 1


@pytest.mark.parametrize(("name", "source"), [("table1", "cifar10"), ("table2", "cifar100")])
def test_settings_of_tables_1_and_2(name, source):
    for row in load_table(name).rows:
        recipe = row.recipe
        assert (recipe.data.source, recipe.data.flip, recipe.data.translate) == (source, True, 4)
        assert (recipe.model.kind, recipe.model.depth, recipe.model.width) == ("preact-resnet", 18, 64)
        assert recipe.threat.epsilon == 8 / 255
        ascent = recipe.maximizer.ascent
        assert (ascent.steps, ascent.step_size, ascent.init) == (5, 4 / 255, "uniform")
        optimizer = recipe.optimizer
        assert (optimizer.kind, optimizer.lr, optimizer.weight_decay) == ("yogi", 0.003, 5e-4)
        schedule = recipe.schedule
        assert (schedule.kind, schedule.batch_size, schedule.drops, schedule.factor) == ("steps", 128, (0.7, 0.9), 0.1)
        assert schedule.epochs == (80 if row.name == "Attack" else 100)
        for evaluator in recipe.evaluators:
            assert (evaluator.split, evaluator.limit) == ("test", None)
        for evaluator in recipe.evaluators[1:3]:
            assert (evaluator.step_size, evaluator.restarts, evaluator.init) == (2 / 255, 1, "uniform")


def test_table1_short_is_table_1_but_for_the_epochs_and_the_precision():
    edits = ["schedule.epochs=30", 'engine.precision="bf16"']
    for short, row in zip(load_table("table1-short").rows, load_table("table1", edits).rows, strict=True):
        assert (short.name, short.recipe.digest(), short.paper) == (row.name, row.recipe.digest(), {})


def test_table1_mini_keeps_the_threat_the_ascent_and_the_evaluators():
    table = load_table("table1-mini")
    assert table.columns == ("pristine", "PGD20", "PGD20 train", "PGD100", "AA cheap-2020")
    for row, whole in zip(table.rows, load_table("table1").rows, strict=True):
        mini, full = row.recipe, whole.recipe
        assert (row.name, row.paper, mini.maximizer, mini.threat) == (whole.name, {}, full.maximizer, full.threat)
        assert mini.evaluators[:2] + mini.evaluators[3:] == full.evaluators
        seen = mini.evaluators[2]
        assert seen.model_copy(update={"split": "test", "limit": None, "name": "PGD20"}) == full.evaluators[1]
        assert (seen.split, seen.limit, mini.data.train_limit, mini.data.test_limit) == ("train", 1000, 2000, 1000)


def test_robust_has_the_images_and_evaluators_of_table1_mini_and_costs_no_more():
    robust, *rows = recipes = [load("robust"), *(row.recipe for row in load_table("table1-mini").rows)]
    mine, *theirs = (estimate.cost.training for estimate in estimates(recipes, print))
    assert 0.99 * min(theirs) < mine <= min(theirs)
    assert (robust.averaging.kind, robust.schedule.final) == ("ema", 0.2)
    for row in rows:
        for part in ("seed", "data", "model", "threat", "engine", "evaluators"):
            assert getattr(robust, part) == getattr(row, part), part
        assert robust.validation.held_out == row.validation.held_out  # or it would train on other images


def test_a_sensitivity_is_one_changed_field():
    ours, *rows = load_table("digits-sensitivities").rows
    assert ours.recipe.digest() == load("digits").digest()
    for row in rows:
        changed = dict(_leaves(row.recipe.resolved()) - _leaves(ours.recipe.resolved()))
        if "maximizer.labels.endpoints" in changed:
            changed.pop("maximizer.labels.kind")
        assert len(changed) == 1, (row.name, changed)


def _leaves(content, prefix=""):
    """{("a.b", repr of the value)} of nested tables."""
    if not isinstance(content, dict):
        return {(prefix.removesuffix("."), repr(content))}
    return set().union(*(_leaves(value, f"{prefix}{key}.") for key, value in content.items()))


def test_settings_of_table_3():
    rows = load_table("table3").rows
    for row in rows:
        recipe = row.recipe
        assert (recipe.data.source, recipe.data.flip, recipe.data.translate) == ("cifar10", True, 4)
        assert (recipe.model.kind, recipe.model.depth, recipe.model.width) == ("wide-resnet", 34, 10)
        assert recipe.threat.epsilon == 8 / 255
        ascent = recipe.maximizer.ascent
        assert (ascent.steps, ascent.step_size, ascent.init) == (10, 2 / 255, "uniform")
        optimizer = recipe.optimizer
        assert (optimizer.kind, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.1, 0.9, 5e-4)
        schedule = recipe.schedule
        # 100 of 200 is the paper's, 150 is the cited code's.
        assert (schedule.kind, schedule.epochs, schedule.batch_size) == ("steps", 200, 128)
        assert (schedule.drops, schedule.factor) == ((0.5, 0.75), 0.1)
        pgd, autoattack = recipe.evaluators[1:]
        assert (pgd.steps, pgd.step_size, pgd.restarts, autoattack.version) == (10, 2 / 255, 1, "standard")
    baseline, learned, geometric = (row.recipe.maximizer for row in rows)
    assert baseline.kind == "attack"
    for method in (learned, geometric):
        assert (method.kind, method.delta, method.ratio.kind) == ("integrated", "independent", "learned")
        assert (method.ratio.alpha, method.ratio.kappa) == (0.5, 0.65)
    assert learned.labels.kind == "linear"
    assert (geometric.labels.kind, geometric.labels.endpoints) == ("geometric", "clean")


@pytest.mark.parametrize(
    ("table", "row", "recipe"),
    [
        ("digits", "Attack", "digits-attack"),
        ("digits", "Ours", "digits"),
        ("table1", "Attack", "cifar10-attack"),
        ("table1", "Ours", "cifar10-ours"),
        ("table1-mini", "Attack", "cifar10-mini-attack"),
        ("table2", "Attack", "cifar100-attack"),
        ("table2", "Ours", "cifar100-ours"),
        ("table3", "Baseline", "cifar10-wrn-attack"),
        ("table3", "Ours, Alg 4+6", "cifar10-wrn-ours"),
    ],
)
def test_a_recipe_is_the_row_that_its_header_names(table, row, recipe):
    (found,) = (entry.recipe for entry in load_table(table).rows if entry.name == row)
    assert found.digest() == load(recipe).digest()
    assert f'"{row}"' in Path(ROOT / f"{recipe}.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "base", "settings"),
    [
        ("digits-trades", "digits-attack", ["loss.trades_beta=6.0", 'maximizer.ascent.batch_norm="eval"']),
        ("digits-manifold-mixup", "digits", ["maximizer.mix_after=1"]),
    ],
)
def test_a_recipe_is_the_other_one_with_what_its_header_names(name, base, settings):
    assert load(name).digest() == load(base, settings).digest()
    assert f"`{base}`" in Path(ROOT / f"{name}.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", recipe_names())
def test_no_shipped_recipe_chooses_on_test_images(name):
    assert load(name).validation.on == "held-out"


def test_the_recipe_in_the_readme_is_the_shipped_one_and_its_table_loads(tmp_path):
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    recipe, table = (part.split("```")[0] for part in readme.split("```toml\n")[1:])
    (tmp_path / "readme.toml").write_text(recipe, encoding="utf-8")
    assert load(str(tmp_path / "readme.toml")) == load("digits")
    (tmp_path / "steps.toml").write_text(table.replace("# paper", "paper"), encoding="utf-8")
    rows = load_table(str(tmp_path / "steps.toml")).rows
    assert [(row.recipe.schedule.epochs, row.recipe.maximizer.ascent.steps) for row in rows] == [(10, 5), (10, 10)]
