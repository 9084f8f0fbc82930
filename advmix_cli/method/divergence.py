"""d(f(x), y): how far the prediction is from a soft label."""

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-Σ_k y_k log softmax(f)_k for each image: (B, K), (B, K) -> (B,)."""
    return -(target * logits.log_softmax(dim=1)).sum(dim=1)


def kl(logits: Tensor, target: Tensor) -> Tensor:
    """KL(y || softmax f) for each image: (B, K), (B, K) -> (B,), with a finite gradient in both arguments.

    The cross-entropy minus the entropy of the label. For a fixed label the two have the same gradient; for a label
    that is itself optimised (learned λ, geometric labels) they do not. `torch.nn.functional.kl_div` has the gradient
    NaN at every zero of the target, so y log y is written with its logarithm clamped.
    """
    log_target = target.clamp_min(torch.finfo(target.dtype).tiny).log()
    return (target * log_target).sum(dim=1) + cross_entropy(logits, target)
