"""The largest batch: on a CPU an estimate from the memory that is free."""

import pytest
import torch

from advmix_cli import memory
from advmix_cli.plan.estimate import estimates
from advmix_cli.plan.largest import Largest, largest_batch
from advmix_cli.plan.probe import stand_in

CPU = torch.device("cpu")


@pytest.mark.parametrize(("images", "batch"), [(-1, 0), (0, 0), (10, 10), (10.9, 10), (1e6, 128)])
def test_estimated_from_free_memory(tiny, monkeypatch, images, batch):
    """What the weights and the dataset leave, over what an image keeps; never more than there are."""
    recipe = tiny()
    (estimate,) = estimates([recipe], print)
    an_image = estimate.memory.activations // estimate.cost.batch_size
    free = int(estimate.memory.fixed + images * an_image)
    monkeypatch.setattr(memory, "free", lambda: free)
    assert largest_batch(recipe, estimate, stand_in(estimate.outline), CPU) == Largest(batch, 128, tried=False)


def test_unknown_where_the_machine_does_not_say(tiny, monkeypatch):
    recipe = tiny()
    (estimate,) = estimates([recipe], print)
    monkeypatch.setattr(memory, "free", lambda: None)
    assert largest_batch(recipe, estimate, stand_in(estimate.outline), CPU) is None
