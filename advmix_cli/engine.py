"""Which formulation a training gets, and the proof that it works before the first epoch.

Every candidate is rehearsed on the first batch, beside the eager form, and what the rehearsal did to the weights is
undone. What cannot be compiled or captured, or computes something else, is not used, and the log says why.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from advmix_cli import build
from advmix_cli.cost import cost
from advmix_cli.data.images import Dataset
from advmix_cli.errors import DeviceError, EngineError, first_line
from advmix_cli.memory import is_out_of_memory, release
from advmix_cli.method.maximizers import Attack, AttackThenMix, Integrated, MixThenAttack, Pristine
from advmix_cli.ranks.team import ALONE, Team
from advmix_cli.recipe.schema import Recipe
from advmix_cli.training.accelerate import Compilation, Formulation, captured, forget_compiled, marked
from advmix_cli.training.batch import Batch, OnBatch
from advmix_cli.training.loop import Training

log = logging.getLogger("advmix")

WORTH_COMPILING = 1e15
"""FLOPs of a training or an evaluation from which on it is compiled by default. Compiling takes about a minute. On the
two CPUs that were measured this is 20 to 80 minutes, of which it saves 3 to 15 %. On an H200 a captured batch of
table1's network saves 42 ms, and capturing takes 23 to 35 s, which is paid back after two epochs or 1.4e15."""

