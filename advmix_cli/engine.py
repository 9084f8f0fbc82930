"""Which formulation a training gets, and the proof that it works before the first epoch.

Every candidate is rehearsed on the first batch, beside the eager form, and what the rehearsal did to the weights is
undone. What cannot be compiled or captured, or computes something else, is not used, and the log says why.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from advmix_cli import build
from advmix_cli.cost import cost, forward_flops
from advmix_cli.data.images import Dataset, Images, to_unit
from advmix_cli.errors import AdvmixError, DeviceError, EngineError
from advmix_cli.evaluation.subject import AtLeastTwo, Subject
from advmix_cli.memory import is_out_of_memory, release
from advmix_cli.method.maximizers import Attack, AttackThenMix, Integrated, MixThenAttack, Pristine
from advmix_cli.recipe.schema import Recipe
from advmix_cli.training.accelerate import Compilation, Formulation, captured, forget_compiled, formed, marked
from advmix_cli.training.batch import Batch, OnBatch
from advmix_cli.training.loop import Training

log = logging.getLogger("advmix")

WORTH_COMPILING = 1e15
"""FLOPs of a training from which on a CPU compiles by default. Compiling takes a CPU about a minute and saves it a few
percent; at some 300 GFLOP/s this is an hour."""

TOLERANCES = {"fp32": (1e-3, 0.05, 0.03), "bf16": (5e-3, 0.4, 0.03)}
"""Of a formulation against eager, in the order of `Difference`. What was measured, and what wrong formulations give,
stands in docs/performance.md."""


@dataclass(frozen=True)
class Prepared:
    """A training that is ready to run, and how it came to be; `seconds` went into compiling and capturing."""

    training: Training
    formulation: Formulation
    why: str
    seconds: float = 0.0
    compilation: Compilation | None = None
    difference: "Difference | None" = None

    def __str__(self) -> str:
        if self.formulation == "eager":
            return f"engine: eager, {self.why}"
        return (
            f"engine: {self.formulation}, {self.why}; {self.compilation}, ready after {self.seconds:.1f} s; "
            f"{self.difference}"
        )


@dataclass(frozen=True)
class Difference:
    """How far a formulation is from eager, on the first batch.

    Signed steps are chaotic: another number of threads changes half of the pixels of δ after five of them. So what must
    agree closely are the pieces, each from the same start: `losses`, the largest relative difference of the update's
    loss on the unattacked batch and of the adversary's objective before its first step, and `gradients`, the distance
    of the update's gradients on the unattacked batch over the length of eager's. `attacked`, the relative difference of
    the mean losses after one step and after all, can only say that both attack alike.
    """

    losses: float
    gradients: float
    attacked: float

    def tolerable(self, precision: Literal["fp32", "bf16"]) -> bool:
        """NaN is not."""
        found = (self.losses, self.gradients, self.attacked)
        return all(value <= bound for value, bound in zip(found, TOLERANCES[precision], strict=True))

    def __str__(self) -> str:
        return (
            f"beside eager, losses within {self.losses:.1e}, gradients within {self.gradients:.1e}, attacked losses "
            f"within {self.attacked:.1e}"
        )


def check_place(recipe: Recipe, place: torch.device) -> None:
    """DeviceError where the recipe wants a CUDA graph, and `place` has none."""
    if recipe.engine.compile == "graph" and place.type != "cuda":
        raise DeviceError(f'engine.compile = "graph" needs a CUDA GPU, and the device is {place.type}')


def candidates(recipe: Recipe, place: torch.device, flops: int, train_images: int) -> tuple[list[Formulation], str]:
    """The formulations to try, best first, and why these; the last one is "eager" where the recipe allows that.

    `flops` of the whole training. EngineError where `engine.compile = "graph"` cannot be.
    """
    check_place(recipe, place)
    wanted = recipe.engine.compile
    obstacle = _obstacle(recipe, place, train_images)
    if wanted == "graph":
        if obstacle:
            raise EngineError(f'engine.compile = "graph": {obstacle}')
        return ["captured", "reduce-overhead"], "as the recipe says"
    if obstacle:
        log.warning("eager: %s", obstacle)
        return ["eager"], "for the reason given"
    if wanted == "off":
        return ["eager"], "as the recipe says"
    if wanted == "step":
        return ["compiled", "eager"], "as the recipe says"
    if place.type == "cuda":
        return ["captured", "reduce-overhead", "eager"], "the default on a GPU"
    if flops < WORTH_COMPILING:
        return ["eager"], f"the default for a training of {flops / 1e12:,.3g} TFLOP on a CPU"
    return ["compiled", "eager"], f"the default for a training of {flops / 1e15:,.3g} PFLOP on a CPU"


def _obstacle(recipe: Recipe, place: torch.device, train_images: int) -> str:
    if recipe.schedule.batch_size > train_images:
        return (
            f"schedule.batch_size = {recipe.schedule.batch_size}, but there are only {train_images} training images: "
            "each epoch is one batch of them all"
        )
    if recipe.engine.precision == "bf16" and place.type == "cpu" and not cpu_has_bf16():
        return 'this CPU has no bf16 units, so engine.precision = "bf16" is emulated: slower than "fp32"'
    return ""


def cpu_has_bf16() -> bool:
    """Whether bf16 products are instructions of this CPU: AVX-512 BF16, AMX, or ARM's BF16."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16", "sve_bf16"))


