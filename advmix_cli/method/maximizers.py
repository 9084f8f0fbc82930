"""The inner maximizers: (network, x, y, draws) -> the batch to train on. See the package for what derives from what."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, assert_never

import torch
from torch import Tensor

from advmix_cli.method import labels, ratio
from advmix_cli.method.ascent import Step, Variable, ascend, ascent_step, box
from advmix_cli.method.draws import Draws
from advmix_cli.method.mixing import Mixture, interpolate, mix

Asked = Tensor | Mixture
"""What a network is asked: images (B, C, H, W), or pairs of them to mix within."""
Network = Callable[[Asked], Tensor]
"""To logits (B, K)."""
Divergence = Callable[[Tensor, Tensor], Tensor]


class Maximized(NamedTuple):
    """What a maximizer found, all detached.

    `x`, `y`: the batch to train on, images (B, C, H, W), or pairs where the network mixes, and (B, K). `x_pristine`,
    `y_pristine`: the same mixture without its perturbation. `ratio`: λ_x, (B,) or (1,). `path`: the objective (B,) at
    each gradient of the ascent.
    """

    x: Asked
    y: Tensor
    x_pristine: Asked
    y_pristine: Tensor
    ratio: Tensor
    path: list[Tensor]


class Maximizer(Protocol):
    """A pure function of its arguments; a frozen dataclass, whose repr is the experiment."""

    def __call__(self, network: Network, x: Tensor, y: Tensor, draws: Draws) -> Maximized: ...


def prediction(network: Network, x: Asked) -> Tensor:
    """softmax f(x), (B, K), detached. Not under `no_grad`: autocast keeps the weights that it casts, and some versions
    of torch then give them no gradient in the passes that follow (pytorch/pytorch#158232)."""
    return network(x).softmax(dim=1).detach()


@dataclass(frozen=True)
class Pgd:
    """The adversary's means: `epsilon` and `step_size` in pixel units, `steps`, whether images stay in [0, 1].

    Its objective is the `divergence` from the label; or, where there is a `reference`, as in TRADES, from what that
    says of the pristine images: `prediction`, or a compiled form of it. `step` is `ascent_step`, or a compiled form of
    it."""

    epsilon: float
    step_size: float
    steps: int
    clamp: bool
    divergence: Divergence
    step: Step = ascent_step
    reference: Callable[[Network, Asked], Tensor] | None = None

    def delta(self, x: Tensor, noise: Tensor) -> Variable:
        """δ around the images `x`, started from `noise` in units of ε; both (N, C, H, W)."""
        return Variable(self.epsilon * noise, self.step_size, box(self.epsilon, around=x if self.clamp else None))

    def ascend(
        self, objective: Callable[..., Tensor], variables: Sequence[Variable]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The inner loop: the final values, and the objective at each gradient."""
        return ascend(objective, variables, self.steps, self.step)

    def target(self, network: Network, pristine: Asked) -> Callable[[Tensor], Tensor]:
        """The label (B, K) -> what the adversary moves the network's prediction away from."""
        if self.reference is None:
            return lambda label: label
        own = self.reference(network, pristine)
        return lambda _: own

    def attack(self, network: Network, x: Tensor, y: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Algorithm 1's inner loop on the images `x`: x + δ, and the objective at each gradient."""
        target = self.target(network, x)(y)

        def objective(delta: Tensor) -> Tensor:
            return self.divergence(network(x + delta), target)

        (delta,), path = self.ascend(objective, [self.delta(x, noise)])
        return x + delta, path


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
        attacked, path = self.pgd.attack(network, x, y, draws.noise)
        return Maximized(attacked, y, x, y, draws.ratio, path)


@dataclass(frozen=True)
class MixThenAttack:
    """Algorithm 2: the attack on the mixture."""

    pgd: Pgd

    def __call__(self, network: Network, x: Tensor, y: Tensor, draws: Draws) -> Maximized:
        lam = draws.ratio.to(x.dtype)
        x_m, y_m = (interpolate(value, value[draws.permutation], lam) for value in (x, y))
        return Attack(self.pgd)(network, x_m, y_m, draws)


@dataclass(frozen=True)
class AttackThenMix:
    """Algorithm 3: the mixture of the attacked; x'_j is x'_i of another image, so one attack of size B serves both.

    `stages` of the network come before the mixture; the attack is on images that are not mixed.
    """

    pgd: Pgd
    stages: int = 0

    def __call__(self, network: Network, x: Tensor, y: Tensor, draws: Draws) -> Maximized:
        attacked, path = self.pgd.attack(network, x, y, draws.noise)
        lam, j = draws.ratio.to(x.dtype), draws.permutation
        y_m = interpolate(y, y[j], lam)
        x_m, x_pristine = (mix(value, value[j], lam, self.stages) for value in (attacked, x))
        return Maximized(x_m, y_m, x_pristine, y_m, draws.ratio, path)


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
    it is independent: the first half belongs to x_i, the second to x_j. `learned` None freezes λ. `stages` of the
    network come before the mixture, and the ascent goes through them. Geometric labels need the mixed images, so no
    stages; a reference, which is asked once, needs a λ that is frozen.
    """

    pgd: Pgd
    delta: Literal["independent", "shared"]
    learned: LearnedRatio | None
    labels: Labels
    stages: int = 0

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

        def mixture(left: Tensor, right: Tensor, lam_x: Tensor) -> tuple[Asked, Tensor]:
            x_m = mix(left, right, lam_x, self.stages)
            match self.labels.kind:
                case "linear":
                    lam_y = lam_x
                case "geometric-clean":
                    assert isinstance(x_m, Tensor)
                    lam_y = labels.geometric(lam_x, x, x_j, x_m)
                case "geometric-perturbed":
                    assert isinstance(x_m, Tensor)
                    lam_y = labels.geometric(lam_x, left, right, x_m)
                case _:
                    assert_never(self.labels.kind)
            return x_m, interpolate(y, y_j, lam_y.detach() if self.labels.detach else lam_y)

        def objective(delta: Tensor, *gamma: Tensor) -> Tensor:
            x_m, y_m = mixture(*endpoints(delta), lam(*gamma))
            return self.pgd.divergence(network(x_m), target(y_m))

        target = self.pgd.target(network, mix(x, x_j, frozen, self.stages))
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
            x_pristine, y_pristine = mix(x, x_j, lam_x, self.stages), interpolate(y, y_j, lam_x)
        return Maximized(x_m, y_m, x_pristine, y_pristine, lam_x, path)