TOLERANCES = {"fp32": (1e-3, 0.05, 0.03, 0.1, 1e-3), "bf16": (5e-3, 0.4, 0.03, 0.1, 1e-3)}
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
    the mean losses after one step and after all, can only say that both attack alike. `statistics` is how differently a
    batch with one step moves the batch norms' running statistics. `updates` is how far the weights are from where
    eager's optimizer takes them in its second step, with the same gradients and another rate than the one that was
    compiled or captured. Both over the length of eager's way.
    """

    losses: float
    gradients: float
    attacked: float
    statistics: float
    updates: float

    def tolerable(self, precision: Literal["fp32", "bf16"]) -> bool:
        """NaN is not."""
        return all(value <= bound for value, bound in zip(astuple(self), TOLERANCES[precision], strict=True))

    def __str__(self) -> str:
        return (
            f"beside eager, losses within {self.losses:.1e}, gradients within {self.gradients:.1e}, attacked losses "
            f"within {self.attacked:.1e}, statistics within {self.statistics:.1e}, updates within {self.updates:.1e}"
        )


def check_place(recipe: Recipe, place: torch.device, team: Team = ALONE) -> None:
    """DeviceError where the recipe wants a CUDA graph, and `place` or several ranks have none."""
    if recipe.engine.compile == "graph" and team.world > 1:
        raise DeviceError(
            f'engine.compile = "graph" is for one GPU: a batch of {team.world} ranks is not captured; '
            'use "step" or "auto"'
        )
    if recipe.engine.compile == "graph" and place.type != "cuda":
        raise DeviceError(f'engine.compile = "graph" needs a CUDA GPU, and the device is {place.type}')


def candidates(
    recipe: Recipe, place: torch.device, flops: int, train_images: int, team: Team = ALONE
) -> tuple[list[Formulation], str]:
    """The formulations to try, best first, and why these; the last one is "eager" where the recipe allows that.

    `flops` of the whole training, of all of `team`. EngineError where `engine.compile = "graph"` cannot be.
    """
    check_place(recipe, place, team)
    wanted = recipe.engine.compile
    obstacle = _obstacle(recipe, place, train_images, team)
    if wanted == "graph":
        if obstacle:
            raise EngineError(f'engine.compile = "graph": {obstacle}')
        return ["captured", "reduce-overhead"], "as the recipe says"
    if obstacle:
        log.warning("training is eager: %s", obstacle)
        return ["eager"], obstacle
    if wanted == "off":
        return ["eager"], "as the recipe says"
    if wanted == "step":
        return ["compiled", "eager"], "as the recipe says"
    where = "a GPU" if place.type == "cuda" else "a CPU"
    if team.world > 1:
        flops, where = flops // team.world, f"each of {team.world} ranks, whose batches no graph captures"
    if flops < WORTH_COMPILING:
        return ["eager"], f"the default for a training of {flops / 1e12:,.3g} TFLOP on {where}"
    why = f"the default for a training of {flops / 1e15:,.3g} PFLOP on {where}"
    graphs = place.type == "cuda" and team.world == 1
    return (["captured", "reduce-overhead", "eager"] if graphs else ["compiled", "eager"]), why


def _obstacle(recipe: Recipe, place: torch.device, train_images: int, team: Team) -> str:
    if team.world > 1 and recipe.engine.batch_norm == "synchronised":
        return 'engine.batch_norm = "synchronised" speaks with other ranks in every layer, which is not compiled'
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


def prepare(recipe: Recipe, images: Dataset, network: nn.Module, place: torch.device, team: Team = ALONE) -> Prepared:
    """The training of `network` in the best formulation that passes its rehearsal, on every rank. `network` is left as
    it is."""
    flops = cost(recipe, network, images.image_shape, len(images.train)).training
    tried, why = candidates(recipe, place, flops, len(images.train), team)
    # What one rank's machine cannot do, none does.
    if only_eager := team.first_of(why if tried == ["eager"] else ""):
        eager: list[Formulation] = ["eager"]
        tried, why = eager, only_eager
    reasons: list[str] = []
    forget_compiled()
    for formulation in tried:
        if formulation == "eager":
            if reasons:
                why = "; ".join(reasons)
                log.warning("training is eager: %s", why)
            return Prepared(build.training(recipe, images, network, team=team), "eager", why)
        prepared, reason = _tried(recipe, images, network, formulation, team)
        reason = team.first_of(reason)
        if not reason:
            assert prepared
            if reasons:
                log.warning("training is %s: %s", formulation, "; ".join(reasons))
            chosen = prepared.training if team.world == 1 else prepared.training.within(team)
            return replace(prepared, training=chosen, why=why)
        reasons.append(reason)
    raise EngineError(f'engine.compile = "{recipe.engine.compile}": {"; ".join(reasons)}')


def _tried(
    recipe: Recipe, images: Dataset, network: nn.Module, formulation: Formulation, team: Team
) -> tuple[Prepared | None, str]:
    """A formulation on this rank, and why it is none, or ""."""
    try:
        prepared = rehearsed(recipe, images, network, formulation, team)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return None, f"{formulation} failed: {first_line(error)}"
    assert prepared.difference
    if prepared.difference.tolerable(recipe.engine.precision):
        return prepared, ""
    return None, f"{formulation} computes something else: {prepared.difference}"


def rehearsed(
    recipe: Recipe, images: Dataset, network: nn.Module, formulation: Formulation, team: Team = ALONE
) -> Prepared:
    """The training in that formulation, compiled and captured, with its difference from eager on the first batch, or on
    as much of it as one rank of `team` has. It is this rank's alone: one that fails here keeps no other waiting.

    It is observed with no inner step, with one, and with all of them; the whole comes last, since a captured graph
    keeps the memory that it works on.
    """
    reference = build.training(recipe, images, network, team=team).within(ALONE)
    reference = replace(reference, average=None)  # which would take memory
    batch = reference.draw(reference.order(1), epoch=1, index=0)
    observed = zip((*_pieces(reference), reference), KEPT, strict=True)
    expected = [_observed(one, batch).only(names) for one, names in observed]
    release()
    parts = build.training(recipe, images, network, formulation, team).within(ALONE)
    before, started = Compilation.so_far(), time.perf_counter()
    observed = zip(_pieces(parts), KEPT[:2], strict=True)
    found = [_observed(_whole(piece, formulation, batch), batch).only(names) for piece, names in observed]
    release()
    whole = _whole(parts, formulation, batch)
    rate = recipe.optimizer.lr / 2
    whole.use_rate(rate)
    moments = _after_a_step(reference, expected[0].gradients)
    with undone(whole):
        _set_state(whole.optimizer, moments)
        found.append(_observed(whole, batch))
    seconds, compilation = time.perf_counter() - started, Compilation.so_far().since(before)
    difference = _difference(expected, found, updates=_apart_from(reference, moments, rate, found[-1]))
    reference.optimizer.zero_grad()
    return Prepared(whole, formulation, "as asked", seconds, compilation, difference)


def _whole(parts: Training, formulation: Formulation, batch: Batch) -> Training:
    """What one call of each batch is made of: the parts, or a graph of them that has been replayed before."""
    match formulation:
        case "eager" | "compiled":
            return parts
        case "captured":
            with undone(parts):
                return replace(parts, on_batch=captured(parts.on_batch, batch))
        case "reduce-overhead":
            whole = replace(parts, on_batch=marked(parts.on_batch))
            with undone(whole):
                # The first call runs as it is and the second one is recorded.
                for _ in range(2):
                    whole.on_batch(batch)
            return whole


@contextmanager
def undone(training: Training) -> Iterator[None]:
    """What is trained within leaves the weights, the batch norms' buffers and the optimizer's state as they were.

    They stay where they are in memory, since a captured graph knows them by their addresses. State that the optimizer
    makes at its first step starts from zero, which is what that step would have made of it: so do SGD, Adam and AdamW
    (and Yogi makes none), but not every optimizer of torch's.
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
    """The figures of one batch, its gradients, and how it moved the weights and the running statistics."""

    figures: dict[str, float]
    gradients: Sequence[Tensor] = ()
    moved: Sequence[Tensor] = ()
    statistics: Sequence[Tensor] = ()

    def only(self, names: tuple[str, ...]) -> "Observed":
        """The figures and what else is looked at: a copy of all weights is not kept beside a capture for nothing."""
        return Observed(self.figures, **{name: getattr(self, name) for name in names})


