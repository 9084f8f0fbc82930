"""The models of a recipe: immutable, strict, and the same after a round trip through TOML."""

import math
import tomllib

import pytest
import tomli_w
from full_recipes import ASCENT, DATA, EVALUATORS, FROZEN, FULL, MAXIMIZERS, MODELS, OPTIMIZERS, SCHEDULES, leaves, put
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from advmix_cli.recipe import schema
from advmix_cli.recipe.schema import Recipe, Section


def sections_in(value):
    """Every model in a recipe, once."""
    if isinstance(value, Section):
        yield value
        for name in type(value).model_fields:
            yield from sections_in(getattr(value, name))
    elif isinstance(value, tuple):
        for item in value:
            yield from sections_in(item)


SECTIONS = {type(section): section for raw in FULL for section in sections_in(Recipe.model_validate(raw))}
EVERY_SECTION = pytest.mark.parametrize("section", SECTIONS.values(), ids=lambda section: type(section).__name__)


def test_full_recipes_hold_every_model_and_field():
    public = {
        value
        for name, value in vars(schema).items()
        if isinstance(value, type) and issubclass(value, Section) and value is not Section and not name.startswith("_")
    }
    assert set(SECTIONS) == public
    for raw in FULL:
        for section in sections_in(Recipe.model_validate(raw)):
            absent = set(type(section).model_fields) - section.model_fields_set
            # A weight of the pristine loss and TRADES exclude each other.
            assert absent <= ({"trades_beta"} if isinstance(section, schema.Loss) else set()), type(section)


@EVERY_SECTION
def test_a_model_is_immutable(section):
    for name in type(section).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, getattr(section, name))


@EVERY_SECTION
def test_a_model_refuses_an_unknown_key(section):
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(section).model_validate({**section.model_dump(), "surplus": 1})


@pytest.mark.parametrize("raw", FULL, ids=range(len(FULL)))
def test_no_leaf_is_coerced(raw):
    for path, value in leaves(raw):
        if isinstance(value, bool):
            wrong = [0, 1, "true", 1.0]
        elif isinstance(value, int):
            wrong = [True, str(value), float(value), value + 0.5]
        elif isinstance(value, float):
            wrong = [True, False, str(value)]
        elif "/255" in value:
            wrong = [True, False, "8", "8/", "/255", "8/255/1", "-8/255", "8/-255", "8:255", "1/0", "256/255", 8, ""]
        else:
            wrong = [0, True, [value], {}]
        for other in [*wrong, float("nan"), float("inf"), float("-inf"), [[]], {"a": 1}]:
            with pytest.raises(ValidationError):
                Recipe.model_validate(put(raw, path, other))


def test_an_integer_stands_for_a_float():
    assert Recipe.model_validate(put(FULL[0], ("optimizer", "lr"), 1)).optimizer.lr == 1.0


@given(st.integers(1, 254))
def test_grey_levels_are_exact_and_written_back(level):
    recipe = Recipe.model_validate(put(FULL[0], ("threat", "epsilon"), f"{level}/255"))
    assert recipe.threat.epsilon == level / 255
    assert recipe.resolved()["threat"]["epsilon"] == f"{level}/255"


@pytest.mark.parametrize(
    ("written", "value"),
    [(0, 0.0), (1, 1.0), (1.0, 1.0), ("255/255", 1.0), ("0/255", 0.0), (0.1, 0.1), (" 8 / 255 ", 8 / 255),
     ("0.5/255", 0.5 / 255), ("1/4", 0.25)],
)  # fmt: skip
def test_other_spellings_of_pixels(written, value):
    recipe = Recipe.model_validate(put(FULL[0], ("threat", "epsilon"), written))
    assert recipe.threat.epsilon == value
    again = Recipe.model_validate(recipe.resolved())
    assert again.threat.epsilon == value


def test_a_number_and_its_fraction_are_one_experiment():
    as_text, as_number = (Recipe.model_validate(put(FULL[0], ("threat", "epsilon"), e)) for e in ("8/255", 8 / 255))
    assert as_text == as_number
    assert as_text.digest() == as_number.digest()


@pytest.mark.parametrize("steps", [0, 1, 5, 10])
@pytest.mark.parametrize("maximizer", MAXIMIZERS[1:], ids=lambda maximizer: maximizer["kind"])
def test_an_epoch_costs_2k_plus_3_passes(steps, maximizer):
    plain = put(put(FULL[0], ("loss", "pristine_weight"), 0.0), ("maximizer",), maximizer)
    recipe = put(plain, ("maximizer", "ascent", "steps"), steps)
    assert Recipe.model_validate(recipe).passes_per_image() == 2 * steps + 3
    # A second loss, on the pristine mixture, is one more forward and one more backward pass.
    both = put(recipe, ("loss", "pristine_weight"), 0.5)
    assert Recipe.model_validate(both).passes_per_image() == 2 * steps + 6
    if maximizer["kind"] != "integrated":
        # That, and one forward pass for the prediction that its adversary ascends from.
        trades = put(recipe, ("loss", "trades_beta"), 6.0)
        assert Recipe.model_validate(trades).passes_per_image() == 2 * steps + 7


