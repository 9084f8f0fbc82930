"""What can be wrong with a network of others, found before anything is measured.

What would make a number mean something else than it says is an error. What leaves the number what it is, and may not
be what was meant, is a suspicion: it is said, and stands under the result.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from advmix_cli.data.images import Images, to_unit
from advmix_cli.errors import EvaluationError, ForeignModelError, MemoryExhaustedError, first_line, some
from advmix_cli.memory import is_out_of_memory

LOOKED_AT = 16
"""Images that go through the network together, at most."""
MEANT = 1e-4
"""A difference of logits above this share of their size is meant, and no rounding."""
MANY = 0.1
"""A share of outputs, at a bound, that does not come about by chance."""
RARE = 1e-3
"""Chance has to give as much less often than this."""

Logits = Callable[[Tensor], Tensor]


def suspicions(
    network: Logits, module: nn.Module, images: Images, classes: int, *, attacked: bool, averaged: bool
) -> list[str]:
    """What is suspicious about `network` on `images`: sentences; it is `module`, in eval mode, behind what makes pixels
    what that takes. ForeignModelError where it cannot be measured. `attacked`: something will look for its gradients.
    `averaged`: whatever does, averages over them."""
    training = [name or "itself" for name, part in module.named_modules() if part.training]
    said = [f"it stays in training mode after eval(): {some(training)}"] if training else []
    try:
        return said + _suspicions(network, module, images, classes, attacked=attacked, averaged=averaged)
    except ForeignModelError as error:
        if not said:
            raise
        raise ForeignModelError("; ".join([str(error), *said])) from error


def _suspicions(
    network: Logits, module: nn.Module, images: Images, classes: int, *, attacked: bool, averaged: bool
) -> list[str]:
    x, labels = to_unit(images.pixels[:LOOKED_AT]), images.labels[:LOOKED_AT]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found: list[str] = []
    logits = _logits(network, x, classes)
    after_one = _generators(x)
    # Or one that sets them anew would find them where it sets them to.
    for device in ("cpu", x.device):
        torch.rand((), device=device)
    before_another = _generators(x)
    apart = _apart(_logits(network, x, classes), logits)
    after_another = _generators(x)
    seeds, draws = _between_calls(after_one, before_another, after_another)
    if attacked and seeds:
        raise ForeignModelError(
            "it sets torch's random numbers to the same ones at every call, and attacks draw theirs from there: let it "
            "have a torch.Generator of its own, or keep what it draws in a buffer"
        )
    if apart > MEANT or draws:
        found.append(_random(apart, module, fatal=attacked and not averaged))
    else:
        _raise_if_it_sees_the_batch(network, module, x, logits, classes)
    # What changes them in place may leave those alone that are grey levels.
    _logits(network, 0.999 * x + 0.0003, classes)
    if moved := [name for name, value in module.state_dict().items() if not _is_as(value, before.get(name))]:
        raise ForeignModelError(
            f"it changes its own state in eval mode ({some(moved)}), so that a verdict can depend on those before it"
        )
    if len(x) > 1 and not x.eq(x[:1]).all() and logits.eq(logits[:1]).all():
        raise ForeignModelError(
            f"its logits are the same for {len(x)} different images in [0, 1]: does it take another range "
            "(--input-range 0,255), or round its input, or is its last layer zero, as some untrained ones are?"
        )
    found += _of_the_output(logits)
    if attacked:
        found += _of_the_gradient(network, x, labels)
    return found


def _logits(network: Logits, x: Tensor, classes: int) -> Tensor:
    """(B, C, H, W) -> (B, K), or an error that says what else there is."""
    given = x.clone()
    try:
        with torch.no_grad():
            logits: Any = network(x)
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryExhaustedError(f"out of memory with {len(x)} images") from None
        shape = f"{tuple(x.shape)}, float32, in [0, 1], on {x.device}"
        raise ForeignModelError(f"it fails on images of shape {shape}: {first_line(error)}") from error
    if not x.equal(given):
        raise ForeignModelError("it changes the images that it is given: an operation in its forward is in-place")
    if not isinstance(logits, Tensor):
        raise ForeignModelError(
            f"it returns {_shown(logits)}, and logits are wanted; let a factory of yours wrap it and pick them out"
        )
    if logits.shape != (len(x), classes):
        count = f"{len(x)} images" if len(x) > 1 else "one image"
        hint = "" if logits.ndim != 2 or len(logits) != len(x) else "; many factories take num_classes (--model-args)"
        raise ForeignModelError(
            f"it returns {tuple(logits.shape)} for {count}, and for the data's {classes} classes {(len(x), classes)} "
            f"is wanted{hint}"
        )
    if logits.dtype != torch.float32:
        raise ForeignModelError(
            f"its logits are {_type(logits)}, and an evaluation is float32: rounded logits hide gradients. Take the "
            "cast, or autocast, out of its forward"
        )
    if not logits.isfinite().all():
        many = int((~logits.isfinite().all(dim=1)).sum())
        raise ForeignModelError(f"its logits are not finite for {many} of {len(x)} images")
    return logits.detach()


class _Drawn(NamedTuple):
    """Where the generators of random numbers are that a module may draw from."""

    torch: tuple[bytes, ...]
    others: tuple[Any, ...]


def _generators(x: Tensor) -> _Drawn:
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(x.device)] if x.is_cuda else [])]
    of_numpy = [np.asarray(part).tobytes() for part in np.random.get_state()]
    return _Drawn(tuple(one.numpy().tobytes() for one in states), (random.getstate(), *of_numpy))


def _between_calls(after_one: _Drawn, before: _Drawn, after: _Drawn) -> tuple[bool, bool]:
    """Whether a call sets one of torch's generators to where it was after another call, though it had moved since; and
    whether one draws. `before` and `after` are of a second call."""
    own = list(zip(after_one.torch, before.torch, after.torch, strict=True))
    seeds = any(first == last != between for first, between, last in own)
    return seeds, before.others != after.others or any(first != last != between for first, between, last in own)


def _is_as(value: Tensor, before: Tensor | None) -> bool:
    return before is not None and torch.equal(value, before)


def _random(apart: float, module: nn.Module, *, fatal: bool) -> str:
    dropouts = [
        name for name, part in module.named_modules() if isinstance(part, _DropoutNd) and part.training and part.p > 0
    ]
    cause = f"dropout is active ({some(dropouts)})" if dropouts else "dropout that is active in eval mode, or noise"
    differ = (
        f"the logits of the same images differ by {apart:.1e} of their size" if apart > MEANT else "it draws numbers"
    )
    text = f"it is random: {differ}: {cause}"
    if fatal:
        raise ForeignModelError(
            f"{text}. Attacks that do not average over that overestimate it; AutoAttack's version rand does: "
            '--set \'evaluators=[{kind="pristine"}, {kind="autoattack", version="rand"}]\''
        )
    return f"{text}. A verdict is one draw"


def _raise_if_it_sees_the_batch(network: Logits, module: nn.Module, x: Tensor, logits: Tensor, classes: int) -> None:
    """ForeignModelError if the logits of an image depend on the images beside it."""
    norms = [
        name
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and (part.training or part.running_mean is None)
    ]
    cause = f": batch norm uses the statistics of the batch ({some(norms)})" if norms else ""
    try:
        alone = torch.cat([_logits(network, one, classes) for one in x[:2].split(1)])
    except ForeignModelError as error:
        raise ForeignModelError(f"{error}{cause}") from error
    halves = torch.cat([_logits(network, half, classes) for half in x.split((len(x) + 1) // 2)])
    apart = max(_apart(alone, logits[:2]), _apart(halves, logits))
    if apart > MEANT:
        raise ForeignModelError(
            f"the logits of an image depend on the images beside it, by {apart:.1e} of their size, so that there is no "
            f"verdict on an image{cause}"
        )


def _of_the_output(logits: Tensor) -> Iterator[str]:
    if logits.min() >= 0 and bool((logits.sum(dim=1) - 1).abs().max() < 1e-4):
        raise ForeignModelError(
            "it returns probabilities (no negative, and a sum of 1), and logits are wanted: a softmax of a softmax "
            "hides gradients from cross-entropy. Leave its softmax out, or return the logarithm"
        )
    each = logits.unique(dim=0)  # an image that is there twice says nothing twice
    bound = int(((each == each.min()) | (each == each.max())).sum())
    if logits.min() >= 0 and logits.max() <= 1:
        yield "all its outputs are in [0, 1], as a sigmoid's; logits have no bounds, and saturation hides gradients"
    elif logits.abs().max() <= 1 and float((logits.abs() > 0.99).double().mean()) > MANY:
        yield "all its outputs are in [-1, 1], as a tanh's; logits have no bounds, and saturation hides gradients"
    elif bound > max(2, MANY * each.numel()):
        yield (
            f"{bound:,} of {each.numel():,} outputs are exactly the smallest or the largest, {logits.min():.4g} and "
            f"{logits.max():.4g}, as after a clamp; logits have no bounds, and saturation hides gradients"
        )
    elif bool(logits.logsumexp(dim=1).abs().max() < 1e-4):
        yield (
            "it returns log-probabilities; the losses of the attacks are the same as of logits if log_softmax gives "
            "them, and saturate if they are logarithms of a softmax"
        )
    for kind in (torch.bfloat16, torch.float16):
        if logits.equal(logits.to(kind).float()):
            name = str(kind).removeprefix("torch.")
            yield f"its logits are all {name} numbers, as after a cast or autocast; rounded logits hide gradients"
            break


def _of_the_gradient(network: Logits, x: Tensor, labels: Tensor) -> Iterator[str]:
    """What an attack by gradients would see."""
    leaf = x.clone().requires_grad_()
    try:
        logits = network(leaf)
        if not logits.requires_grad:
            raise ForeignModelError(
                "its logits have no gradient in the image (no_grad, a detach, or numpy in its forward, or gradients "
                "that its code has switched off), so attacks are blind"
            )
        loss = F.cross_entropy(logits, labels, reduction="sum")
        (slope,) = torch.autograd.grad(loss, leaf, retain_graph=True, allow_unused=True)
        own = logits.gather(1, labels[:, None]).sum() - logits.sum() / logits.shape[1]
        (linear,) = torch.autograd.grad(own, leaf, allow_unused=True)
    except ForeignModelError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryExhaustedError(f"out of memory with the gradient of {len(x)} images") from None
        raise ForeignModelError(f"the gradient in the image fails: {first_line(error)}") from error
    if slope is None or linear is None:
        raise ForeignModelError("its logits do not depend on the image by a gradient, so attacks are blind")
    if not (slope.isfinite().all() and linear.isfinite().all()):
        raise ForeignModelError("its gradient in the image is not finite, so attacks are blind")
    blind = int((linear.flatten(1) == 0).all(dim=1).sum())
    if blind == len(x):
        raise ForeignModelError(
            "the gradient of its logits in the image is zero, so attacks are blind: does it round its input?"
        )
    if blind:
        yield f"the gradient of its logits is zero in {blind} of {len(x)} images"
    if saturated := int((slope.flatten(1) == 0).all(dim=1).sum()) - blind:
        yield (
            f"the gradient of the cross-entropy is zero in {saturated} of {len(x)} images, and that of the logits is "
            'not: PGD with loss = "margin" sees more'
        )


def of_the_accuracy(
    network: Logits, others: Mapping[str, Logits], images: Images, classes: tuple[str, ...]
) -> Iterator[str]:
    """What is suspicious about how often `network` is right; `others` are the same one behind other conventions of its
    input, each by its flags."""

    def is_chance(count: int) -> bool:
        return bool(binomtest(count, n, 1 / len(classes), alternative="greater").pvalue >= RARE)

    predicted = _predicted(network, images)
    right = predicted == images.labels
    count, n = int(right.sum()), len(images)
    better: dict[str, int] = {}
    for flags, other in others.items():
        try:
            rival = _predicted(other, images) == images.labels
        except Exception:  # what it fails on is not what it takes
            continue
        gained, lost, theirs = int((rival & ~right).sum()), int((right & ~rival).sum()), int(rival.sum())
        is_better = gained > lost and binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue < RARE
        if is_better and not is_chance(theirs):
            better[flags] = theirs
    if better:
        flags = max(better, key=lambda name: better[name])
        yield f"{count} of the first {n} images are right, and {better[flags]} with {flags}: is that what it takes?"
    elif (ordered := _in_another_order(predicted, images.labels, len(classes))) > max(n / 2, count + n / 10) and not (
        is_chance(ordered)
    ):
        yield (
            f"{count} of the first {n} images are right, and {ordered} if its classes come in another order: the data "
            f"has {', '.join(classes[:20])}"
        )
    elif is_chance(count):
        yield (
            f"not shown to be better than chance: {count} of the first {n} images are right, of {len(classes)} "
            "classes: are the weights, --input-range, --normalize and the order of the classes right?"
        )


@torch.no_grad()
def _predicted(network: Logits, images: Images) -> Tensor:
    found: list[Tensor] = []
    for pixels in images.pixels.split(LOOKED_AT):
        logits = network(to_unit(pixels))
        if not logits.isfinite().all():
            raise EvaluationError("the network's logits are not finite")
        found.append(logits.argmax(dim=1))
    return torch.cat(found)


def _in_another_order(predicted: Tensor, labels: Tensor, classes: int) -> int:
    """How many would be right if the network's classes were named anew, in the best way."""
    confusion = torch.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes).cpu()
    rows, columns = linear_sum_assignment(confusion.numpy(), maximize=True)
    return int(confusion[rows, columns].sum())


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _shown(value: object) -> str:
    """What a network returned that is no tensor: its type, and the names or number of what it holds."""
    if isinstance(value, Mapping):
        return f"{type(value).__name__} with {some([str(key) for key in value])}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__}"
