"""From pixels in [0, 1] to what a network takes, inside the network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """(x - mean)/std for each channel, (B, C, H, W) -> (B, C, H, W); buffers, so that a checkpoint carries them."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Scale(nn.Module):
    """[0, 1] -> [low, high]."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low = low
        self.high = high

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.high - self.low) + self.low


class OnPixels(nn.Module):
    """`network` behind `before`, both on (B, C, H, W)."""

    def __init__(self, before: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.before = before
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.before(x))


def on_pixels(
    network: nn.Module, scale: tuple[float, float], normalize: tuple[Sequence[float], Sequence[float]] | None
) -> OnPixels:
    """`network`, on pixels in [0, 1]: scaled to what black and white are to it, then normalised by (mean, std)."""
    layers: list[nn.Module] = []
    if scale != (0.0, 1.0):
        layers.append(Scale(*scale))
    if normalize is not None:
        layers.append(Normalize(*normalize))
    return OnPixels(nn.Sequential(*layers), network)
