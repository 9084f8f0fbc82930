"""A small batch, and the network that it goes through."""

import pytest
import torch
from interrupted import CPU
from small_probes import OURS, SMALL

from advmix_cli import build
from advmix_cli.probing.climb import climb
from advmix_cli.probing.compare import first_batch


@pytest.fixture
def climbed(tiny):
    """climbed(*settings): the recipe, its first batch, and the climb on it."""

    def work(*settings):
        recipe = tiny(*SMALL, OURS, *settings)
        images = build.dataset(recipe, CPU, print)
        first = first_batch(recipe, images, build.new_network(recipe, images, CPU))
        return recipe, first, climb(*first)

    return work


@pytest.fixture
def sloped():
    """A maximizer's network whose logit of class 1 grows with every pixel: of class 0 the steepest ascent is up."""

    def logits(x):
        total = 40 * x.flatten(1).mean(1)
        return torch.stack([-total, total], 1)

    return logits
