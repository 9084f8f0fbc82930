"""The checks of the field's evaluation guidelines (Athalye et al., 2018; Carlini et al., 2019; Croce et al., 2022),
each with its number. None of them proves a network robust; each is failed by some way of hiding gradients.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from advmix_cli.data.images import Images, to_unit
from advmix_cli.evaluation.autoattack import AutoAttack
from advmix_cli.evaluation.notebook import Blank
from advmix_cli.evaluation.pgd import Pgd
from advmix_cli.evaluation.predict import judge, judge_all
from advmix_cli.evaluation.subject import Logits, Subject
from advmix_cli.method.ascent import Variable, ascend, box
from advmix_cli.seeding import generator

Tick = Callable[[int, str], None]
LADDER = (10, 20, 50, 100)
"""Steps of PGD."""
SHARES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Of ε, for the curve."""
RESTARTS, NOISES, CONVERGED = 5, 10, 100
A_POINT = 0.01


@dataclass(frozen=True)
class Check:
    """`number` is what was found, `wanted` what it is held against; `passed` is None for what was not tried."""

    name: str
    number: str
    wanted: str
    passed: bool | None
    figures: dict[str, Any]

    @property
    def verdict(self) -> str:
        """For a table."""
        return {True: "PASS", False: "FAIL", None: "not tried"}[self.passed]


