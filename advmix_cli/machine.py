"""What the last bits of a number depend on beside its recipe."""

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

import torch
from pydantic import AfterValidator

from advmix_cli import __version__


def _is_one(machine: dict[str, str | int]) -> dict[str, str | int]:
    numbers = {name for name, value in machine.items() if isinstance(value, int) and value >= 0}
    if numbers != {"from_epoch", "from_batches"}:
        raise ValueError("it is no machine")
    return machine


Machine = Annotated[dict[str, str | int], AfterValidator(_is_one)]
"""One that trained, `from_epoch` on and after `from_batches` of it: what `described` says, and the engine."""


def said(machine: Mapping[str, str | int], what: str) -> str | int | None:
    """What it says of itself; of its ranks nothing where it is one process."""
    return machine.get(what, "1" if what == "ranks" else None)


def versions() -> dict[str, str]:
    """Of the software, and how many threads it has."""
    return {
        "advmix": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
    }


def device_name(place: torch.device) -> str:
    """As its maker calls it."""
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    return torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine()


def described(place: torch.device) -> dict[str, str]:
    """All of it."""
    return {
        **versions(),
        "device": device_name(place),
        "CPU capability": torch.backends.cpu.get_cpu_capability(),
    }


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within, if `wanted`, torch takes only algorithms that give the same bits every time, and raises RuntimeError
    where it has none. cuBLAS reads its own setting when a process first multiplies matrices on a GPU."""
    if not wanted:  # torch would import its compiler for it
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.deterministic = before[1]