KEPT: tuple[tuple[str, ...], ...] = (("gradients",), ("statistics",), ())
"""What is looked at beside the figures, of a batch with no inner step, with one, and with all of them."""


def _observed(training: Training, batch: Batch) -> Observed:
    weights = list(training.network.parameters())
    statistics = [value for value in training.network.buffers() if value.is_floating_point()]
    with undone(training):
        before = [value.detach().clone() for value in [*weights, *statistics]]
        figures = training.on_batch(batch)
        gradients = [value.grad.clone() for value in weights if value.grad is not None]
        moved = _moved([*weights, *statistics], before)
        count = len(weights)
        return Observed(
            {name: float(figure) for name, figure in figures.items()}, gradients, moved[:count], moved[count:]
        )


def _moved(values: Sequence[Tensor], before: Sequence[Tensor]) -> list[Tensor]:
    return [value.detach() - start for value, start in zip(values, before, strict=True)]


def _pieces(training: Training) -> list[Training]:
    """The same functions, called for no inner step and for one."""
    on_batch = training.on_batch
    assert isinstance(on_batch, OnBatch)
    maximizer = on_batch.step.maximizer
    if isinstance(maximizer, Pristine):
        return [training, training]
    assert isinstance(maximizer, Attack | MixThenAttack | AttackThenMix | Integrated)
    fewer = [replace(maximizer, pgd=replace(maximizer.pgd, steps=steps)) for steps in (0, 1)]
    return [replace(training, on_batch=replace(on_batch, step=replace(on_batch.step, maximizer=one))) for one in fewer]


def _difference(expected: list[Observed], found: list[Observed], updates: float) -> Difference:
    """Of one batch with no inner step, with one, and with all of them."""
    pairs = list(zip(expected, found, strict=True))
    start = "inner_loss_before"
    tight = [_apart(pairs[0], "loss"), *(_apart(pair, start) for pair in pairs if start in pair[0].figures)]
    loose = [_apart(pair, "loss") for pair in pairs[1:]]
    gradients = _distance(found[0].gradients, expected[0].gradients) / _length(expected[0].gradients)
    statistics = _distance(found[1].statistics, expected[1].statistics) / max(_length(expected[1].statistics), 1e-30)
    return Difference(_largest(tight), gradients, _largest(loose), statistics, updates)


def _after_a_step(reference: Training, gradients: Sequence[Tensor]) -> list[Tensor]:
    """The state of an optimizer that has done one step with these: what is right in the first one alone is wrong."""
    with undone(reference):
        _step(reference, gradients)
        return [value.clone() for value in _state(reference.optimizer)]


def _set_state(optimizer: torch.optim.Optimizer, values: list[Tensor]) -> None:
    for own, value in zip(_state(optimizer), values, strict=True):
        own.copy_(value)


def _step(training: Training, gradients: Sequence[Tensor]) -> None:
    """The optimizer's, with these. The weights' own are theirs again afterwards: a captured graph writes into those,
    and does not say anew whose they are."""
    weights = list(training.network.parameters())
    own = [value.grad for value in weights]
    for value, gradient in zip(weights, gradients, strict=True):
        value.grad = gradient
    training.optimizer.step()
    for value, gradient in zip(weights, own, strict=True):
        value.grad = gradient


def _apart_from(reference: Training, moments: list[Tensor], rate: float, found: Observed) -> float:
    """How far `found` moved the weights from where the optimizer of `reference` moves them with its gradients, both
    starting with these `moments`. A way so short that float32 rounds it off the weights is as long as its rounding."""
    weights = list(reference.network.parameters())
    with undone(reference):
        _set_state(reference.optimizer, moments)
        before = [value.detach().clone() for value in weights]
        reference.use_rate(rate)
        _step(reference, found.gradients)
        moved = _moved(weights, before)
    return _distance(found.moved, moved) / max(_length(moved), 1e-4 * _length(before), 1e-30)


def _length(values: Sequence[Tensor]) -> float:
    return float(torch.stack([value.norm() for value in values]).norm()) if values else 0.0


def _distance(values: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    return _length([one - other for one, other in zip(values, others, strict=True)])


def _apart(pair: tuple[Observed, Observed], name: str) -> float:
    expected, found = (one.figures[name] for one in pair)
    return abs(found - expected) / max(abs(expected), 1e-3)


def _largest(values: list[float]) -> float:
    """Python's max does not see a NaN."""
    return float(torch.tensor(values).max())
