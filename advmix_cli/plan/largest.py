"""The largest batch that the memory of a device holds: tried on a GPU, estimated elsewhere."""

import resource
from dataclasses import dataclass
from pathlib import Path

import torch

from advmix_cli import fitting
from advmix_cli.data.images import Dataset
from advmix_cli.plan.estimate import Estimate
from advmix_cli.recipe.schema import Recipe

MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Largest:
    """`batch` of the `images` that are trained on; 0 if none fits."""

    batch: int
    images: int
    tried: bool
    """By an eager step; otherwise it follows from an estimate."""


def largest_batch(recipe: Recipe, estimate: Estimate, images: Dataset, place: torch.device) -> Largest | None:
    """On a GPU to a 32nd. The memory of a CPU is promised to more than one, and a try that takes too much ends the
    process: there it is estimated, from what is free now; None where the machine does not say that."""
    at_most = len(images.train)
    if place.type == "cuda":
        return Largest(fitting.largest_batch(recipe, images, place, at_most=at_most), at_most, tried=True)
    there = [one for one in (free_bytes(MEMINFO), _left_to_the_process()) if one is not None]
    if not there:
        return None
    free = min(there)
    an_image = estimate.memory.activations // estimate.cost.batch_size
    return Largest(max(0, min(at_most, (free - estimate.memory.fixed) // an_image)), at_most, tried=False)


def _left_to_the_process() -> int | None:
    """What `ulimit -v` leaves, if there is such a limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return limit - pages * resource.getpagesize()


def free_bytes(meminfo: Path) -> int | None:
    """Memory that can be had without swapping, as Linux has it in /proc/meminfo; None on other systems."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    (kibibytes,) = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * kibibytes
