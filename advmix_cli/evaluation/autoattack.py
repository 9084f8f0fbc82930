"""AutoAttack (Croce and Hein, 2020) through pyautoattack, with the conditions that it does not check itself.

"cheap-2020" was removed upstream in August 2020: untargeted APGD-CE, APGD-DLR, FAB and Square, one restart each, 100
iterations, Square with 1,000 queries and its schedule not rescaled. The other versions are upstream's own.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from advmix_cli.data.images import Images, to_unit
from advmix_cli.errors import EvaluationError
from advmix_cli.evaluation.outcome import Tick
from advmix_cli.evaluation.predict import FiniteLogits, is_correct
from advmix_cli.evaluation.subject import Logits, Subject

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

    def __call__(self, subject: Subject, images: Images, tick: Tick) -> Tensor:
        x, labels = to_unit(images.pixels), images.labels.long()
        standing = torch.cat(
            [
                is_correct(subject.judge, batch, own)
                for batch, own in zip(x.split(self.batch_size), labels.split(self.batch_size), strict=True)
            ]
        )
        robust = self._withstand(subject.attacked, subject.judge, x, labels, tick)
        if subject.attacked is not subject.judge:
            # What the faster network gives up and the judge does not was not attacked to the end: the judge itself is.
            disputed = (~robust.by_upstream & robust.by_judge & standing).nonzero().squeeze(1)
            if len(disputed):
                tick(0, f"{len(disputed)} disputed")
                again = self._withstand(subject.judge, subject.judge, x[disputed], labels[disputed], tick)
                robust.by_upstream[disputed] = again.by_upstream
        tick(len(images), "")
        return robust.by_upstream & standing

    def _withstand(self, network: Logits, judge: Logits, x: Tensor, labels: Tensor, tick: Tick) -> "_Robust":
        with torch.no_grad():
            classes = judge(x[:1]).shape[1]
        with _listening(tick), _own_tracing():
            found, predicted = self.adversary(FiniteLogits(network), classes, x.device).run_standard_evaluation(
                x, labels, batch_size=self.batch_size
            )
        _check(x, found, self.epsilon)
        # Upstream returns no accuracy; what it left standing is what it returns the own label for.
        by_judge = torch.cat(
            [
                is_correct(judge, batch, own)
                for batch, own in zip(found.split(self.batch_size), labels.split(self.batch_size), strict=True)
            ]
        )
        return _Robust(predicted == labels, by_judge)


class _Robust(NamedTuple):
    """(N,) bool each: upstream did not break it; the judge is right about the image that upstream returned."""

    by_upstream: Tensor
    by_judge: Tensor


def _check(x: Tensor, found: Tensor, epsilon: float) -> None:
    """EvaluationError unless every returned image is finite, in [0, 1], and within ε (to five float32 ulps of 1)."""
    if not found.isfinite().all() or bool((found < 0).any() | (found > 1).any()):
        raise EvaluationError("AutoAttack returned an image outside [0, 1]")
    largest = (found - x).abs().max().item()
    if largest > epsilon + 6e-7:
        raise EvaluationError(f"AutoAttack returned a perturbation of {largest:.6f}, above ε = {epsilon:.6f}")


@contextmanager
def _listening(tick: Tick) -> Iterator[None]:
    """Upstream's log goes to the progress display, its warnings (a randomized or masking model) to our own log."""
    ours = logging.getLogger("advmix")

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                ours.warning("AutoAttack: %s", record.getMessage())
            else:
                tick(0, record.getMessage())

    theirs = logging.getLogger("auto-attack")
    before = theirs.level, theirs.propagate
    listener = Listener()
    theirs.addHandler(listener)
    theirs.setLevel(logging.DEBUG)
    theirs.propagate = False
    try:
        yield
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