def test_without_an_adversary_an_epoch_costs_3_passes():
    plain = put(put(FULL[0], ("loss", "pristine_weight"), 0.0), ("maximizer",), {"kind": "none"})
    assert Recipe.model_validate(plain).passes_per_image() == 3


def test_evaluators_are_named_after_what_they_do():
    bare = [{"kind": "pristine"}, {"kind": "pgd", "steps": 7, "step_size": "1/255"}]
    bare += [{"kind": "autoattack", "version": v} for v in ("standard", "cheap-2020", "plus", "rand")]
    recipe = Recipe.model_validate(put(FULL[0], ("evaluators",), bare))
    names = [evaluator.name for evaluator in recipe.evaluators]
    assert names == ["pristine", "PGD7", "AA standard", "AA cheap-2020", "AA plus", "AA rand"]


pixels = st.integers(0, 255).map(lambda level: f"{level}/255") | st.floats(0, 1)
above_0 = st.integers(1, 255).map(lambda level: f"{level}/255") | st.floats(0, 1, exclude_min=True)
fractions = st.floats(0, 1)
below_one = st.floats(0, 1, exclude_max=True)
inside = st.floats(0, 1, exclude_min=True, exclude_max=True)
positive = st.floats(0, 1e6, exclude_min=True)
counts = st.integers(1, 10**6)
seeds = st.integers(0, 2**31 - 1)
flags = st.booleans()
betas = st.lists(below_one, min_size=2, max_size=2)
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=10)


def table(required=None, **optional):
    return st.fixed_dictionaries(required or {}, optional=optional)


def one_of(*values):
    return st.sampled_from(values)


def has_mass_above_kappa(ratio):
    kappa = ratio.get("kappa", 0.65)
    return ratio.get("alpha", 0.5) * math.log(4 * kappa * (1 - kappa)) >= math.log(1e-12)


piece = {"train_limit": counts, "test_limit": counts, "seed": seeds, "flip": flags, "translate": st.integers(0, 9)}
ascents = table(
    {"steps": st.integers(0, 99), "step_size": pixels},
    init=one_of("uniform", "zero"),
    clamp=flags,
    batch_norm=one_of("train", "batch", "eval"),
)
frozen = table(kind=st.just("frozen"), alpha=st.floats(1e-3, 1e6), per=one_of("sample", "batch"))
learned = table(
    {"kind": st.just("learned")},
    alpha=st.floats(1e-3, 5) | st.floats(1e-3, 1e6),
    per=one_of("sample", "batch"),
    kappa=st.floats(0.5, 0.9) | st.floats(0.5, 1, exclude_max=True),
    travel=positive,
    logit_clamp=st.floats(1e-12, 0.5, exclude_max=True),
).filter(has_mass_above_kappa)
labels = table({"kind": st.just("linear")}) | table(
    {"kind": st.just("geometric")}, endpoints=one_of("clean", "perturbed"), detach=flags
)
tagged_frozen = frozen.map(lambda ratio: {**ratio, "kind": "frozen"})
maximizers = (
    table({"kind": st.just("none")})
    | table({"kind": st.just("attack"), "ascent": ascents})
    | table({"kind": one_of("mix-then-attack", "attack-then-mix"), "ascent": ascents}, ratio=frozen)
    | table({"kind": st.just("attack-then-mix"), "ascent": ascents}, mix_after=one_of(0, 1, 2))
    | table(
        {"kind": st.just("integrated"), "ascent": ascents},
        delta=one_of("shared", "independent"),
        ratio=tagged_frozen | learned,
        labels=labels,
    )
)
optimizers = table({"kind": st.just("sgd"), "lr": positive}, momentum=below_one, weight_decay=positive) | table(
    {"kind": one_of("adam", "adamw", "yogi"), "lr": positive}, betas=betas, eps=positive, weight_decay=positive
)
schedules = (
    table(
        {"kind": st.just("steps"), "epochs": counts},
        drops=st.lists(inside, unique=True, max_size=3).map(sorted),
        factor=st.floats(0, 1, exclude_min=True),
    )
    | table({"kind": st.just("cosine"), "epochs": counts}, warmup=below_one, final=fractions)
    | table({"kind": st.just("one-cycle"), "epochs": counts}, peak=inside, initial=fractions, final=fractions)
)
evaluators = st.lists(
    table({"kind": st.just("pgd"), "steps": counts, "step_size": above_0}, epsilon=pixels, limit=counts, seed=seeds)
    | table({"kind": st.just("pristine")}, split=one_of("test", "validation", "train"))
    | table({"kind": st.just("autoattack"), "version": one_of("standard", "cheap-2020", "rand")}, name=st.just("A")),
    max_size=3,
    unique_by=lambda evaluator: (evaluator["kind"], evaluator.get("steps"), evaluator.get("version")),
).filter(lambda found: sum("name" in evaluator for evaluator in found) < 2)  # fmt: skip
recipes = table(
    {
        "data": table({"source": st.just("digits")}, **piece)
        | table({"source": one_of("cifar10", "cifar100", "fashion-mnist")}, root=words, **piece)
        | table({"source": st.just("folder"), "root": words}, size=st.integers(8, 64), channels=one_of(1, 3), **piece),
        "model": table({"kind": st.just("preact-resnet")}, depth=one_of(10, 18, 34), width=st.integers(1, 1024))
        | table(
            {"kind": st.just("wide-resnet")},
            depth=st.integers(1, 20).map(lambda n: 6 * n + 4),
            width=st.integers(1, 1024),
        ),
        "threat": table({"epsilon": pixels}),
        "maximizer": maximizers,
        "optimizer": optimizers,
        "schedule": schedules,
    },
    title=words,
    seed=seeds,
    loss=table(divergence=one_of("kl", "cross-entropy"), pristine_weight=fractions),
    validation=table(fraction=one_of(0, 0.02, 0.5), limit=counts, step_size=above_0)
    | table({"on": st.just("test")}, limit=counts, step_size=above_0),
    engine=table(precision=one_of("fp32", "bf16"), channels_last=flags, deterministic=flags),
    evaluators=evaluators,
).filter(lambda raw: raw["maximizer"]["kind"] != "none" or not raw.get("loss", {}).get("pristine_weight"))


