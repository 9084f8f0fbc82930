"""The inner maximizers: (network, x, y, draws) -> the batch to train on. See the package for what derives from what."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from advmix_cli.method import labels, ratio
from advmix_cli.method.ascent import Step, Variable, ascend, ascent_step, box
from advmix_cli.method.draws import Draws
from advmix_cli.method.mixing import interpolate

Network = Callable[[Tensor], Tensor]
Divergence = Callable[[Tensor, Tensor], Tensor]


class Maximized(NamedTuple):
    """What a maximizer found, all detached.

    `x`, `y`: the batch to train on, (B, C, H, W) and (B, K). `x_pristine`, `y_pristine`: the same mixture without its
    perturbation. `ratio`: λ_x, (B,) or (1,). `path`: the objective (B,) at each gradient of the ascent.
    """

    x: Tensor
    y: Tensor
    x_pristine: Tensor
    y_pristine: Tensor
    ratio: Tensor
    path: list[Tensor]


class Maximizer(Protocol):
    """A pure function of its arguments; a frozen dataclass, whose repr is the experiment."""

    def __call__(self, network: Network, x: Tensor, y: Tensor, draws: Draws) -> Maximized: ...


@dataclass(frozen=True)
class Pgd:
    """The adversary's means: `epsilon` and `step_size` in pixel units, `steps`, whether images stay in [0, 1].

    `step` is `ascent_step`, or a compiled form of it."""

    epsilon: float
    step_size: float
    steps: int
    clamp: bool
    divergence: Divergence
    step: Step = ascent_step

    def delta(self, x: Tensor, noise: Tensor) -> Variable:
        """δ around the images `x`, started from `noise` in units of ε; both (N, C, H, W)."""
        return Variable(self.epsilon * noise, self.step_size, box(self.epsilon, around=x if self.clamp else None))

    def ascend(
        self, objective: Callable[..., Tensor], variables: Sequence[Variable]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The inner loop: the final values, and the objective at each gradient."""
        return ascend(objective, variables, self.steps, self.step)


@dataclass(frozen=True)
class Pristine:
    """No maximizer: train on the images as they are."""

    def __call__(self, network: Network, x: Tensor, y: Tensor, draws: Draws) -> Maximized:  # noqa: ARG002
        return Maximized(x, y, x, y, draws.ratio, [])


@dataclass(frozen=True)
class Attack:
    """Algorithm 1."""

    pgd: Pgd

    def __call__(self, network: Network, x: Tensor, y: Tensor, draws: Draws) -> Maximized:
        def objective(delta: Tensor) -> Tensor:
            return self.pgd.divergence(network(x + delta), y)

        (delta,), path = self.pgd.ascend(objective, [self.pgd.delta(x, draws.noise)])
        return Maximized(x + delta, y, x, y, draws.ratio, path)


@dataclass(frozen=True)
class MixThenAttack:
    """Algorithm 2: the attack on the mixture."""

    pgd: Pgd

    def __call__(self, network: Network, x: Tensor, y: Tensor, draws: Draws) -> Maximized:
        return Attack(self.pgd)(network, *_mix(x, y, draws), draws)


@dataclass(frozen=True)
class AttackThenMix:
    """Algorithm 3: the mixture of the attacked; x'_j is x'_i of another image, so one attack of size B serves both."""

    pgd: Pgd

    def __call__(self, network: Network, x: Tensor, y: Tensor, draws: Draws) -> Maximized:
        attacked = Attack(self.pgd)(network, x, y, draws)
        x_mixed, y_mixed = _mix(attacked.x, y, draws)
        x_pristine, _ = _mix(x, y, draws)
        return attacked._replace(x=x_mixed, y=y_mixed, x_pristine=x_pristine, y_pristine=y_mixed)


@dataclass(frozen=True)
class LearnedRatio:
    """Algorithm 6's part of the recipe: κ, the step of γ, and how near to its bounds λ may start."""

    kappa: float
    step_size: float
    logit_clamp: float


@dataclass(frozen=True)
class Labels:
    """Which λ_y: that of the images, or Algorithm 5's from the clean or the perturbed endpoints."""

    kind: Literal["linear", "geometric-clean", "geometric-perturbed"] = "linear"
    detach: bool = False


@dataclass(frozen=True)
class Integrated:
    """Algorithms 4 to 6: the ascent sees the network through the mixture.

    δ is (B, ...) where it is shared by both roles of an image (its gradient is then the sum of both), (2B, ...) where
    it is independent: the first half belongs to x_i, the second to x_j. `learned` None freezes λ.
    """

    pgd: Pgd
    delta: Literal["independent", "shared"]
    learned: LearnedRatio | None
    labels: Labels

    def __call__(self, network: Network, x: Tensor, y: Tensor, draws: Draws) -> Maximized:
        x_j, y_j = x[draws.permutation], y[draws.permutation]
        frozen = draws.ratio.to(x.dtype)

        def endpoints(delta: Tensor) -> tuple[Tensor, Tensor]:
            if self.delta == "shared":
                moved = x + delta
                return moved, moved[draws.permutation]
            left, right = delta.chunk(2)
            return x + left, x_j + right

        def lam(*gamma: Tensor) -> Tensor:
            return ratio.from_gamma(gamma[0], self.learned.kappa) if self.learned else frozen

        def mixture(left: Tensor, right: Tensor, lam_x: Tensor) -> tuple[Tensor, Tensor]:
            x_m = interpolate(left, right, lam_x)
            match self.labels.kind:
                case "linear":
                    lam_y = lam_x
                case "geometric-clean":
                    lam_y = labels.geometric(lam_x, x, x_j, x_m)
                case "geometric-perturbed":
                    lam_y = labels.geometric(lam_x, left, right, x_m)
            return x_m, interpolate(y, y_j, lam_y.detach() if self.labels.detach else lam_y)

        def objective(delta: Tensor, *gamma: Tensor) -> Tensor:
            x_m, y_m = mixture(*endpoints(delta), lam(*gamma))
            return self.pgd.divergence(network(x_m), y_m)

        around = x if self.delta == "shared" else torch.cat([x, x_j])
        variables = [self.pgd.delta(around, draws.noise)]
        if self.learned is not None:
            start = ratio.to_gamma(draws.ratio, self.learned.kappa, self.learned.logit_clamp)
            variables.append(Variable(start.to(x.dtype), self.learned.step_size))
        (delta, *gamma), path = self.pgd.ascend(objective, variables)

        # The paper's last line of Algorithm 4, read as in Algorithms 2 and 3: with the final δ and the final λ.
        with torch.no_grad():
            lam_x = lam(*gamma)
            x_m, y_m = mixture(*endpoints(delta), lam_x)
            x_pristine, y_pristine = interpolate(x, x_j, lam_x), interpolate(y, y_j, lam_x)
        return Maximized(x_m, y_m, x_pristine, y_pristine, lam_x, path)


def _mix(x: Tensor, y: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Mixup of a batch with its own permutation."""
    lam = draws.ratio.to(x.dtype)
    return interpolate(x, x[draws.permutation], lam), interpolate(y, y[draws.permutation], lam)
