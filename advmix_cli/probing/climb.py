"""An ascent that is watched: what a maximizer does not say of itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from advmix_cli.errors import EvaluationError
from advmix_cli.method import ratio
from advmix_cli.method.ascent import Variable, ascent_step
from advmix_cli.method.draws import Draws
from advmix_cli.method.maximizers import (
    Attack,
    AttackThenMix,
    Integrated,
    Maximized,
    Maximizer,
    MixThenAttack,
    Pristine,
)
from advmix_cli.networks.batch_norm import batch_norm_mode
from advmix_cli.training.step import Step


@dataclass(frozen=True)
class Climb:
    """What a step's maximizer found on a batch of B images, in K steps.

    `path` holds the objective (B,) K + 1 times: at each gradient, and after the last step. `seen` has the variables at
    the same places: δ, and γ where λ is learned; both are empty if there is no ascent. `reached` (B,) is
    d(f(x'), y') of the batch to train on, as the update's loss has it: with the batch's own statistics.
    """

    maximizer: Maximizer
    draws: Draws
    found: Maximized
    seen: list[list[Variable]]
    reached: Tensor

    @property
    def path(self) -> list[Tensor]:
        """The objective (B,) at each of the K + 1 places."""
        return self.found.path

    @property
    def ratio_before(self) -> Tensor:
        """λ before the first step, (B,) or (1,); `found.ratio` is the one after the last."""
        if isinstance(self.maximizer, Integrated) and self.maximizer.learned:
            return ratio.from_gamma(self.seen[0][1].value, self.maximizer.learned.kappa)
        return self.draws.ratio.to(self.found.y.dtype)


def climb(step: Step, x: Tensor, y: Tensor, draws: Draws) -> Climb:
    """What `step` would train on, and how its maximizer got there. Weights and gradients are left alone.

    The ascent is given one step more, whose gradient is looked at and not followed: the objective after the last step,
    with nothing else changed. EvaluationError where it is not finite.
    """
    seen: list[list[Variable]] = []
    maximizer = _watched(step.maximizer, seen)
    with batch_norm_mode(step.network, step.batch_norm):
        found = maximizer(step.logits, x, y, draws)
    # The running statistics stay: an attack by them on the same network would see a change.
    with torch.no_grad(), batch_norm_mode(step.network, "batch"):
        reached = step.divergence(step.logits(found.x), found.y)
    for number, losses in enumerate([*found.path, reached]):
        if not losses.isfinite().all():
            where = f"after {number} steps" if number < len(found.path) else "of the batch to train on"
            raise EvaluationError(f"the loss {where} is not finite; there is nothing to compare")
    return Climb(maximizer, draws, found, seen, reached)


def _watched(maximizer: Maximizer, seen: list[list[Variable]]) -> Maximizer:
    """The same, with one step more that stands still; what its ascent sees goes to `seen`."""
    match maximizer:
        case Pristine():
            return maximizer
        case Attack() | MixThenAttack() | AttackThenMix() | Integrated():
            steps = maximizer.pgd.steps
        case _:
            raise AssertionError(f"an ascent that is not known here: {maximizer}")

    def look(objective: Callable[..., Tensor], variables: Sequence[Variable]) -> tuple[list[Tensor], Tensor]:
        moved, reached = ascent_step(objective, variables)
        here = [replace(variable, value=variable.value.detach()) for variable in variables]
        seen.append(here)
        return (moved if len(seen) <= steps else [variable.value for variable in here]), reached

    return replace(maximizer, pgd=replace(maximizer.pgd, steps=steps + 1, step=look))
