"""δ, and how far the threat lets it go: to ±ε, and no farther than the image stays in [0, 1]."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from advmix_cli.method.ascent import Variable
from advmix_cli.method.maximizers import Attack, AttackThenMix, Integrated, MixThenAttack
from advmix_cli.probing.climb import Climb

ROUNDING = 1e-6
"""Of ε in float32."""


class Perturbation(NamedTuple):
    """δ and its bounds, all of one shape (N, C, H, W)."""

    delta: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, variable: Variable) -> "Perturbation":
        """The bounds are what the projection makes of infinities."""
        low, high = (
            variable.project(torch.full_like(variable.value, value)).expand_as(variable.value)
            for value in (-math.inf, math.inf)
        )
        return cls(variable.value, low, high)

    def at(self, indices: Tensor) -> "Perturbation":
        """That of other images."""
        return Perturbation(*(value[indices] for value in self))

    def at_epsilon(self, epsilon: float) -> Tensor:
        """(N, C, H, W) bool: as far as the threat allows."""
        return self.delta.abs() >= epsilon * (1 - ROUNDING)

    def at_image_bound(self, epsilon: float) -> Tensor:
        """(N, C, H, W) bool: held before ±ε, by [0, 1]."""
        held = (self.delta <= self.low) | (self.delta >= self.high)
        return held & ~self.at_epsilon(epsilon)

    @property
    def free(self) -> Tensor:
        """(N, C, H, W) bool: the threat leaves both directions open, and δ has taken one."""
        return (self.low < 0) & (self.high > 0) & (self.delta != 0)


def everywhere(climb: Climb, look: int = -1) -> Perturbation | None:
    """All of δ, (B, ...) or (2B, ...), at a place of the path: by default after the last step."""
    return Perturbation.of(climb.seen[look][0]) if climb.seen else None


def roles(climb: Climb) -> tuple[Perturbation | None, Perturbation | None]:
    """The final δ of x_i and of x_j, (B, ...) each; None for a role that has none. The one of Algorithm 2 is the
    mixture's."""
    final, partner = everywhere(climb), climb.draws.permutation
    if final is None:
        return None, None
    match climb.maximizer:
        case Integrated(delta="independent"):
            left, right = zip(*(value.chunk(2) for value in final), strict=True)
            return Perturbation(*left), Perturbation(*right)
        case Integrated() | AttackThenMix():
            return final, final.at(partner)
        case Attack() | MixThenAttack():
            return final, None
        case _:
            raise AssertionError(f"δ of nothing: {climb.maximizer}")
