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


@pytest.mark.parametrize(("free", "left", "batch"), [(10, 90, 10), (90, 10, 10), (None, 10, 10), (10, None, 10)])
def test_the_least_of_what_is_free_and_of_what_the_process_may_have_counts(tiny, monkeypatch, free, left, batch):
    recipe = tiny()
    (estimate,) = estimates([recipe], print)
    an_image = estimate.memory.activations // estimate.cost.batch_size
    for name, images in (("free", free), ("left_to_the_process", left)):
        there = None if images is None else estimate.memory.fixed + images * an_image
        monkeypatch.setattr(memory, name, lambda there=there: there)
    found = largest_batch(recipe, estimate, stand_in(estimate.outline), CPU)
    assert (found.batch, found.tried) == (batch, False)


def test_unknown_where_the_machine_does_not_say(tiny, monkeypatch):
    recipe = tiny()
    (estimate,) = estimates([recipe], print)
    monkeypatch.setattr(memory, "free", lambda: None)
    assert largest_batch(recipe, estimate, stand_in(estimate.outline), CPU) is None