def prepare(recipe: Recipe, images: Dataset, network: nn.Module, place: torch.device) -> Prepared:
    """The training of `network` in the best formulation that passes its rehearsal. `network` is left as it is."""
    flops = cost(recipe, network, images.image_shape, len(images.train)).training
    tried, why = candidates(recipe, place, flops, len(images.train))
    reasons: list[str] = []
    for formulation in tried:
        if formulation == "eager":
            if reasons:
                log.warning("eager: %s", "; ".join(reasons))
                why = "for the reason given"
            return Prepared(build.training(recipe, images, network), "eager", why)
        try:
            prepared = rehearsed(recipe, images, network, formulation)
        except AdvmixError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reasons.append(f"{formulation} failed: {first_line(error)}")
            continue
        assert prepared.difference
        if prepared.difference.tolerable(recipe.engine.precision):
            return replace(prepared, why=why)
        reasons.append(f"{formulation} computes something else: {prepared.difference}")
    raise EngineError(f'engine.compile = "{recipe.engine.compile}": {"; ".join(reasons)}')


def rehearsed(recipe: Recipe, images: Dataset, network: nn.Module, formulation: Formulation) -> Prepared:
    """The training in that formulation, compiled and captured, with its difference from eager on the first batch."""
    reference = build.training(recipe, images, network)
    batch = reference.draw(reference.order(1), epoch=1, index=0)
    forget_compiled()
    parts = build.training(recipe, images, network, formulation)
    started = time.perf_counter()
    if formulation == "captured":
        with undone(parts):
            whole = replace(parts, on_batch=captured(parts.on_batch, batch))
    else:
        whole = _marked(parts, formulation)
    found = _observed(whole, batch)
    seconds = time.perf_counter() - started
    pieces = [_marked(_with_inner_steps(parts, steps), formulation) for steps in (0, 1)]
    eager = [_with_inner_steps(reference, steps) for steps in (0, 1)]
    difference = _difference(
        [_observed(one, batch) for one in (*eager, reference)], [*(_observed(one, batch) for one in pieces), found]
    )
    return Prepared(whole, formulation, "as asked", seconds, Compilation.so_far(), difference)


def subject(recipe: Recipe, network: nn.Module, images: Images, passes: int) -> Subject:
    """The network under measurement, in eval mode: what attacks look at is compiled where so many `passes` are worth it
    and where it agrees with the network on `images`, a batch."""
    wanted = recipe.engine.compile
    x = to_unit(images.pixels)
    shape = (x.shape[1], x.shape[2], x.shape[3])
    if wanted == "off" or not len(x):
        return Subject.plain(network)
    if wanted is None and not x.is_cuda and passes * forward_flops(network, shape) < WORTH_COMPILING:
        return Subject.plain(network)

    layout = torch.channels_last if recipe.engine.channels_last else torch.contiguous_format

    def logits(batch: Tensor) -> Tensor:
        return network(batch.contiguous(memory_format=layout))

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
        return Subject.plain(network)
    if not apart <= 1e-3:
        log.warning("the evaluation is eager: the compiled network is %.1e from it", apart)
        return Subject.plain(network)
    return Subject(network, attacked)


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
    return _largest([_between(found, expected), _between(plain, expected), _between(slope, own_slope)])


