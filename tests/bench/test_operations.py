"""On a GPU an eager batch is bound by the host, which starts one operation after the other."""

import itertools

import pytest
import torch
from started import Started

from advmix_cli import build
from advmix_cli.bench.arms import DELTA_ONLY, engine_arm, fresh, textbook_arms
from advmix_cli.builders import loop
from advmix_cli.engine import Prepared
from advmix_cli.recipe.load import load
from advmix_cli.training import yogi
from advmix_cli.training.yogi import joined

CPU = torch.device("cpu")


@pytest.mark.parametrize("optimizer", ['{kind="yogi", lr=0.003, weight_decay=5e-4}', '{kind="sgd", lr=0.1}'])
def test_an_eager_batch_starts_hardly_more_operations_than_the_loop_that_takes_the_gradient_in_delta_alone(
    monkeypatch, optimizer
):
    monkeypatch.setattr(loop, "in_pieces", joined)  # as on a GPU
    monkeypatch.setattr(yogi, "TOGETHER", 6000)  # of 11,328 values, as 8 million are of a real network's 11
    recipe = load("cifar10-attack", [
        f"optimizer={optimizer}", "data.source='digits'", "model.width=2", "data.train_limit=16",
        "schedule.batch_size=8", 'engine.precision="bf16"', "threat.epsilon=0.1",
    ])  # fmt: skip
    images = build.outline(recipe, CPU, print).noise(16)
    pictures = itertools.repeat((images.train.pixels[:8] / 255, images.train.labels[:8]))
    arms = {arm.name: arm for arm in textbook_arms(recipe, images, CPU, pictures)}
    network = fresh(recipe, images, CPU, channels_last=True)
    own = engine_arm(recipe, Prepared(build.training(recipe, images, network), "eager", "the reference"))
    counts = []
    for arm in (own, arms[DELTA_ONLY]):
        arm.run()
        with Started() as started:
            arm.run()
        counts.append(started.count)
    ours, theirs = counts
    assert theirs > 900
    assert ours < 1.15 * theirs
