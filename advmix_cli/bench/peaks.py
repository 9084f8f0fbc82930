"""What the device can do at most: measured, in the same run, because datasheets are not."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from advmix_cli import clock


@dataclass(frozen=True)
class Peaks:
    """FLOP/s of matrix products and bytes/s of a copy, read and written counted apart."""

    fp32: float
    bf16: float
    copy: float

    def best(self, other: "Peaks") -> "Peaks":
        """Of two measurements."""
        return Peaks(max(self.fp32, other.fp32), max(self.bf16, other.bf16), max(self.copy, other.copy))

    def of(self, precision: str) -> float:
        """The peak for the precision of an arm."""
        return self.bf16 if precision == "bf16" else self.fp32


def measure(device: torch.device) -> Peaks:
    """The best of several tries. fp32 is as torch trains it: with TF32 where convolutions have it."""
    return Peaks(_products(device, torch.float32), _products(device, torch.bfloat16), _copy(device))


def _products(device: torch.device, kind: torch.dtype) -> float:
    """Square products, and 1x1 convolutions: on a CPU another library does those, and which one is faster differs."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    image = left.reshape(1, size, 32, size // 32).contiguous(memory_format=torch.channels_last)
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        with torch.no_grad():
            ways = [lambda: left @ right, lambda: F.conv2d(image, right[:, :, None, None])]
            return 2 * size**3 / min(_seconds(way, device) for way in ways)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32


def _copy(device: torch.device) -> float:
    source = torch.rand(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * source.element_size() / _seconds(lambda: target.copy_(source), device)


def _seconds(work: Callable[[], object], device: torch.device, tries: int = 5) -> float:
    work()
    return min(clock.seconds(work, device) for _ in range(tries))
