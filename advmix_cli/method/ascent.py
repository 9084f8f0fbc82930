"""The inner loop of Algorithm 1: projected gradient ascent. It knows nothing of images, labels or networks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def _unprojected(value: Tensor) -> Tensor:
    return value


def sign(gradient: Tensor) -> Tensor:
    """The steepest direction in L_inf. `torch.sign` of NaN is 0: an attack that cannot see would stand still and look
    like one that found nothing. Here what is not finite becomes NaN, and so do δ, the loss, and the verdict."""
    return gradient.sign() + 0 * gradient


@dataclass(frozen=True)
class Variable:
    """What the ascent moves: value <- project(value + step_size * direction(gradient)).

    Another norm than L_inf brings its own direction and projection.
    """

    value: Tensor
    step_size: float
    project: Callable[[Tensor], Tensor] = _unprojected
    direction: Callable[[Tensor], Tensor] = sign


def ascend(
    objective: Callable[..., Tensor], variables: Sequence[Variable], steps: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Maximise `objective(*values)`, (N,) one number an image, by `steps` simultaneous steps in all variables.

    Returns the final values, projected and detached, and the objective at each of the `steps` gradients, detached: at
    the projected start, after one step, ... The gradient is taken for the variables alone, so that a step costs one
    forward and one input gradient, and leaves `.grad` of everything else untouched.

    The objective's sum is differentiated, not its mean: the sign is the same, and 1/N cannot underflow.
    """
    values = [variable.project(variable.value.detach()) for variable in variables]
    path: list[Tensor] = []
    for _ in range(steps):
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in values]
            reached = objective(*leaves)
            gradients = torch.autograd.grad(reached.sum(), leaves)
        path.append(reached.detach())
        values = [
            variable.project(leaf.detach() + variable.step_size * variable.direction(gradient))
            for variable, leaf, gradient in zip(variables, leaves, gradients, strict=True)
        ]
    return values, path


def box(epsilon: float, around: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """The projection of δ to |δ| <= ε; with `around`, an image in [0, 1], also to 0 <= around + δ <= 1 (in float32 too:
    around + (1 - around) rounds to 1, never above)."""
    if around is None:
        return lambda delta: delta.clamp(-epsilon, epsilon)
    low, high = (-around).clamp_min(-epsilon), (1 - around).clamp_max(epsilon)
    return lambda delta: delta.clamp(low, high)
