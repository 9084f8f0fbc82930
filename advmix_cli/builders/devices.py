"""The device that a recipe runs on, and what torch keeps for the whole process."""

from functools import cache

import torch

from advmix_cli import __version__
from advmix_cli.errors import DeviceError
from advmix_cli.ranks.team import ALONE
from advmix_cli.ranks.torchrun import Launch
from advmix_cli.recipe.measurement import Measuring


def device(name: str, launch: Launch = ALONE) -> torch.device:
    """ "auto" (a CUDA GPU if there is one), "cpu", "cuda" or "cuda:1", which becomes the current one; DeviceError if it
    is not there. Of several ranks on a machine each has the GPU of its number there."""
    chosen = named_device(name) if launch.world == 1 else _device_of_rank(name, launch)
    if chosen.index is not None and chosen.type == "cuda":
        torch.cuda.set_device(chosen)  # streams, graphs and compiled code are the current device's
    return chosen


def _device_of_rank(name: str, launch: Launch) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise DeviceError(
            f"--device {name}: {launch.world} ranks cannot all have it; leave it out, and each has the GPU of its "
            "number (CUDA_VISIBLE_DEVICES chooses which those are)"
        )
    there = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not there):
        return torch.device("cpu")
    if launch.local_world > there:
        raise DeviceError(
            f"{launch.local_world} ranks on one machine, where torch sees {there or 'no'} CUDA devices; start "
            f"torchrun with --nproc-per-node {max(there, 1)}, or give --device cpu"
        )
    return torch.device(f"cuda:{launch.local_rank}")


def named_device(name: str) -> torch.device:
    """As `device`; nothing is made on it, as for who only has others work on it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda") or (chosen.type == "cpu" and chosen.index):
        raise DeviceError(f"--device {name}: not a device; use auto, cpu, cuda or cuda:N")
    there = torch.cuda.device_count()
    if chosen.type == "cuda" and (chosen.index or 0) >= there:
        raise DeviceError(f"--device {name}: not there; torch {torch.__version__} sees {there or 'no'} CUDA devices")
    return chosen


def kind_of(place: torch.device) -> str:
    """What all ranks of a training must have alike: what they say to each other depends on it."""
    return f"{place.type}, torch {torch.__version__}, advmix {__version__}"


def arithmetic(recipe: Measuring) -> None:
    """Settings that torch keeps for the whole process, and so would the next recipe."""
    own = _own_threads()
    torch.set_num_threads(own if recipe.engine.threads is None else recipe.engine.threads)


@cache
def _own_threads() -> int:
    """torch's choice before any recipe had one."""
    return torch.get_num_threads()
