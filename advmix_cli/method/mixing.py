"""Mixup: one function for images and for labels."""

import torch
from torch import Tensor


def interpolate(left: Tensor, right: Tensor, ratio: Tensor) -> Tensor:
    """λ·left + (1 - λ)·right for each image: (B, ...), (B, ...), λ (B,) or (1,) -> (B, ...).

    `torch.lerp` is exact where it must be: λ = 1 gives `left` and λ = 0 gives `right`, bit for bit, and so does
    left = right for every λ.
    """
    return torch.lerp(right, left, ratio.reshape(-1, *[1] * (left.dim() - 1)))
