"""The inner loop of Algorithm 1: projected gradient ascent. It knows nothing of images, labels or networks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

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


class Step(Protocol):
    """`ascent_step`, or a compiled form of it."""

    def __call__(
        self, objective: Callable[..., Tensor], variables: Sequence[Variable]
    ) -> tuple[list[Tensor], Tensor]: ...


def ascent_step(objective: Callable[..., Tensor], variables: Sequence[Variable]) -> tuple[list[Tensor], Tensor]:
    """One simultaneous step in all variables, whose values are leaves that require a gradient.

    Returns the next values and the objective (N,) at the old ones, all detached. A pure function of tensors, with
    nothing that would break a compiled graph: the gradient is taken inside, for the leaves alone.

    The objective's sum is differentiated, not its mean: the sign is the same, and 1/N cannot underflow.
    """
    leaves = [variable.value for variable in variables]
    with torch.enable_grad():
        reached = objective(*leaves)
        gradients = torch.autograd.grad(reached.sum(), leaves)
    with torch.no_grad():
        moved = [
            variable.project(variable.value + variable.step_size * variable.direction(gradient))
            for variable, gradient in zip(variables, gradients, strict=True)
        ]
    return moved, reached.detach()


def ascend(
    objective: Callable[..., Tensor], variables: Sequence[Variable], steps: int, step: Step = ascent_step
) -> tuple[list[Tensor], list[Tensor]]:
    """Maximise `objective(*values)`, (N,) one number an image, by `steps` simultaneous steps in all variables.

    Returns the final values, projected and detached, and the objective at each of the `steps` gradients, detached: at
    the projected start, after one step, ... A step costs one forward and one input gradient, and leaves `.grad` of
    everything else untouched.
    """
    values = [variable.project(variable.value.detach()) for variable in variables]
    path: list[Tensor] = []
    for _ in range(steps):
        leaves = [
            replace(variable, value=value.detach().requires_grad_())
            for variable, value in zip(variables, values, strict=True)
        ]
        values, reached = step(objective, leaves)
        path.append(reached)
    return values, path


def box(epsilon: float, around: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """The projection of δ to |δ| <= ε; with `around`, an image in [0, 1], also to 0 <= around + δ <= 1 (in float32 too:
    around + (1 - around) rounds to 1, never above)."""
    if around is None:
        return lambda delta: delta.clamp(-epsilon, epsilon)
    low, high = (-around).clamp_min(-epsilon), (1 - around).clamp_max(epsilon)
    return lambda delta: delta.clamp(low, high)
