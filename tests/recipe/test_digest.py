"""The digest names an experiment: it follows every field that changes the numbers, and no other."""

import pytest
from full_recipes import FULL, leaves, put
from pydantic import ValidationError

from advmix_cli.recipe.load import load
from advmix_cli.recipe.schema import Recipe


def words_of(node):
    """Every word that a field of the schema can have."""
    if isinstance(node, dict):
        yield from (word for word in [*node.get("enum", ()), node.get("const")] if isinstance(word, str))
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from words_of(inner)


WORDS = sorted(set(words_of(Recipe.model_json_schema())))


def others(value):
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, value + 6, value - 2, 10]
        case float():
            return [value + 0.01, value / 2]
        case str() if "/255" in value:
            return ["1/255"]
        case _:
            return [*(word for word in WORDS if word != value), f"{value}x"]


def changed(raw, path, value):
    """The first valid recipe with another value at `path`, or None."""
    for other in others(value):
        try:
            return Recipe.model_validate(put(raw, path, other))
        except ValidationError:
            continue
    return None


@pytest.mark.parametrize("raw", FULL, ids=range(len(FULL)))
def test_digest_follows_every_leaf_but_the_title_and_a_download_s_directory(raw):
    recipe = Recipe.model_validate(raw)
    resolved = recipe.resolved()
    for path, value in leaves(resolved):
        if path == ("loss", "pristine_weight") and (raw["maximizer"]["kind"] == "none" or "trades_beta" in raw["loss"]):
            continue  # there is one loss only, or TRADES' two
        other = changed(resolved, path, value)
        if other is None:
            # What selects a model cannot change alone, nor what else must then be absent, and there is one norm; where
            # labels are geometric images are mixed, and TRADES does not start from 0.
            assert path[-1] in ("kind", "source", "norm", "on", "mix_after", "init"), path
            continue
        silent = path == ("title",) or (path == ("data", "root") and raw["data"]["source"] != "folder")
        assert (other.digest() == recipe.digest()) is silent, path


@pytest.mark.parametrize("raw", FULL, ids=range(len(FULL)))
def test_digest_follows_what_is_left_out(raw):
    recipe = Recipe.model_validate(raw)
    for section, field in [
        ("data", "train_limit"),
        ("data", "test_limit"),
        ("validation", "limit"),
        ("validation", "step_size"),
    ]:
        without = {key: value for key, value in raw[section].items() if key != field}
        assert Recipe.model_validate({**raw, section: without}).digest() != recipe.digest()
    assert Recipe.model_validate({**raw, "evaluators": []}).digest() != recipe.digest()


def test_digest_does_not_depend_on_the_order_of_keys_or_on_written_defaults():
    minimal = {
        "data": {"source": "digits"},
        "model": {"kind": "preact-resnet"},
        "threat": {"epsilon": "8/255"},
        "maximizer": {"kind": "none"},
        "optimizer": {"kind": "sgd", "lr": 0.1},
        "schedule": {"kind": "steps", "epochs": 3},
    }
    recipe = Recipe.model_validate(minimal)
    assert Recipe.model_validate(dict(reversed(minimal.items()))).digest() == recipe.digest()
    assert Recipe.model_validate(recipe.resolved()).digest() == recipe.digest()


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("digits", "912aa6b6b5d7b6c2da6f125606e87ad514fa8837946554bd76f76fea47cff8ac"),
        ("digits-attack", "309ad5b56f7aabe679408b94a1aa64d79b58a0079afa118b53d4a788474a8c07"),
        ("digits-trades", "d03286d5891b0fd9b98a6f78cd3946845e5785d891d14f573ab8bfb35b0b9926"),
        ("cifar10-ours", "23aee121212cf1073ab07265d6b8d9b791f7e6c948d6371243ac150eef92ba10"),
        ("cifar10-wrn-ours", "891d79a33616fac38eb3a5e9efeba9eaa835b9546abc4d7c2798a5e6acc06026"),
        ("cifar100-ours", "04dc46020f79946f728212cac290ed994203f01901dfef5332d997804bbc96f7"),
        ("robust", "1a3eab0cffb45d74a4d536aa4c8a87f606d85ba832c6770a8fd53f6cd870edda"),
    ],
)
def test_fields_that_came_later_left_the_digests_as_they_were(name, digest):
    """What was trained before `mix_after` and `trades_beta` keeps its name."""
    assert load(name).digest() == digest
    if name.endswith("ours"):
        assert load(name, ["maximizer.mix_after=0"]).digest() == digest
        assert load(name, ["maximizer.mix_after=1"]).digest() != digest


@pytest.mark.parametrize(
    "edit",
    [
        "threat.epsilon=-0.0",
        "validation.fraction=-0.0",
        "loss.pristine_weight=-0.0",
        "maximizer.ratio.travel=-0.0",
        'optimizer={kind="adam", lr=0.1, betas=[-0.0, 0.9]}',
    ],
)
def test_minus_nothing_is_nothing(edit):
    minus, plain = (load("digits", [edit.replace("-0.0", zero)]) for zero in ("-0.0", "0.0"))
    assert minus.digest() == plain.digest()
    assert "-0.0" not in str(minus.resolved())


def test_what_is_off_leaves_the_digest_as_it_was_before_it_could_be_on():
    """Run directories and tables know their recipes by it."""
    assert load("digits").digest() == "912aa6b6b5d7b6c2da6f125606e87ad514fa8837946554bd76f76fea47cff8ac"
    assert load("digits", ['averaging={kind="none"}']).digest() == load("digits").digest()
    assert load("digits", ['engine.batch_norm="averaged"']).digest() == load("digits").digest()
    assert load("digits", ['engine.batch_norm="synchronised"']).digest() != load("digits").digest()
    averaged = [load("digits", [f"averaging={one}"]) for one in ('{kind="ema"}', '{kind="ema", warmup=false}')]
    assert len({recipe.digest() for recipe in (load("digits"), *averaged)}) == 3
