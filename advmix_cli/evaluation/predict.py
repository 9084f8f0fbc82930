"""The judgement of a network on images, and the checks without which it could be a fault that looks like a result."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from advmix_cli.data.images import Images, to_unit
from advmix_cli.errors import EvaluationError


@contextmanager
def measured(network: nn.Module) -> Iterator[None]:
    """Within: eval mode, full fp32, no gradients of the parameters; afterwards all is as before, torch's global
    generators too.

    Raises EvaluationError for non-finite weights: the arg max of NaN is class 0, which looks like a prediction.
    """
    check_finite(network.state_dict())
    was_training = network.training
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    network.eval()
    network.requires_grad_(False)
    devices = [parameter.device for parameter in network.parameters() if parameter.is_cuda][:1]
    try:
        with _full_fp32(), torch.random.fork_rng(devices):
            yield
    finally:
        network.train(was_training)
        for parameter, want in zip(network.parameters(), wanted, strict=True):
            parameter.requires_grad_(want)


def check_finite(state: Mapping[str, Tensor]) -> None:
    """EvaluationError for weights that are not."""
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise EvaluationError(f"the network's {name} holds non-finite numbers; there is nothing to measure")


@contextmanager
def _full_fp32() -> Iterator[None]:
    """No TF32 and no bf16 in products of fp32, whichever of torch's two ways the code around a network has asked for
    them in. Only the newer way can be read when the two were mixed; only the older one can be read by others within if
    both say the same."""
    mkldnn = cast("Any", torch.backends.mkldnn)
    others: list[Any] = [torch.backends.cuda.matmul, mkldnn.matmul, mkldnn.conv]
    before = [part.fp32_precision for part in others]
    with _convolutions_in("ieee"):
        for part in others:
            part.fp32_precision = "ieee"
        try:
            yield
        finally:
            for part, own in zip(others, before, strict=True):
                part.fp32_precision = own


@contextmanager
def tf32_convolutions() -> Iterator[None]:
    """Within: a GPU's convolutions may round what they multiply to TF32, as torch lets them by default. Compiled code
    asks for this setting when it runs, so what was compiled outside need not be compiled again."""
    with _convolutions_in("tf32"):
        yield


@contextmanager
def _convolutions_in(precision: str) -> Iterator[None]:
    cudnn = cast("Any", torch.backends.cudnn)
    parts = (cudnn.conv, cudnn.rnn)
    before = [part.fp32_precision for part in parts]

    def be(precisions: list[str]) -> None:
        cudnn.allow_tf32 = precisions[0] == "tf32"
        for part, own in zip(parts, precisions, strict=True):
            part.fp32_precision = own

    be([precision, precision])
    try:
        yield
    finally:
        be(before)


class Judgement(NamedTuple):
    """`correct` (B,) bool: the label has the largest logit, the first of several. `margin` (B,) float32: by how much
    its logit is above all others, below 0 if it is not."""

    correct: Tensor
    margin: Tensor


@torch.no_grad()
def judge(network: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor) -> Judgement:
    """(B, C, H, W), (B,) -> a judgement each. EvaluationError for images outside [0, 1] and for non-finite logits."""
    if len(x) and not bool((x >= 0).all() & (x <= 1).all()):
        raise EvaluationError("an image to be judged is outside [0, 1]")
    logits = FiniteLogits(network)(x)
    return Judgement(logits.argmax(dim=1) == labels, -excess(logits, labels).float())


def judge_all(network: Callable[[Tensor], Tensor], images: Images, batch_size: int) -> Judgement:
    """Of all `images` as they are, `batch_size` at a time."""
    batches = zip(images.pixels.split(batch_size), images.labels.split(batch_size), strict=True)
    found = [judge(network, to_unit(pixels), labels) for pixels, labels in batches]
    return Judgement(torch.cat([one.correct for one in found]), torch.cat([one.margin for one in found]))


def excess(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{k != y} f_k - f_y for each image, the loss of Carlini and Wagner: (B, K), (B,) -> (B,)."""
    index = labels[:, None].long()
    own = logits.gather(1, index)
    others = logits.scatter(1, index, -torch.inf)
    return others.amax(dim=1) - own.squeeze(1)


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
