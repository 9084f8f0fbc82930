"""What can be asked of a checkpoint, and what cannot."""

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from advmix_cli import checkpoint, run
from advmix_cli.cli import app
from advmix_cli.errors import CheckpointError, RecipeError, UsageError
from advmix_cli.measure import evaluate_checkpoint, recipe_to_measure

CPU = torch.device("cpu")


@pytest.fixture
def done(tiny, tmp_path, watch):
    """(run directory, its checkpoint, its results)."""
    recipe = tiny("schedule.epochs=1", 'validation.report="last"')
    results = run.execute(recipe, tmp_path / "run", CPU, watch)
    return tmp_path / "run", checkpoint.load(tmp_path / "run"), results


@pytest.fixture
def saved(tiny):
    """A checkpoint without weights: enough to ask what would be measured."""
    return checkpoint.Checkpoint(tiny(), {}, tuple("0123456789"), (1, 8, 8), {}, "last", 2)


def ask(saved, *settings, names=(), limit=None):
    return recipe_to_measure(saved, "model.safetensors", settings, names, limit)


def test_unedited_it_is_the_recipe_itself(saved):
    assert ask(saved) == saved.recipe


def test_names_choose_and_the_recipes_order_stays(saved):
    assert [one.name for one in ask(saved, names=["PGD2"]).evaluators] == ["PGD2"]
    assert [one.name for one in ask(saved, names=["PGD2", "pristine"]).evaluators] == ["pristine", "PGD2"]


def test_the_limit_is_every_evaluators(saved):
    assert [one.limit for one in ask(saved, limit=7).evaluators] == [7, 7]
    assert [one.limit for one in ask(saved).evaluators] == [None, None]


def test_evaluators_can_be_replaced_and_edited(saved):
    (only,) = ask(saved, 'evaluators=[{kind="pgd", steps=7, step_size="1/255"}]', names=["PGD7"]).evaluators
    assert (only.steps, only.step_size) == (7, 1 / 255)
    assert ask(saved, "evaluators.1.restarts=3").evaluators[1].restarts == 3


@pytest.mark.parametrize(
    "setting", ["seed=1", "threat.epsilon=0.5", "data.test_limit=3", "data.seed=1", "model.width=9"]
)
def test_what_was_trained_cannot_be_set(saved, setting):
    with pytest.raises(UsageError, match=r"only evaluators and data\.root can be set") as caught:
        ask(saved, setting)
    assert setting in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_place_of_the_data_can_be_set(saved, tiny):
    moved = replace(saved, recipe=tiny('data={source="cifar10"}'))
    assert ask(moved, 'data.root="elsewhere"').data.root == "elsewhere"


def test_a_wrong_evaluator_is_refused_with_its_setting(saved):
    with pytest.raises(RecipeError, match="evaluators") as caught:
        ask(saved, "evaluators.1.step_size=8")
    assert "above 1" in str(caught.value)


def test_an_unknown_name_is_refused_with_a_suggestion(saved):
    with pytest.raises(UsageError, match="PGD3") as caught:
        ask(saved, names=["PGD3"])
    assert "did you mean 'PGD2'" in str(caught.value)
    assert "pristine, PGD2" in str(caught.value)


def test_a_recipe_without_evaluators_says_how_to_give_some(saved, tiny):
    with pytest.raises(UsageError, match="has no evaluators") as caught:
        ask(replace(saved, recipe=tiny("evaluators=[]")))
    assert "--set 'evaluators=[{kind=" in str(caught.value)


def test_a_checkpoint_measures_as_its_run_did(done, watch):
    directory, saved, results = done
    outcomes = list(evaluate_checkpoint(saved, ask(saved), CPU, watch))
    assert [(one.name, one.n, one.correct, one.settings) for one in outcomes] == [
        (one.name, one.n, one.correct, one.settings) for one in results.of("last").outcomes
    ]
    assert directory.is_dir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_shape": (1, 8, 9)}, "images of shape (1, 8, 9), the data has (1, 8, 8)"),
        ({"image_shape": (3, 8, 8)}, "images of shape (3, 8, 8), the data has (1, 8, 8)"),
        ({"classes": ("cat", "dog")}, "classes ('cat', 'dog'), the data has ('0', '1'"),
        ({"classes": tuple("1023456789")}, "classes ('1', '0'"),
    ],
)
def test_data_of_another_shape_or_of_other_classes_are_refused(done, watch, change, message):
    other = replace(done[1], **change)
    with pytest.raises(CheckpointError) as caught:
        list(evaluate_checkpoint(other, other.recipe, CPU, watch))
    assert message in str(caught.value)


def advmix(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


def test_the_command_prints_one_document(done):
    directory, _, results = done
    result = advmix("eval", directory, "--evaluator", "PGD2", "--limit", 25, "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    (outcome,) = document["outcomes"]
    assert (outcome["name"], outcome["n"]) == ("PGD2", 25)
    assert document["digest"] == results.digest
    assert (document["selection"], document["epoch"]) == ("last", 1)
    assert document["checkpoint"] == str(directory / "model.safetensors")


def test_the_command_leaves_the_run_directory_alone(done):
    before = {path.name: path.stat().st_mtime_ns for path in done[0].iterdir()}
    setting = 'evaluators=[{kind="pristine", name="again"}]'
    assert advmix("eval", done[0] / "best.safetensors", "--set", setting).exit_code == 0
    assert {path.name: path.stat().st_mtime_ns for path in done[0].iterdir()} == before


@pytest.mark.parametrize(
    "arguments", [["--set", "seed=3"], ["--evaluator", "nothing"], ["--set", "evaluators"], ["--limit", "0"]]
)
def test_the_command_refuses_with_code_2_and_measures_nothing(done, arguments):
    result = advmix("eval", done[0], *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_the_command_names_a_missing_checkpoint(tmp_path):
    result = advmix("eval", tmp_path / "nothing")
    assert result.exit_code == 2
    assert "nothing" in result.stderr
