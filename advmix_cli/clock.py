"""Wall-clock time of work on a device that is given work asynchronously."""

import time
from collections.abc import Callable

import torch


def wait(device: torch.device) -> None:
    """For all that was given to the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Of so many calls together, from an idle device to an idle device."""
    wait(device)
    started = time.perf_counter()
    for _ in range(calls):
        work()
    wait(device)
    return time.perf_counter() - started
