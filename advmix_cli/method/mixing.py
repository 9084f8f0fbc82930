"""Mixup: one function for images, for labels and for hidden states; and pairs that the network is to mix within."""

from typing import NamedTuple

import torch
from torch import Tensor


def interpolate(left: Tensor, right: Tensor, ratio: Tensor) -> Tensor:
    """λ·left + (1 - λ)·right for each image: (B, ...), (B, ...), λ (B,) or (1,) -> (B, ...).

    `torch.lerp` is exact where it must be: λ = 1 gives `left` and λ = 0 gives `right`, bit for bit, and so does
    left = right for every λ.
    """
    return torch.lerp(right, left, ratio.reshape(-1, *[1] * (left.dim() - 1)))


class Mixture(NamedTuple):
    """Pairs of images that the network mixes within (Manifold Mixup, Verma et al., 2019): x_i and x_j (B, C, H, W) go
    through its first `stages`, 1 or more, each by itself, what comes out is interpolated with λ, `ratio` (B,) or (1,),
    and that goes through the rest."""

    left: Tensor
    right: Tensor
    ratio: Tensor
    stages: int


def mix(left: Tensor, right: Tensor, ratio: Tensor, stages: int) -> Tensor | Mixture:
    """What the network is asked for the mixture of two batches of images: with `stages` = 0 the mixed images."""
    return Mixture(left, right, ratio, stages) if stages else interpolate(left, right, ratio)
