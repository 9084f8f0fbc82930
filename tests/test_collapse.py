"""A training whose accuracy under attack falls by half within an epoch: noticed, ended, or rolled back."""

import json

import pytest
import torch
from interrupted import CPU, SMALL, bits, same, stopped

from advmix_cli import build, checkpoint, fit, run
from advmix_cli.errors import DivergedError, EvaluationError, RecipeError
from advmix_cli.report.ablation import Line, ablation_grid, ablation_records
from advmix_cli.report.results import Results
from advmix_cli.report.tables import outcome_grid
from advmix_cli.training import collapse, resuming
from advmix_cli.training.loop import Progress
from advmix_cli.validation import Validation

WATCHED = [*SMALL, "schedule.epochs=4", "validation.fraction=0.3", "optimizer={kind='sgd', lr=0.05, momentum=0.0}"]


@pytest.fixture
def accuracies(monkeypatch):
    """accuracies(0.3, ...): what the validation of each epoch finds."""

    def give(*values):
        def accuracies(_):
            return {"validation_accuracy": 0.9, "validation_pgd_accuracy": values[epoch[0] - 1]}

        epoch = [0]
        true = fit.Training._epoch

        def counted(self, start, tick):
            epoch[0] = start.epoch
            return true(self, start, tick)

        monkeypatch.setattr(fit.Training, "_epoch", counted)
        monkeypatch.setattr(Validation, "accuracies", accuracies)

    return give


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_it_is_said_and_changes_nothing(tiny, tmp_path, watch, said, accuracies):
    accuracies(0.4, 0.5, 0.25, 0.3)
    results = run.execute(tiny(*WATCHED, 'evaluators=[{kind="pristine"}]'), tmp_path / "a", CPU, watch)
    fell = "the accuracy under the validation's attack fell from 50.0 % to 25.0 % within epoch 3"
    assert f"warning: {fell}: its gradients may be hidden" in said.getvalue()
    assert [line.get("collapsed", False) for line in lines(tmp_path / "a")] == [False, False, True, False]
    assert results.collapsed == Results.load(tmp_path / "a").collapsed == (3,)
    assert checkpoint.load(tmp_path / "a").collapsed == (3,)
    (caption,) = (c for c in outcome_grid("", results.measured[0], (), results.collapsed).captions if "COLLAPSED" in c)
    assert caption == "COLLAPSED: the validation's accuracy under attack fell by half in epoch 3."
    line = Line("A", (results,), (tmp_path / "a",), {})
    assert any("COLLAPSED: A, seed 0" in caption for caption in ablation_grid("", ["pristine"], [line]).captions)
    assert all(record["collapsed"] == [3] for record in ablation_records(["pristine"], [line]))
    accuracies(0.4, 0.5, 0.26, 0.3)
    run.execute(tiny(*WATCHED, 'evaluators=[{kind="pristine"}]'), tmp_path / "b", CPU, watch)
    assert bits(tmp_path / "a")[0] == bits(tmp_path / "b")[0]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0.5, 0.25, True),
        (0.5, 0.251, False),
        (0.2, 0.0, False),
        (0.21, 0.1, True),
        (None, 0.0, False),
        (0.5, None, False),
    ],
)
def test_a_collapse_begins_above_twice_chance_and_ends_at_half(before, after, expected):
    assert collapse.is_collapse(before, after, 10) is expected


def test_it_can_end_the_training(tiny, tmp_path, watch, accuracies):
    accuracies(0.4, 0.2, 0.4, 0.4)
    recipe = tiny(*WATCHED, "schedule.on_collapse='stop'")
    with pytest.raises(DivergedError, match=r"fell from 40\.0 % to 20\.0 % within epoch 2, and schedule.on_collapse"):
        run.execute(recipe, tmp_path, CPU, watch)
    assert "within epoch 2" in Results.load(tmp_path).diverged
    assert len(lines(tmp_path)) == 2


def test_it_can_go_on_from_the_best_weights(tiny, tmp_path, watch, accuracies):
    """By hand: epochs 1 and 2, those of 1 again, epoch 3, epoch 4."""
    accuracies(0.4, 0.1, 0.3, 0.35)
    recipe = tiny(*WATCHED, "schedule.on_collapse='rollback'")
    run.execute(recipe, tmp_path / "whole", CPU, watch)
    assert [line.get("rolled_back_to") for line in lines(tmp_path / "whole")] == [None, 1, None, None]
    images = build.dataset(recipe, CPU, print)
    training = build.training(recipe, images, build.new_network(recipe, images, CPU))
    running = training.run(lambda _: None)
    next(running)
    first = {name: value.clone() for name, value in training.network.state_dict().items()}
    training.network.load_state_dict(first)
    for _ in training.run(lambda _: None, Progress(3)):
        pass
    found = checkpoint.load(tmp_path / "whole").state
    assert all(torch.equal(found[name], value) for name, value in training.network.state_dict().items())
    # Stopped in the epochs before, at and after it, and gone on with: the same bits.
    for at in (6, 8, 9, 11):
        part = tmp_path / f"{at}"
        stopped(recipe, part, watch, at=at)
        run.execute(recipe, part, CPU, watch)
        assert same(bits(part), bits(tmp_path / "whole"))


