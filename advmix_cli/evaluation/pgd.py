"""PGD-k as the field reports it: signed steps, projected to the ball and to [0, 1], judged at the final iterate.

An image counts if it is right as it is and at every final iterate.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from advmix_cli.data.images import Images, to_unit
from advmix_cli.errors import EvaluationError
from advmix_cli.evaluation.notebook import Notebook, named
from advmix_cli.evaluation.outcome import Tick
from advmix_cli.evaluation.predict import excess, judge, judge_all
from advmix_cli.evaluation.subject import Logits, Subject
from advmix_cli.evaluation.verdicts import SLACK, Finding, Tally, Verdicts
from advmix_cli.method.ascent import Variable, ascend, box
from advmix_cli.seeding import generator


def falls_short(steps: int, step_size: float, epsilon: float) -> bool:
    """Whether so many steps do not lead from an image as it is to the edge of its ball."""
    return steps * step_size < epsilon - SLACK


@dataclass(frozen=True)
class Pgd:
    """`epsilon` and `step_size` in pixel units. An image counts if it withstands every one of the `restarts`.

    The noise of image i depends on the seed, i and the restart alone, not on the size of a batch.
    """

    epsilon: float
    step_size: float
    steps: int
    restarts: int
    init: Literal["uniform", "zero"]
    loss: Literal["cross-entropy", "margin"]
    seed: int
    batch_size: int

    def settings(self, classes: int) -> dict[str, Any]:  # noqa: ARG002
        return {
            "norm": "linf",
            "epsilon": self.epsilon,
            "steps": self.steps,
            "step_size": self.step_size,
            "restarts": self.restarts,
            "init": self.init,
            "loss": self.loss,
            "seed": self.seed,
        }

    def passes(self, classes: int) -> int:  # noqa: ARG002
        return 1 + self.restarts * (2 * self.steps + 1)

    def __call__(self, subject: Subject, images: Images, tick: Tick, notes: Notebook) -> Verdicts:
        clean = judge_all(subject.judge, images, self.batch_size)
        attacks = [f"restart {number + 1}" for number in range(self.restarts)] if self.restarts > 1 else ["pgd"]
        tally = Tally(attacks, clean, to_unit(images.pixels) if notes.images else None)
        tick(int((~clean.correct).sum()), "")
        who = "" if subject.attacked is subject.judge else f"{subject.engine}, "
        for restart in range(self.restarts):
            noise = self.noise(images.pixels.shape, restart)
            for number, batch in enumerate(tally.standing().split(self.batch_size), 1):
                if not len(batch):
                    continue

                def attacked(batch: Tensor = batch, noise: Tensor = noise) -> Finding:
                    x, labels = to_unit(images.pixels[batch]), images.labels[batch]
                    start = self.epsilon * noise[batch.to(noise.device)].to(x.device)
                    with subject.looking():
                        found = self.attack(subject.attacked, x, labels, start)
                    judgement = judge(subject.judge, found, labels)
                    return Finding(judgement.correct, judgement, found)

                key = f"{who}restart {restart + 1}, batch {number}: {named(batch)}"
                finding = notes.once(key, (len(batch), *images.pixels.shape[1:]), attacked)
                tally.enter(restart, batch, finding)
                tick(len(batch) if restart == self.restarts - 1 else int((~finding.stands).sum()), "")
        return tally.verdicts

    def attack(self, network: Logits, x: Tensor, labels: Tensor, start: Tensor) -> Tensor:
        """The final iterate from x + `start`: (B, C, H, W), (B,), (B, C, H, W) -> (B, C, H, W) in [0, 1]."""

        def objective(delta: Tensor) -> Tensor:
            logits = network(x + delta)
            return (
                excess(logits, labels) if self.loss == "margin" else F.cross_entropy(logits, labels, reduction="none")
            )

        (delta,), _ = ascend(objective, [Variable(start, self.step_size, box(self.epsilon, around=x))], self.steps)
        if not delta.isfinite().all():
            raise EvaluationError("the network's input gradient is not finite, so an attack by gradients is blind")
        return x + delta

    def noise(self, shape: torch.Size, restart: int) -> Tensor:
        """In [-1, 1], on the CPU, so that every device starts from the same points."""
        if self.init == "zero":
            return torch.zeros(1).expand(shape)
        return torch.empty(shape).uniform_(-1, 1, generator=generator("cpu", self.seed, "pgd", restart))
