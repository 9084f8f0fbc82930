"""The verdict of a network on images, and the checks without which it could be a fault that looks like a result."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from advmix_cli.errors import EvaluationError


@contextmanager
def measured(network: nn.Module) -> Iterator[None]:
    """Within: eval mode, full fp32 (no TF32 convolutions), no gradients of the parameters; afterwards all is as before,
    torch's global generators too.

    Raises EvaluationError for non-finite weights: the arg max of NaN is class 0, which looks like a prediction.
    """
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise EvaluationError(f"the network's {name} holds non-finite numbers; there is nothing to measure")
    was_training = network.training
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    network.eval()
    network.requires_grad_(False)
    devices = [parameter.device for parameter in network.parameters() if parameter.is_cuda][:1]
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
        network.train(was_training)
        for parameter, want in zip(network.parameters(), wanted, strict=True):
            parameter.requires_grad_(want)


@torch.no_grad()
def is_correct(network: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor) -> Tensor:
    """(B, C, H, W), (B,) -> (B,) bool. EvaluationError for images outside [0, 1] and for non-finite logits."""
    if len(x) and not bool((x >= 0).all() & (x <= 1).all()):
        raise EvaluationError("an image to be judged is outside [0, 1]")
    return FiniteLogits(network)(x).argmax(dim=1) == labels


class FiniteLogits(nn.Module):
    """`network`, but with an EvaluationError for non-finite logits, and for non-finite gradients in the images, for
    code that would take them for numbers: the sign of NaN is 0, and an attack that cannot see stands still."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            # The gradient of a view is looked at once, and an attack's own tensor keeps no hook.
            x = x.view_as(x)
            x.register_hook(_raise_if_not_finite)
        logits = self.network(x)
        if not logits.isfinite().all():
            raise EvaluationError("the network's logits are not finite; their arg max would look like a prediction")
        return logits


def _raise_if_not_finite(gradient: Tensor) -> None:
    if not gradient.isfinite().all():
        raise EvaluationError("the network's input gradient is not finite, so an attack by gradients is blind")
