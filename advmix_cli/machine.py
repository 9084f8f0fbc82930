"""What the last bits of a number depend on beside its recipe."""

import platform

import torch

from advmix_cli import __version__


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
