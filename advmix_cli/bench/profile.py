"""Where the time of a batch goes: torch's profiler."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from advmix_cli import clock

_PRODUCTS = re.compile(r"convol|conv\dd|gemm|gemv|xmma|cutlass|nvjet|splitK|triton_tem_|addmm|::b?mm$|::linear$")
"""In the names of torch's operations and of the kernels of cuDNN, cuBLAS, oneDNN and of Triton's templates."""
_FUSED = re.compile(r"^triton_(poi|red|per|for)_")
"""Compiled kernels that have no products; they are named after all that they stand for."""
_GRAPH = "## Call CompiledFxGraph"
"""Its own time is that of the kernels that a CPU's compiler has made, which have no names of their own."""


@dataclass(frozen=True)
class Operation:
    """One of torch's operations, or one of the device's kernels: how often it runs in a batch, and the seconds of the
    batch that all of them take, without those of the operations that they call."""

    name: str
    calls: float
    seconds: float

    @property
    def multiplies(self) -> bool:
        """Whether it is a convolution or a matrix product, in either direction."""
        return bool(_PRODUCTS.search(self.name)) and not _FUSED.match(self.name)


@dataclass(frozen=True)
class Profile:
    """The operations of a batch, the longest first: kernels on a GPU, torch's own operations on a CPU. `seconds` of the
    batch that they are of."""

    operations: tuple[Operation, ...]
    seconds: float

    @property
    def products(self) -> float:
        """Seconds of a batch in convolutions and matrix products."""
        return sum(one.seconds for one in self.operations if one.multiplies)

    @property
    def others(self) -> float:
        """Seconds of a batch in all other operations."""
        return sum(one.seconds for one in self.operations if not one.multiplies)

    @property
    def calls(self) -> float:
        """Operations of a batch."""
        return sum(one.calls for one in self.operations)


def profile(run: Callable[[], object], device: torch.device, batches: int, raced: float) -> Profile:
    """Of so many batches together. What the host does between its operations is in none of them. Looking at it slows
    the host, and so a GPU that waits for it, but none of the GPU's kernels: there a batch is as long as it was `raced`.
    """
    # Else it tells stderr of every start, and of GPUs that are not there; torch 2.11 also warns without `acc_events`.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    on_gpu = device.type == "cuda"
    watched = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profiler(activities=watched, acc_events=True) as found:
        elapsed = clock.seconds(run, device, batches) / batches
    seconds = {"cuda": "self_device_time_total", "cpu": "self_cpu_time_total"}[device.type]
    operations = [
        Operation(event.key, event.count / batches, getattr(event, seconds) * 1e-6 / batches)
        for event in found.key_averages()
        if (event.device_type.name == "CUDA") == on_gpu and _is_operation(event, on_gpu=on_gpu)
    ]
    return Profile(tuple(sorted(operations, key=lambda one: -one.seconds)), raced if on_gpu else elapsed)


def _is_operation(event: Any, *, on_gpu: bool) -> bool:
    """Not a mark that Python code has set: what it lasts is the host's time, or that of a loader, and a GPU has it
    beside the kernels within it. Only on a CPU the kernels within a compiled graph have none of their own."""
    return not event.is_user_annotation or (not on_gpu and event.key.startswith(_GRAPH))
