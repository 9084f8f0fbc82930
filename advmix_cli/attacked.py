"""What attacks look at in an evaluation: the compiled network where that is worth it and where it agrees with the eager
one, which alone judges."""

import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from advmix_cli.cost import forward_flops
from advmix_cli.data.images import Images, to_unit
from advmix_cli.engine import WORTH_COMPILING
from advmix_cli.errors import first_line
from advmix_cli.evaluation.predict import tf32_convolutions
from advmix_cli.evaluation.subject import AtLeastTwo, Subject
from advmix_cli.memory import is_out_of_memory, release
from advmix_cli.recipe.measurement import Measuring
from advmix_cli.training.accelerate import formed

log = logging.getLogger("advmix")


def subject_of(
    recipe: Measuring, network: nn.Module, images: Images, passes: int, say: Callable[[str], None]
) -> Subject:
    """The network under measurement, in eval mode: what attacks look at is compiled where so many `passes` are worth it
    and where it agrees with the network on `images`, a batch; on a GPU they then look at it with convolutions in TF32.
    `say` is told of it."""
    x = to_unit(images.pixels)
    if not len(x) or not worth_compiling(recipe, network, images, passes):
        return Subject.plain(network)

    layout = torch.channels_last if recipe.engine.channels_last else torch.contiguous_format

    def logits(batch: Tensor) -> Tensor:
        return network(batch.contiguous(memory_format=layout))

    say("evaluation: compiling what attacks look at")
    started = time.perf_counter()
    try:
        attacked = AtLeastTwo(formed(logits, "compiled", dynamic=True))
        # Whoever measures tries again with fewer images at a time, too.
        while (apart := _distance(attacked, network, x)) is None and len(x) > 2:
            release()
            x = x[: len(x) // 2]
    except Exception as error:
        log.warning("the evaluation is eager: compiling failed: %s", first_line(error))
        return Subject.plain(network)
    if apart is None:
        log.warning("the evaluation is eager: the memory does not hold %d images of the compiled network", len(x))
        return Subject.plain(network)
    if not apart <= 1e-3:
        log.warning("the evaluation is eager: the compiled network is %.1e from it", apart)
        return Subject.plain(network)
    seconds = time.perf_counter() - started
    say(f"evaluation: attacks look at the compiled network, ready after {seconds:.1f} s, within {apart:.1e} of it")
    if not x.is_cuda:
        return Subject(network, attacked, engine="compiled")
    say("evaluation: attacks look in TF32; verdicts are in fp32")
    return Subject(network, attacked, tf32_convolutions, "compiled, TF32")


def worth_compiling(recipe: Measuring, network: nn.Module, images: Images, passes: int) -> bool:
    """Whether so many `passes` of images like these are long enough, and the recipe lets them be compiled."""
    if recipe.engine.compile == "off":
        return False
    _, channels, height, width = images.pixels.shape
    try:
        return passes * forward_flops(network, (channels, height, width)) >= WORTH_COMPILING
    except Exception as error:  # a network of others may do what has no shape before it is computed
        log.warning("the evaluation is eager: counting what it costs failed: %s", first_line(error))
        return False


def _distance(attacked: Callable[[Tensor], Tensor], network: nn.Module, x: Tensor) -> float | None:
    """How far what attacks look at is from the network, on `x`; None where the memory does not hold it."""
    try:
        (found, slope), (expected, own_slope) = (_looked_at(one, x) for one in (attacked, network))
        with torch.no_grad():
            plain = attacked(x)
    except Exception as error:
        if is_out_of_memory(error):
            return None
        raise
    pairs = ((found, expected), (plain, expected), (slope, own_slope))
    # Python's max does not see a NaN.
    return float(torch.tensor([_between(*pair) for pair in pairs]).max())


def _looked_at(logits: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The logits, and a gradient of theirs in the images, taken as FAB takes its own: more than once."""
    leaf = x.detach().requires_grad_()
    found = logits(leaf)
    torch.autograd.grad(found.sum(), leaf, retain_graph=True)
    (slope,) = torch.autograd.grad(found.logsumexp(dim=1).sum() - found[:, 0].sum(), leaf)
    return found.detach(), slope


def _between(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))
