"""What is counted without running anything, against numbers worked out by hand."""

import pytest

from advmix_cli.errors import DataError
from advmix_cli.plan.estimate import estimates
from advmix_cli.recipe.load import load
from advmix_cli.recipe.table import load_table

PREACT_FORWARD = 1_110_845_440


def counted(*recipes):
    return estimates(recipes, print)


def test_preact_resnet_18_on_cifar10():
    """50,000 images in 390 batches of 128: K = 5 attack steps are 10 passes, the update 3."""
    (found,) = counted(load("cifar10-ours", ["validation.fraction=0"]))
    assert found.cost.parameters == 11_172_170
    assert found.cost.forward == PREACT_FORWARD
    assert found.cost.attack == 10 * PREACT_FORWARD * 390 * 128
    assert found.cost.update == 3 * PREACT_FORWARD * 390 * 128
    assert found.cost.training == 100 * (found.cost.attack + found.cost.update)
    (whole,) = counted(load("cifar10-ours", ["validation.fraction=0", "schedule.batch_size=125"]))
    assert (whole.cost.attack + whole.cost.update) / 1e15 == pytest.approx(0.722, abs=5e-4)


def test_wrn_34_10_on_cifar10():
    (found,) = counted(load("cifar10-wrn-ours", ["validation.fraction=0"]))
    assert (found.cost.attack + found.cost.update) / 1e15 == pytest.approx(15.3, abs=0.05)


def test_table_1():
    found = counted(*(row.recipe for row in load_table("table1").rows))
    assert sum(one.cost.epochs for one in found) == 680
    assert {one.cost.parameters for one in found} == {11_172_170}


@pytest.mark.parametrize(
    ("optimizer", "moments"),
    [
        ('{kind="sgd", lr=0.1}', 1), ('{kind="sgd", lr=0.1, momentum=0.0}', 0), ('{kind="adam", lr=0.1}', 2),
        ('{kind="adamw", lr=0.1}', 2), ('{kind="yogi", lr=0.1}', 2),
    ],
)  # fmt: skip
def test_memory_of_weights_and_optimizer(tiny, optimizer, moments):
    (found,) = counted(tiny(f"optimizer={optimizer}"))
    assert found.memory.weights == found.memory.gradients == 4 * found.cost.parameters
    assert found.memory.optimizer == moments * found.memory.weights


@pytest.mark.parametrize("averaging", ['{kind="none"}', '{kind="ema"}'])
def test_memory_adds_up(tiny, averaging):
    (found,) = counted(tiny(f"averaging={averaging}", 'engine.precision="bf16"'))
    memory, outline = found.memory, found.outline
    # An 8x8 grey image and its label, a byte a pixel and eight for the label.
    assert memory.images == (outline.train + outline.validation + outline.test) * (64 + 8)
    assert memory.average == (memory.weights if "ema" in averaging else 0)
    assert (
        memory.fixed
        == memory.weights + memory.gradients + memory.optimizer + memory.average + memory.casts + memory.images
    )
    assert memory.total == memory.fixed + memory.activations


def test_bf16_keeps_casts_of_the_weights(tiny):
    plain, halves, twice = counted(
        tiny(), tiny('engine.precision="bf16"'), tiny('engine.precision="bf16"', "loss.pristine_weight=0.5")
    )
    assert (plain.memory.casts, halves.memory.casts, twice.memory.casts) == (
        0, plain.memory.weights, 1.5 * plain.memory.weights
    )  # fmt: skip


def test_activations_follow_the_batch_and_the_losses(tiny):
    one, twice, both = counted(tiny(), tiny("schedule.batch_size=128"), tiny("loss.pristine_weight=0.5"))
    assert one.memory.activations > 0
    assert twice.memory.activations == both.memory.activations == 2 * one.memory.activations


def test_recipes_together_are_estimated_as_each_by_itself(tiny):
    recipes = [
        tiny(),
        tiny('engine.precision="bf16"'),
        tiny("model.width=2"),
        tiny("validation.fraction=0.1"),
        tiny("data.test_limit=30"),
        tiny('data={source="cifar10"}'),
        tiny('maximizer={kind="integrated", ascent={steps=2, step_size="8/255"}, mix_after=1}'),
    ]
    assert counted(*recipes) == [counted(recipe)[0] for recipe in recipes]


def test_a_batch_larger_than_the_training_set_is_all_of_it(tiny):
    asked, whole = counted(tiny("schedule.batch_size=1000"), tiny("schedule.batch_size=128"))
    assert (asked.cost, asked.memory) == (whole.cost, whole.memory)
    assert asked.cost.batch_size == 128


def test_a_folder_is_read_and_its_faults_are_told(tiny, tmp_path):
    recipe = tiny(f'data={{source="folder", root="{tmp_path}/photos"}}')
    with pytest.raises(DataError, match="photos"):
        counted(recipe)
    with pytest.raises(DataError, match="train_limit = 50001"):
        counted(load("cifar10-ours", ["data.train_limit=50001"]))


def test_images_that_only_one_recipe_wants_are_looked_for_by_its_side_too(tiny):
    held = "evaluators=[{kind='pristine', split='validation'}]"
    with pytest.raises(DataError, match="wants the validation images, but none are held out"):
        counted(tiny("validation.fraction=0"), tiny("validation.fraction=0", held))
