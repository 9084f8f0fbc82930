"""Algorithm 6: the mixing ratio λ in [κ, 1], learned through its unconstrained logit γ."""

import torch
from scipy.special import betainc, betaincinv  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor


def sample(uniform: Tensor, alpha: float, kappa: float = 0.0) -> Tensor:
    """λ ~ Beta(α, α) given λ >= κ, from numbers that are uniform in [0, 1): float64 -> float64, of the same shape.

    Lines 1-4 of Algorithm 6 draw again until every λ is at least κ. This is the same distribution by its inverse
    function, in one step and in bounded time whatever α and κ. By symmetry 1 - λ ~ Beta(α, α), and it is 1 - λ that is
    drawn, below 1 - κ, because floating point resolves small numbers best.
    """
    complement = betaincinv(alpha, alpha, mass_above(kappa, alpha) * uniform.numpy())
    return 1 - torch.as_tensor(complement).clamp(0, 1 - kappa)


def mass_above(kappa: float, alpha: float) -> float:
    """P(λ > κ) for λ ~ Beta(α, α): the share of draws that Algorithm 6 accepts, 0.40 at α = 0.5, κ = 0.65."""
    return float(betainc(alpha, alpha, 1 - kappa))


def to_gamma(ratio: Tensor, kappa: float, clamp: float) -> Tensor:
    """γ = -log((1 - κ)/(λ - κ) - 1), line 5 of Algorithm 6: the logit of (λ - κ)/(1 - κ), which is kept `clamp` from 0
    and from 1, where γ would be infinite."""
    return ((ratio - kappa) / (1 - kappa)).clamp(clamp, 1 - clamp).logit()


def from_gamma(gamma: Tensor, kappa: float) -> Tensor:
    """λ = κ + (1 - κ)σ(γ), line 7 of Algorithm 6."""
    return kappa + (1 - kappa) * gamma.sigmoid()
