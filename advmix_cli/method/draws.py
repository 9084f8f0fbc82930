"""All randomness of one batch, drawn before the maximizer runs: the maximizer itself is a pure function."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from advmix_cli.method import ratio


class Draws(NamedTuple):
    """`noise` (copies·B, C, H, W) in [-1, 1]: δ's start in units of ε; `permutation` (B,): image i is mixed with image
    permutation[i]; `ratio` (B,) or (1,): λ's start, float64."""

    noise: Tensor
    permutation: Tensor
    ratio: Tensor


@dataclass(frozen=True)
class Sampler:
    """What a maximizer needs drawn: how many δ an image, how they start, and which λ.

    `alpha` None: nothing is mixed, λ = 1 and the permutation is the identity. `kappa` 0 leaves Beta(α, α) whole.
    """

    copies: int = 1
    init: Literal["uniform", "zero"] = "uniform"
    alpha: float | None = None
    kappa: float = 0.0
    per: Literal["sample", "batch"] = "sample"

    def __call__(self, shape: torch.Size, host: torch.Generator, device: torch.Generator) -> Draws:
        """Draw for a batch of `shape` (B, C, H, W): the small numbers on the host, the noise on its own device."""
        size, *image = shape
        if self.alpha is None:
            permutation, mixing = torch.arange(size), torch.ones(1, dtype=torch.float64)
        else:
            permutation = torch.randperm(size, generator=host)
            count = size if self.per == "sample" else 1
            mixing = ratio.sample(
                torch.rand(count, generator=host, dtype=torch.float64), alpha=self.alpha, kappa=self.kappa
            )
        noise = torch.zeros(self.copies * size, *image, device=device.device)
        if self.init == "uniform":
            noise.uniform_(-1, 1, generator=device)
        return Draws(noise, sent(permutation, device.device), sent(mixing, device.device))


def sent(value: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on `device`. The host does not wait: from pageable memory a GPU would make it."""
    return value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value