def _looked_at(logits: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The logits, and a gradient of theirs in the images, taken as FAB takes its own: more than once."""
    leaf = x.detach().requires_grad_()
    found = logits(leaf)
    torch.autograd.grad(found.sum(), leaf, retain_graph=True)
    (slope,) = torch.autograd.grad(found.logsumexp(dim=1).sum() - found[:, 0].sum(), leaf)
    return found.detach(), slope


def _between(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


@contextmanager
def undone(training: Training) -> Iterator[None]:
    """What is trained within leaves the weights, the batch norms' buffers and the optimizer's state as they were.

    They stay where they are in memory, since a captured graph knows them by their addresses. State that the optimizer
    makes at its first step starts from zero, which is what that step would have made of it.
    """
    weights = list(training.network.state_dict().values())
    kept = [value.clone() for value in weights]
    state = {id(value): value.clone() for value in _state(training.optimizer)}
    try:
        yield
    finally:
        with torch.no_grad():
            for value, before in zip(weights, kept, strict=True):
                value.copy_(before)
            for value in _state(training.optimizer):
                if id(value) in state:
                    value.copy_(state[id(value)])
                else:
                    value.zero_()


def _state(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


class Observed(NamedTuple):
    """The figures and the gradients of one batch."""

    figures: dict[str, float]
    gradients: list[Tensor]


def _observed(training: Training, batch: Batch) -> Observed:
    with undone(training):
        figures = training.on_batch(batch)
        gradients = [value.grad.clone() for value in training.network.parameters() if value.grad is not None]
        return Observed({name: float(figure) for name, figure in figures.items()}, gradients)


def _with_inner_steps(training: Training, steps: int) -> Training:
    """The same functions, called so many times."""
    on_batch = training.on_batch
    assert isinstance(on_batch, OnBatch)
    maximizer = on_batch.step.maximizer
    if isinstance(maximizer, Pristine):
        return training
    assert isinstance(maximizer, Attack | MixThenAttack | AttackThenMix | Integrated)
    fewer = replace(maximizer, pgd=replace(maximizer.pgd, steps=steps))
    return replace(training, on_batch=replace(on_batch, step=replace(on_batch.step, maximizer=fewer)))


def _marked(training: Training, formulation: Formulation) -> Training:
    return replace(training, on_batch=marked(training.on_batch)) if formulation == "reduce-overhead" else training


def _difference(expected: list[Observed], found: list[Observed]) -> Difference:
    """Of one batch with no inner step, with one, and with all of them."""
    pairs = list(zip(expected, found, strict=True))
    start = "inner_loss_before"
    tight = [_apart(pairs[0], "loss"), *(_apart(pair, start) for pair in pairs if start in pair[0].figures)]
    loose = [_apart(pair, "loss") for pair in pairs[1:]]
    length = torch.stack([value.norm() for value in expected[0].gradients]).norm()
    gradients = zip(expected[0].gradients, found[0].gradients, strict=True)
    distance = torch.stack([(one - other).norm() for one, other in gradients]).norm()
    return Difference(_largest(tight), float(distance / length), _largest(loose))


def _apart(pair: tuple[Observed, Observed], name: str) -> float:
    expected, found = (one.figures[name] for one in pair)
    return abs(found - expected) / max(abs(expected), 1e-3)


def _largest(values: list[float]) -> float:
    """Python's max does not see a NaN."""
    return float(torch.tensor(values).max())


def first_line(error: Exception) -> str:
    """Its class, and what it says first: torch's compilers say a page."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
