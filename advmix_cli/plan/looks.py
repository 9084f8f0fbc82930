"""How long evaluations look at an image, whatever they look for."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advmix_cli.data.images import Images, to_unit
from advmix_cli.evaluation.halves import as_it_fits
from advmix_cli.evaluation.predict import measured
from advmix_cli.evaluation.subject import Logits, Looking, Subject
from advmix_cli.plan.timing import median_seconds


def seconds_a_pass(network: nn.Module, images: Images, place: torch.device, looking: Looking = nullcontext) -> float:
    """Of one of `images`, all of which are looked at together, eagerly and in the arithmetic of the evaluators, whose
    attacks are within `looking`: a forward pass, or half of a forward pass with its gradient in the image, whichever
    takes longer.

    Where the memory does not hold them all they go in halves of halves, as they do in an evaluation.
    """

    def timed(subject: Subject) -> tuple[float, float]:
        forward, gradient = _works(subject.attacked, to_unit(images.pixels), images.labels)
        return median_seconds(forward, place), median_seconds(gradient, place)

    with measured(network), looking():
        forward, gradient = as_it_fits(Subject.plain(network), len(images), timed, lambda _: None)
    return max(forward, gradient / 2) / len(images)


def _works(logits: Logits, x: Tensor, labels: Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """A forward pass, and one with its gradient in the images."""

    def forward() -> object:
        with torch.no_grad():
            return logits(x)

    def gradient() -> object:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(logits(leaf), labels, reduction="sum"), leaf)

    return forward, gradient