def test_an_average_is_not_the_best_one_by_the_accuracy_of_what_was_undone(tiny, tmp_path, watch, monkeypatch):
    """It improves in the epoch that collapses, and is rolled back with the weights before it could be saved."""
    found = {"": iter([0.4, 0.1, 0.3, 0.35]), "average_": iter([0.3, 0.35, 0.2, 0.2])}

    def accuracies(_):
        robust = {f"{prefix}validation_pgd_accuracy": next(values) for prefix, values in found.items()}
        return {f"{prefix}validation_accuracy": 0.9 for prefix in found} | robust

    monkeypatch.setattr(Validation, "accuracies", accuracies)
    recipe = tiny(*WATCHED, "schedule.on_collapse='rollback'", "averaging={kind='ema'}")
    run.execute(recipe, tmp_path, CPU, watch)
    assert lines(tmp_path)[1]["rolled_back_to"] == 1
    averaged = checkpoint.load(tmp_path / "model.safetensors").averaged
    assert averaged
    assert averaged.best
    assert (averaged.best.epoch, averaged.best.accuracy) == (1, 0.3)
    saved = checkpoint.load(tmp_path / "average-best.safetensors")
    assert (saved.epoch, saved.weights) == (1, averaged.best.digest)


def test_after_a_rollback_an_epoch_is_compared_with_the_weights_that_it_began_with(tiny, tmp_path, watch, accuracies):
    accuracies(0.4, 0.1, 0.11, 0.3)
    recipe = tiny(*WATCHED, "schedule.on_collapse='rollback'")
    assert run.execute(recipe, tmp_path, CPU, watch).collapsed == (2, 3)
    assert [line.get("rolled_back_to") for line in lines(tmp_path)] == [None, 1, 1, None]


def test_the_weights_that_an_epoch_begins_with_are_those_of_the_epoch_that_was_gone_back_to():
    found = [json.dumps({"epoch": epoch, collapse.ACCURACY: epoch / 10}) for epoch in (1, 2, 3)]
    assert [collapse.before(found[:epochs]) for epochs in (0, 1, 2, 3)] == [None, 0.1, 0.2, 0.3]
    assert collapse.before([json.dumps({"epoch": 1})]) is None
    fell = [json.dumps({"epoch": epoch, collapse.ACCURACY: 0.0, "rolled_back_to": 2}) for epoch in (4, 5)]
    assert [collapse.before(found + fell[:epochs]) for epochs in (1, 2)] == [0.2, 0.2]


@pytest.mark.parametrize("optimizer", ["sgd', lr=0.1", "adam', lr=0.01", "adamw', lr=0.01", "yogi', lr=0.01"])
def test_an_optimizer_that_starts_again_is_a_new_one(tiny, optimizer):
    recipe = tiny(*SMALL, f"optimizer={{kind='{optimizer}}}")
    images = build.dataset(recipe, CPU, print)
    made = [build.training(recipe, images, build.new_network(recipe, images, CPU)) for _ in range(2)]
    next(made[0].run(lambda _: None))
    resuming.roll_back(made[0], made[1].network.state_dict())
    for training in made:
        next(training.run(lambda _: None))
    one, other = (resuming.tensors(training, Progress()) for training in made)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_cannot_see_a_collapse_is_refused(tiny):
    with pytest.raises(RecipeError, match=r'"stop" needs validation images, and validation.fraction is 0'):
        tiny("schedule.on_collapse='stop'", "validation={fraction=0.0, report='last'}")
    with pytest.raises(RecipeError, match="would train on a choice made on test images"):
        tiny("schedule.on_collapse='rollback'", "validation={on='test'}")
    plain = tiny()
    assert tiny("schedule.on_collapse='warn'").digest() == plain.digest()
    assert tiny("schedule.on_collapse='stop'").digest() != plain.digest()


def test_of_two_classes_a_collapse_begins_above_three_quarters():
    assert collapse.is_collapse(0.76, 0.38, 2)
    assert not collapse.is_collapse(0.74, 0.0, 2)


def test_after_the_last_epoch_nothing_is_rolled_back(tiny, tmp_path, watch, accuracies):
    """What is called the last epoch is the last epoch."""
    accuracies(0.4, 0.5, 0.5, 0.1)
    recipe = tiny(*WATCHED, "schedule.on_collapse='rollback'")
    run.execute(recipe, tmp_path / "a", CPU, watch)
    assert "rolled_back_to" not in lines(tmp_path / "a")[-1]
    run.execute(tiny(*WATCHED), tmp_path / "b", CPU, watch)
    assert checkpoint.load(tmp_path / "a").weights == checkpoint.load(tmp_path / "b").weights


def test_the_average_is_rolled_back_too(tiny):
    recipe = tiny(*SMALL, "averaging={kind='ema'}")
    images = build.dataset(recipe, CPU, print)
    training = build.training(recipe, images, build.new_network(recipe, images, CPU))
    first = {name: value.clone() for name, value in training.network.state_dict().items()}
    next(training.run(lambda _: None))
    resuming.roll_back(training, first)
    for network in (training.network, training.average.network):
        assert all(torch.equal(value, first[name]) for name, value in network.state_dict().items())


def test_logits_that_are_found_not_to_be_finite_in_the_validation_are_a_divergence(tiny, tmp_path, watch):
    recipe = tiny(*SMALL, "validation.fraction=0.3", "optimizer={kind='sgd', lr=1e30}", "schedule.epochs=1")
    with pytest.raises(DivergedError):
        run.execute(recipe, tmp_path, CPU, watch)
    assert Results.load(tmp_path).diverged


def test_a_network_that_the_validation_cannot_judge_is_a_divergence_after_its_epoch(tiny, tmp_path, watch, monkeypatch):
    found = iter([{"validation_accuracy": 0.9, "validation_pgd_accuracy": 0.4}])

    def accuracies(_):
        if once := next(found, None):
            return once
        raise EvaluationError("a logit is not finite")

    monkeypatch.setattr(Validation, "accuracies", accuracies)
    with pytest.raises(DivergedError, match=r"^a logit is not finite \(in the validation after epoch 2\)$"):
        run.execute(tiny(*WATCHED), tmp_path, CPU, watch)
