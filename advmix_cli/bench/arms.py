"""The arms of a benchmark: the field's loops, and the engine's formulations."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import torch
from torch import nn

from advmix_cli import build, machine
from advmix_cli.bench.textbook import Textbook, loader
from advmix_cli.data.images import Dataset
from advmix_cli.engine import Prepared
from advmix_cli.recipe import schema
from advmix_cli.recipe.schema import Recipe
from advmix_cli.training.accelerate import Formulation
from advmix_cli.training.loop import Training

Precision = Literal["fp32", "bf16"]

TEXTBOOK, MIXUP, TEXTBOOK_BF16, DELTA_ONLY = "textbook", "textbook, mixup", "textbook, bf16", "δ's gradient alone"
ENGINE: dict[Formulation, str] = {
    "eager": "advmix eager",
    "compiled": "advmix compiled",
    "captured": "advmix captured",
    "reduce-overhead": "advmix reduce-overhead",
}
LOOPS = {
    "textbook": TEXTBOOK,
    "textbook-mixup": MIXUP,
    "textbook-bf16": TEXTBOOK_BF16,
    "delta-only": DELTA_ONLY,
}
ARMS: dict[str, str] = {**LOOPS, **ENGINE}
"""What an arm is asked for by -> its name."""


@dataclass(frozen=True)
class Arm:
    """A function that does one batch, and what it is."""

    name: str
    what: str
    precision: Precision
    channels_last: bool
    run: Callable[[], object]
    prepared: Prepared | None = None
    """Of an arm of the engine."""


def textbook_arms(
    recipe: Recipe, images: Dataset, place: torch.device, loaded: Iterator[Any], wanted: Collection[str] = LOOPS
) -> list[Arm]:
    """Those `wanted` of the field's loops on the recipe's weights, optimizer, ε and K: as torch does them by default,
    and, so that precision and layout are not counted as the engine's, in bf16 and channels_last too. The loop that
    takes δ's gradient alone has the recipe's own precision and layout."""

    def arm(name: str, what: str, precision: Precision, channels_last: bool, options: dict[str, bool]) -> Arm:
        network = fresh(recipe, images, place, channels_last=channels_last)
        chosen = recipe.maximizer
        attacks = not isinstance(chosen, schema.NoMaximizer)
        run = Textbook(
            network,
            textbook_optimizer(recipe, list(network.parameters())),
            loaded,
            place,
            epsilon=recipe.threat.epsilon,
            step_size=chosen.ascent.step_size if attacks else 0.0,
            steps=chosen.ascent.steps if attacks else 0,
            bf16=precision == "bf16",
            channels_last=channels_last,
            pristine_weight=recipe.loss.pristine_weight,
            **options,
        )
        return Arm(name, what, precision, channels_last, run)

    engine = recipe.engine
    own = engine.precision, engine.channels_last
    loops: dict[str, tuple[str, Precision, bool, dict[str, bool]]] = {
        "textbook": (
            "DataLoader, backward() in the inner steps, forward passes for restarts and log",
            "fp32",
            False,
            {},
        ),
        "textbook-mixup": (
            "the same with mixup, whose loss has a forward pass of its own",
            "fp32",
            False,
            {"mixup": True},
        ),
        "textbook-bf16": ("the textbook loop in bf16 and channels_last", "bf16", True, {}),
        "delta-only": ("DataLoader, autograd.grad of δ, no further forward passes", *own, {"delta_only": True}),
    }
    return [arm(name, *loops[key]) for key, name in LOOPS.items() if key in wanted]


def engine_arm(recipe: Recipe, prepared: Prepared) -> Arm:
    """The engine, from the uint8 images on the device to the update, the draws included."""
    what = {
        "eager": "the reference, draws and images on the device",
        "compiled": "one graph a step of the ascent, one for the loss, one for the optimizer's update",
        "captured": "the whole batch as one CUDA graph of compiled parts",
        "reduce-overhead": "compiled parts that torch.compile captures itself",
    }[prepared.formulation]
    name = ENGINE[prepared.formulation]
    engine = recipe.engine
    run = _batches(prepared.training, engine.deterministic)
    return Arm(name, what, engine.precision, engine.channels_last, run, prepared)


def _batches(training: Training, deterministic: bool) -> Callable[[], object]:
    """A batch a call, through as many epochs as it takes; only the engine's own are `deterministic`."""

    def endless() -> Iterator[object]:
        epoch = 0
        while True:
            epoch += 1
            order = training.order(epoch)
            for index in range(training.batches):
                training.set_rate(0.5)
                yield training.train_on(order, epoch, index)

    done = endless()

    def run() -> object:
        with machine.deterministic(deterministic):
            return next(done)

    return run


def fresh(recipe: Recipe, images: Dataset, place: torch.device, *, channels_last: bool) -> nn.Module:
    """The recipe's network with its first weights."""
    engine = recipe.engine.model_copy(update={"channels_last": channels_last})
    return build.new_network(recipe.model_copy(update={"engine": engine}), images, place).train()


@contextmanager
def pictures(recipe: Recipe, images: Dataset) -> Iterator[Iterator[Any]]:
    """Batches of the images from the field's loader, whose workers end with the context: those of a loader that is
    left to the end of the process are killed, and leave their directories behind."""
    size = min(recipe.schedule.batch_size, len(images.train))
    loaded: Any = iter(loader(images.train, size, flip=recipe.data.flip, translate=recipe.data.translate))
    try:
        yield loaded
    finally:
        loaded._shutdown_workers()


def textbook_optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The recipe's, as its library makes it when it is told nothing else."""
    chosen = recipe.optimizer
    match chosen:
        case schema.Sgd():
            return torch.optim.SGD(
                parameters, chosen.lr, chosen.momentum, weight_decay=chosen.weight_decay, nesterov=chosen.nesterov
            )
        case schema.Adam() | schema.AdamW():
            kind = torch.optim.Adam if isinstance(chosen, schema.Adam) else torch.optim.AdamW
            return kind(parameters, chosen.lr, chosen.betas, chosen.eps, chosen.weight_decay)
        case schema.Yogi():
            from pytorch_optimizer import Yogi  # imports a hundred optimizers, so only where it is wanted

            return Yogi(
                parameters,
                lr=chosen.lr,
                betas=chosen.betas,
                eps=chosen.eps,
                initial_accumulator=chosen.initial_accumulator,
                weight_decay=chosen.weight_decay,
                weight_decouple=False,
            )
        case _:
            assert_never(chosen)
