"""AutoAttack (Croce and Hein, 2020) through pyautoattack, with the conditions that it does not check itself.

"cheap-2020" was removed upstream in August 2020: untargeted APGD-CE, APGD-DLR, FAB and Square, one restart each, 100
iterations, Square with 1,000 queries and its schedule not rescaled. The other versions are upstream's own.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import Any, Literal

import torch
from torch import Tensor, nn

from advmix_cli.data.images import Images, to_unit
from advmix_cli.errors import EvaluationError
from advmix_cli.evaluation.notebook import Notebook, named
from advmix_cli.evaluation.outcome import Tick
from advmix_cli.evaluation.predict import FiniteLogits, judge, judge_all
from advmix_cli.evaluation.subject import Subject
from advmix_cli.evaluation.verdicts import NOTHING, SLACK, Finding, Tally, Verdicts

Version = Literal["standard", "cheap-2020", "plus", "rand"]
ATTACKS: dict[Version, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "cheap-2020": ("apgd-ce", "apgd-dlr", "fab", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
# The DLR loss divides by a difference of the third-largest logit, its targeted form also uses the fourth.
FEWEST_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}


@dataclass(frozen=True)
class AutoAttack:
    """`epsilon` in pixel units. The result depends on `seed` and `batch_size`: upstream reseeds for every batch."""

    version: Version
    epsilon: float
    seed: int
    batch_size: int

    def settings(self, classes: int) -> dict[str, Any]:
        attacks = self._attacks(classes)
        left_out = [attack for attack in ATTACKS[self.version] if attack not in attacks]
        return {
            "norm": "linf",
            "epsilon": self.epsilon,
            "version": self.version,
            "attacks": attacks,
            **({"left out": left_out} if left_out else {}),
            "iterations": 100,
            "restarts": 5 if self.version == "plus" else 1,
            **({"of these with one restart": ["square", "apgd-t", "fab-t"]} if self.version == "plus" else {}),
            **({"eot_iterations": 20} if self.version == "rand" else {}),
            **({"target_classes": min(9, classes - 1)} if {"apgd-t", "fab-t"} & set(attacks) else {}),
            **({"queries": 1000 if self.version == "cheap-2020" else 5000} if "square" in attacks else {}),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "library": f"pyautoattack {installed_version('pyautoattack')}",
        }

    def _attacks(self, classes: int) -> list[str]:
        return [attack for attack in ATTACKS[self.version] if classes >= FEWEST_CLASSES.get(attack, 2)]

    def adversary(self, network: nn.Module, classes: int, device: torch.device) -> Any:
        """The configured `pyautoattack.AutoAttack`."""
        from pyautoattack import AutoAttack as Upstream

        own = None if self.version == "cheap-2020" else self.version
        upstream = Upstream(
            network,
            norm="Linf",
            eps=self.epsilon,
            seed=self.seed,
            version=own or "custom",
            attacks=None if own else [],
            device=device,
        )
        if own is None:
            upstream.apgd.n_restarts = upstream.fab.n_restarts = 1
            upstream.square.n_queries = 1000
        upstream.attacks_to_run = self._attacks(classes)
        upstream.apgd_targeted.n_target_classes = upstream.fab.n_target_classes = min(9, classes - 1)
        return upstream

    def passes(self, classes: int) -> int:
        """APGD: 100 gradients for each target. FAB: 100 gradients of a difference of two logits and 100 looks for each
        target, or of all logits at once. Square: its queries."""
        targets = min(9, classes - 1)
        each = {
            "apgd-ce": 200 * (20 if self.version == "rand" else 1),
            "apgd-dlr": 200 * (20 if self.version == "rand" else 1),
            "apgd-t": 200 * targets,
            "fab": 100 * (classes + 2),
            "fab-t": 300 * targets,
            "square": 1000 if self.version == "cheap-2020" else 5000,
        }
        restarts = {
            name: 5 if self.version == "plus" and name in ("apgd-ce", "apgd-dlr", "fab") else 1 for name in each
        }
        return sum(restarts[name] * each[name] for name in self._attacks(classes))

    def __call__(self, subject: Subject, images: Images, tick: Tick, notes: Notebook) -> Verdicts:
        tally, told = self._withstand(subject, images, tick, notes)
        if subject.attacked is not subject.judge:
            # What the faster network gives up and the judge does not was not attacked to the end: the judge itself is.
            disputed = ((tally.verdicts.broken_by != NOTHING) & told).nonzero().squeeze(1)
            if len(disputed):
                tick(0, f"{len(disputed)} disputed")
                judged = _Prefixed(notes, f"disputed {named(disputed)}: ")  # within them batches count anew
                alone = Subject.plain(subject.judge)
                again, _ = self._withstand(alone, images.at(disputed), tick, judged)
                tally.replace(disputed, again.verdicts)
        tick(len(images), "")
        return tally.verdicts

    def _withstand(self, subject: Subject, images: Images, tick: Tick, notes: Notebook) -> tuple[Tally, Tensor]:
        """Upstream's own way through the attacks and the batches, each batch of what still stands when its attack
        begins; upstream itself is called for one attack on one batch, which is then noted. With (N,) bool: what the
        judge says of the image that upstream returned last."""
        from pyautoattack.checks import check_square_sr

        x, labels = to_unit(images.pixels), images.labels.long()
        with torch.no_grad():
            classes = subject.judge(x[:1]).shape[1]
        upstream = self.adversary(FiniteLogits(subject.attacked), classes, x.device)
        attacks, accuracies = upstream.attacks_to_run, {"clean": 1.0}
        clean = judge_all(subject.judge, images, self.batch_size)
        tally, told = Tally(attacks, clean, x if notes.images else None), clean.correct.clone()
        who = "" if subject.attacked is subject.judge else f"{subject.engine}, "
        with _listening() as log:
            for index, attack in enumerate(attacks):
                upstream.attacks_to_run = [attack]
                batches = tally.standing().split(self.batch_size)
                for number, batch in enumerate(batches, 1):
                    if not len(batch):
                        continue
                    standing = 100 * float(tally.verdicts.robust.double().mean())
                    tick(0, f"{attack} {number}/{len(batches)}, {standing:.1f} % standing")

                    def attacked(batch: Tensor = batch) -> Finding:
                        one = self._averaged if self.version == "rand" else self._attacked
                        return one(upstream, subject, x[batch], labels[batch])

                    key = f"{who}{attack}, batch {number}: {named(batch)}"
                    finding = notes.once(key, (len(batch), *x.shape[1:]), attacked)
                    tally.enter(index, batch, finding)
                    told[batch] = finding.judgement.correct
                accuracies[attack] = float(tally.verdicts.robust.double().mean())
            check_square_sr(accuracies, logger=log)
        return tally, told

    def _attacked(self, upstream: Any, subject: Subject, x: Tensor, labels: Tensor) -> Finding:
        """What upstream says of its one attack on this batch, and what the judge says of its images."""
        with _own_tracing(), subject.looking():
            found, predicted = upstream.run_standard_evaluation(x, labels, batch_size=self.batch_size)
        _check(x, found, self.epsilon)
        # Upstream returns no accuracy; what it left standing is what it returns the own label for.
        return Finding(predicted == labels, judge(subject.judge, found, labels), found)

    def _averaged(self, upstream: Any, subject: Subject, x: Tensor, labels: Tensor) -> Finding:
        """The same of an attack that averages. Called as above, upstream would first ask a random network anew which
        images are right as they are, and count the others as broken."""
        (attack,) = upstream.attacks_to_run
        upstream.apgd.loss, upstream.apgd.seed = attack.removeprefix("apgd-"), self.seed
        with subject.looking():
            found = upstream.apgd.perturb(x, labels)
        _check(x, found, self.epsilon)
        judgement = judge(subject.judge, found, labels)
        return Finding(judgement.correct, judgement, found)


class _Prefixed:
    """Notes under names of their own."""

    def __init__(self, notes: Notebook, prefix: str) -> None:
        self._notes = notes
        self._prefix = prefix

    @property
    def images(self) -> bool:
        return self._notes.images

    @property
    def recalled(self) -> float:
        return self._notes.recalled

    def once(self, key: str, shape: Sequence[int], look: Callable[[], Finding]) -> Finding:
        return self._notes.once(self._prefix + key, shape, look)


def _check(x: Tensor, found: Tensor, epsilon: float) -> None:
    """EvaluationError unless every returned image is finite, in [0, 1], and within ε (but for rounding)."""
    if not found.isfinite().all() or bool((found < 0).any() | (found > 1).any()):
        raise EvaluationError("AutoAttack returned an image outside [0, 1]")
    largest = (found - x).abs().max().item()
    if largest > epsilon + SLACK:
        raise EvaluationError(f"AutoAttack returned a perturbation of {largest:.6f}, above ε = {epsilon:.6f}")


@contextmanager
def _listening() -> Iterator[logging.Logger]:
    """Upstream's log; its warnings (a randomized or masking model) go to our own log, each of them once."""
    ours = logging.getLogger("advmix")
    seen: set[str] = set()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.funcName == "check_n_classes":
                return  # the attacks here are those that so many classes allow
            message = record.getMessage()
            if message not in seen:
                seen.add(message)
                ours.warning("AutoAttack: %s", message)

    theirs = logging.getLogger("auto-attack")
    before = theirs.level, theirs.propagate
    listener = Listener(logging.WARNING)
    theirs.addHandler(listener)
    theirs.setLevel(logging.WARNING)
    theirs.propagate = False
    try:
        yield theirs
    finally:
        theirs.removeHandler(listener)
        theirs.setLevel(before[0])
        theirs.propagate = before[1]


@contextmanager
def _own_tracing() -> Iterator[None]:
    """Upstream's check for dynamic defenses ends with sys.settrace(None), whoever was tracing."""
    tracer = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(tracer)