@given(recipes)
@settings(max_examples=50)
def test_resolving_twice_changes_nothing(raw):
    recipe = Recipe.model_validate(raw)
    again = Recipe.model_validate(tomllib.loads(tomli_w.dumps(recipe.resolved())))
    assert again == recipe
    assert again.resolved() == recipe.resolved()
    assert again.digest() == recipe.digest()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("validation", {"on": "test", "fraction": 0.1}, 'fraction has no meaning for on = "test"'),
        ("loss", {"pristine_weight": 0.5}, "pristine_weight has no meaning"),
    ],
)
def test_a_field_without_meaning_is_refused(key, value, message):
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate({**FULL[0], "maximizer": {"kind": "none"}, key: value})


def with_trades(number, **maximizer):
    raw = put(FULL[number], ("loss",), {"trades_beta": 6.0})
    return {**raw, "maximizer": {**raw["maximizer"], **maximizer}}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (with_trades(0), 'trades_beta has no meaning for maximizer.kind = "none"'),
        (with_trades(1, ascent={**ASCENT, "init": "zero"}), 'no meaning for ascent.init = "zero".*use "uniform"'),
        (with_trades(4), 'no meaning for ratio.kind = "learned".*use "frozen"'),
        (with_trades(5), 'no meaning for labels.kind = "geometric".*use "linear"'),
        (put(with_trades(1), ("loss", "pristine_weight"), 0.1), "pristine_weight has no meaning beside trades_beta"),
        (put(with_trades(1), ("loss", "trades_beta"), 0.0), "greater than 0"),
        (put(FULL[5], ("maximizer", "mix_after"), 1), "geometric.*no meaning for mix_after = 1.*there is none"),
        (put(FULL[3], ("maximizer", "mix_after"), 3), "0, 1 or 2"),
        (put(FULL[3], ("maximizer", "mix_after"), True), "valid integer"),
        (put(FULL[2], ("maximizer", "mix_after"), 1), "Extra inputs"),
    ],
)
def test_trades_and_mixing_within_are_refused_where_they_have_no_meaning(raw, message):
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(raw)


def test_trades_and_mixing_within_go_together():
    frozen = with_trades(4, ratio=FROZEN, labels={"kind": "linear"})
    recipe = Recipe.model_validate(frozen)
    assert (recipe.maximizer.mix_after, recipe.loss.trades_beta, recipe.update_losses) == (2, 6.0, 2)


def test_a_recipe_without_validation_can_be_read_back():
    """It is read back from recipe.toml and from the checkpoint."""
    recipe = Recipe.model_validate({**FULL[0], "validation": {"fraction": 0}})
    assert Recipe.model_validate(recipe.resolved()).digest() == recipe.digest()


@pytest.mark.parametrize(
    ("section", "kinds"),
    [("data", DATA), ("model", MODELS), ("maximizer", MAXIMIZERS), ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)],
)
def test_every_kind_is_another_experiment(section, kinds):
    digests = {Recipe.model_validate({**FULL[0], section: kind}).digest() for kind in kinds}
    assert len(digests) == len(kinds)


def test_the_order_of_evaluators_is_kept():
    recipe = Recipe.model_validate({**FULL[0], "evaluators": EVALUATORS[::-1]})
    assert [evaluator.name for evaluator in recipe.evaluators] == ["A", "P", "plain"]
