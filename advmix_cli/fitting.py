"""Which batch fits into the memory of a device: found by training on it."""

import torch

from advmix_cli import build, machine
from advmix_cli.data.images import Dataset
from advmix_cli.memory import largest, tried
from advmix_cli.recipe.schema import Recipe


def largest_batch(recipe: Recipe, images: Dataset, place: torch.device, *, at_most: int) -> int:
    """The largest batch, to a 32nd, that eager steps of the recipe can be done with on `place`; 0 if none. One image is
    none: batch norm needs two."""

    def fits(size: int) -> bool:
        schedule = recipe.schedule.model_copy(update={"batch_size": size})
        other = recipe.model_copy(update={"schedule": schedule})

        def work() -> None:
            training = build.training(other, images, build.new_network(other, images, place))
            batch = training.draw(training.order(1), epoch=1, index=0)
            with machine.deterministic(recipe.engine.deterministic):
                training.on_batch(batch)
                # The second one has the optimizer's moments and the gradients of the first one beside it.
                figures = training.on_batch(batch)
            float(figures["loss"])  # waits for the device, which may run out of memory later than the host

        return size < 2 or tried(work)

    found = largest(fits, at_most=at_most)
    return found if found > 1 else 0


def advice(recipe: Recipe, images: Dataset, place: torch.device) -> str:
    """What to tell who ran out of memory in training. An eager batch may fit where capturing one did not."""
    asked = min(recipe.schedule.batch_size, len(images.train))
    found = largest_batch(recipe, images, place, at_most=asked)
    if found == asked:
        eager = "" if recipe.engine.compile == "off" else "--set 'engine.compile=\"off\"', or "
        return (
            f"out of memory on {place}, where an eager batch of schedule.batch_size = {asked} fits by itself: {eager}"
            "choose a smaller batch"
        )
    if not found:
        return f"out of memory on {place}: not even a batch of 2 images fits; choose a smaller model or another device"
    return (
        f"out of memory on {place} with schedule.batch_size = {asked}: the largest batch that fits is {found}; "
        f"--set schedule.batch_size={found} (the learning rate may want to follow)"
        + ("" if recipe.engine.precision == "bf16" else ", or --set 'engine.precision=\"bf16\"'")
    )