@dataclass(frozen=True)
class Battery:
    """The checks of one network on some images; `epsilon` in pixel units. `transfer` is another network, whose
    adversarial images are tried on this one. All noise follows from the seed."""

    subject: Subject
    images: Images
    epsilon: float
    classes: int
    seed: int
    batch_size: int
    transfer: Logits | None
    reported: Mapping[str, Pgd]
    """The PGD that the recipe's accuracies come from, by name."""
    tick: Tick

    def __call__(self) -> Iterator[Check]:
        """One after the other. Where the gradients are not finite no attack can look, and nothing else is tried."""
        gradients = self._gradients()
        yield gradients
        if gradients.figures["non_finite"]:
            return
        ladder = {steps: self._accuracy(steps=steps) for steps in LADDER}
        yield self._more_steps(ladder)
        yield self._reported(ladder[LADDER[-1]])
        yield self._converged()
        yield self._noise(ladder[20])
        yield self._restarts(ladder[20])
        yield self._square()
        yield self._everything()
        yield self._curve(ladder[20])
        yield self._transferred(ladder[20])

    @property
    def _slack(self) -> float:
        """A point, and at least one image: what is no more than that says nothing."""
        return max(A_POINT, 1 / len(self.images)) + 1e-9

    def _said(self, times: int = 1) -> str:
        """So many times the slack, in points."""
        points = 100 * times * self._slack
        return f"{points:.3g} point{'' if round(points, 3) == 1 else 's'}"

    def _pgd(self, **changes: Any) -> Pgd:
        whole = Pgd(self.epsilon, self.epsilon / 4, 20, 1, "uniform", "cross-entropy", self.seed, self.batch_size)
        return replace(whole, **changes)

    def _robust(self, pgd: Pgd) -> Tensor:
        self.tick(0, f"PGD, {pgd.steps} steps, {pgd.restarts} restarts, ε {pgd.epsilon:.3f}")
        return pgd(self.subject, self.images, lambda _done, _note: None, Blank()).robust

    def _accuracy(self, **changes: Any) -> float:
        return float(self._robust(self._pgd(**changes)).double().mean())

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Indices, images in [0, 1], labels."""
        for indices in torch.arange(len(self.images), device=self.images.labels.device).split(self.batch_size):
            own = self.images.at(indices)
            yield indices, to_unit(own.pixels), own.labels

    def _gradients(self) -> Check:
        """Of the cross-entropy in the images, at a random point of the ball: flat is what is hidden."""
        start = self._pgd().noise(self.images.pixels.shape, 0)
        flat = broken = 0
        for indices, x, labels in self._batches():
            moved = (x + self.epsilon * start[indices.to(start.device)].to(x.device)).clamp(0, 1).requires_grad_()
            with torch.enable_grad():
                loss = F.cross_entropy(self.subject.judge(moved), labels, reduction="sum")
                (slope,) = torch.autograd.grad(loss, moved)
            broken += int((~slope.isfinite().flatten(1).all(dim=1)).sum())
            flat += int((slope.flatten(1) == 0).all(dim=1).sum())
        n = len(self.images)
        number = f"{100 * flat / n:.1f} % zero, {100 * broken / n:.1f} % not finite"
        found = {"zero": flat / n, "non_finite": broken / n}
        return Check(
            "input gradients", number, "at most 1 % zero, all finite", flat <= A_POINT * n and not broken, found
        )

    def _more_steps(self, ladder: dict[int, float]) -> Check:
        found = list(ladder.values())
        gain = max(more - less for less, more in pairwise(found))
        number = ", ".join(f"{100 * accuracy:.1f}" for accuracy in ladder.values()) + " %"
        figures = {f"steps_{steps}": accuracy for steps, accuracy in ladder.items()}
        return Check(
            "more steps of PGD: 10, 20, 50, 100", number, f"no rise above {self._said()}", gain <= self._slack, figures
        )

    def _reported(self, longest: float) -> Check:
        """A PGD whose steps are too short reports too much."""
        name, wanted = "the recipe's own PGD", f"no more than {self._said(2)} above PGD{LADDER[-1]} of ε/4"
        if not self.reported:
            return Check(name, "it has none of this ε", wanted, None, {})
        found = {name: float(self._robust(pgd).double().mean()) for name, pgd in self.reported.items()}
        number = ", ".join(f"{name} {100 * accuracy:.1f} %" for name, accuracy in found.items())
        passed = max(found.values()) <= longest + 2 * self._slack
        return Check(name, f"{number}; {100 * longest:.1f} %", wanted, passed, {**found, "longest": longest})

    def _converged(self) -> Check:
        """The mean loss at half of the steps, against that at the end."""
        start, sums = self._pgd().noise(self.images.pixels.shape, 0), torch.zeros(3, dtype=torch.float64)
        for indices, x, labels in self._batches():

            def objective(delta: Tensor, x: Tensor = x, labels: Tensor = labels) -> Tensor:
                return F.cross_entropy(self.subject.attacked(x + delta), labels, reduction="none")

            noise = self.epsilon * start[indices.to(start.device)].to(x.device)
            variable = Variable(noise, self.epsilon / 4, box(self.epsilon, around=x))
            with self.subject.looking():
                _, path = ascend(objective, [variable], CONVERGED + 1)
            sums += torch.stack([path[at].double().sum() for at in (0, CONVERGED // 2, CONVERGED)]).cpu()
        first, half, last = (sums / len(self.images)).tolist()
        rising = (last - half) / (last - first) if last > first else float("nan")
        number = f"{first:.2f} -> {half:.2f} -> {last:.2f}"
        figures = {"loss_0": first, "loss_50": half, "loss_100": last}
        wanted = "rises, nine tenths of it by step 50"
        return Check("the loss after 0, 50, 100 steps", number, wanted, rising <= 0.1, figures)

    def _noise(self, attacked: float) -> Check:
        """The worst of several draws for each image."""
        right = judge_all(self.subject.judge, self.images, self.batch_size).correct
        for draw in range(NOISES):
            drawn = generator("cpu", self.seed, "diagnosis noise", draw)
            noise = torch.empty(self.images.pixels.shape).uniform_(-1, 1, generator=drawn)
            for indices, x, labels in self._batches():
                moved = (x + self.epsilon * noise[indices.cpu()].to(x.device)).clamp(0, 1)
                right[indices] &= judge(self.subject.judge, moved, labels).correct
        accuracy = float(right.double().mean())
        number = f"{100 * attacked:.1f}, {100 * accuracy:.1f} %"
        figures = {"pgd": attacked, "noise": accuracy}
        wanted = f"no weaker than {NOISES} random points"
        return Check("PGD20, and random noise", number, wanted, attacked <= accuracy + self._slack, figures)

    def _restarts(self, single: float) -> Check:
        several = self._accuracy(restarts=RESTARTS)
        number = f"{100 * single:.1f}, {100 * several:.1f} %"
        figures = {"restarts_1": single, f"restarts_{RESTARTS}": several}
        most = max(5 * A_POINT, 1 / len(self.images)) + 1e-9
        passed, wanted = single - several <= most, f"at most {100 * most:.3g} points"
        return Check(f"PGD20 with 1 start, and with {RESTARTS}", number, wanted, passed, figures)

    def _square(self) -> Check:
        """What stands after AutoAttack's attacks by gradients is attacked without any."""
        attack = AutoAttack("cheap-2020", self.epsilon, self.seed, self.batch_size)
        broken = attack(self.subject, self.images, lambda _done, note: self.tick(0, note), Blank()).broken()
        found, n = broken["square"], len(self.images)
        return Check(
            name="Square, after attacks by gradients",
            number=f"{found} of {n} images",
            wanted=f"at most {max(1, int(A_POINT * n)):,} of {n:,} images",
            passed=found <= max(1, A_POINT * n),
            figures={name: count / n for name, count in broken.items()},
        )

    def _everything(self) -> Check:
        accuracy = self._accuracy(epsilon=1.0, step_size=0.1, steps=100)
        wanted = f"below chance, {100 / self.classes:.1f} %"
        figures = {"accuracy": accuracy}
        return Check("ε = 1", f"{100 * accuracy:.1f} %", wanted, accuracy < 1 / self.classes, figures)

    def _curve(self, own: float) -> Check:
        clean = float(judge_all(self.subject.judge, self.images, self.batch_size).correct.double().mean())
        curve = {0.0: clean}
        for share in SHARES:
            epsilon = share * self.epsilon
            if epsilon <= 1:
                curve[epsilon] = own if share == 1 else self._accuracy(epsilon=epsilon, step_size=epsilon / 4)
        values = list(curve.values())
        rise = max((more - less for less, more in pairwise(values)), default=0.0)
        number = ", ".join(f"{100 * accuracy:.0f}" for accuracy in values)
        figures = {"curve": [{"epsilon": epsilon, "accuracy": accuracy} for epsilon, accuracy in curve.items()]}
        return Check("a larger ε", f"{number} %", f"no rise above {self._said()}", rise <= self._slack, figures)

    def _transferred(self, own: float) -> Check:
        """All images as the other network is attacked with them, also those that it gets wrong as they are."""
        name, wanted = "images made for another network", "no accuracy below its own"
        if self.transfer is None:
            return Check(name, "name one with --transfer", wanted, None, {})
        pgd = self._pgd()
        self.tick(0, f"PGD on the other network, {pgd.steps} steps")
        start = pgd.noise(self.images.pixels.shape, 0)
        right = torch.empty(len(self.images), dtype=torch.bool)
        for indices, x, labels in self._batches():
            noise = self.epsilon * start[indices.to(start.device)].to(x.device)
            made = pgd.attack(self.transfer, x, labels, noise)
            both = [judge(self.subject.judge, point, labels).correct for point in (x, made)]
            right[indices.cpu()] = (both[0] & both[1]).cpu()
        accuracy = float(right.double().mean())
        number = f"{100 * accuracy:.1f} %, its own {100 * own:.1f} %"
        return Check(name, number, wanted, accuracy >= own - self._slack, {"transfer": accuracy, "white_box": own})
