"""Algorithm 5: the label's mixing ratio λ_y from where the mixture lies between its endpoints."""

import torch
from torch import Tensor


def geometric(ratio: Tensor, left: Tensor, right: Tensor, mixture: Tensor) -> Tensor:
    """λ_y = clamp(1 + (p·v)/(v·v), 0, 1), v = x_j - x_i, p = x_i - x'_m: λ (B,) or (1,), three (B, ...) -> (B,).

    Differentiable in every argument. Where the endpoints coincide there is no line, and λ_y is λ: a random
    permutation has one fixed point on average. With the clean images as endpoints, δ_i = -c(x_j - x_i) and δ_j = 0 give
    λ(1 + c), as the paper's motivating example wants; with the perturbed ones, as printed, p = -(1 - λ)v, so λ_y = λ.
    """
    v = (right - left).flatten(start_dim=1)
    p = (left - mixture).flatten(start_dim=1)
    length = (v * v).sum(dim=1)
    somewhere = length > 0
    # The division happens in both branches of the `where`, and its gradient must be finite in both.
    placed = (1 + (p * v).sum(dim=1) / torch.where(somewhere, length, 1)).clamp(0, 1)
    return torch.where(somewhere, placed, ratio)
