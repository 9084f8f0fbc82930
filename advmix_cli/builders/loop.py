"""The outer loop: optimizer, schedule, average, and all of it together."""

from typing import assert_never

import torch
from torch import nn

from advmix_cli.builders.method import divergence_of, maximizer, sampler
from advmix_cli.data.images import Dataset
from advmix_cli.errors import UsageError
from advmix_cli.ranks.team import ALONE, Team
from advmix_cli.recipe import schema
from advmix_cli.recipe.schema import Recipe
from advmix_cli.training import schedules
from advmix_cli.training.accelerate import Formulation, cast_once, formed, logits_of
from advmix_cli.training.averaging import Average, Decay
from advmix_cli.training.batch import OnBatch
from advmix_cli.training.loop import Training
from advmix_cli.training.schedules import Schedule
from advmix_cli.training.step import Step, trades_loss, update_loss
from advmix_cli.training.yogi import Update, Yogi, in_pieces, joined, one_by_one, yogi_update


def optimizer(
    recipe: Recipe, parameters: list[nn.Parameter], formulation: Formulation = "eager"
) -> torch.optim.Optimizer:
    """Over all parameters, those of the batch norms and biases included, as the cited code has it. On a GPU the rate is
    a tensor and so are the counts: a captured graph can then be given another rate, and counts itself."""
    chosen = recipe.optimizer
    place = parameters[0].device
    on_gpu = place.type == "cuda"
    rate = torch.tensor(chosen.lr, device=place) if on_gpu else chosen.lr
    match chosen:
        case schema.Sgd():
            return torch.optim.SGD(
                parameters,
                lr=rate,
                momentum=chosen.momentum,
                nesterov=chosen.nesterov,
                weight_decay=chosen.weight_decay,
                fused=on_gpu,
            )
        case schema.Adam() | schema.AdamW():
            kind = torch.optim.Adam if isinstance(chosen, schema.Adam) else torch.optim.AdamW
            made = kind(
                parameters,
                lr=rate,
                betas=chosen.betas,
                eps=chosen.eps,
                weight_decay=chosen.weight_decay,
                fused=True,
                capturable=on_gpu,
            )
            # torch warns of a capturable optimizer that runs outside a graph, as every rehearsal does.
            made._warned_capturable_if_run_uncaptured = True
            return made
        case schema.Yogi():
            return Yogi(
                parameters,
                torch.tensor(chosen.lr, device=place, dtype=torch.float64),
                betas=chosen.betas,
                eps=chosen.eps,
                initial_accumulator=chosen.initial_accumulator,
                weight_decay=chosen.weight_decay,
                update=_yogi_update(formulation, on_gpu=on_gpu),
            )
        case _:
            assert_never(chosen)


def _yogi_update(formulation: Formulation, *, on_gpu: bool) -> Update:
    if formulation == "eager":
        return joined(yogi_update) if on_gpu else in_pieces(yogi_update)
    # What changes its arguments in place is nothing that torch.compile captures.
    itself = "compiled" if formulation == "reduce-overhead" else formulation
    return one_by_one(formed(yogi_update, itself, dynamic=True))


def schedule(recipe: Recipe) -> Schedule:
    """Progress in [0, 1) -> factor of the learning rate."""
    chosen = recipe.schedule
    match chosen:
        case schema.StepSchedule():
            return schedules.Steps(chosen.drops, chosen.factor)
        case schema.CosineSchedule():
            return schedules.Cosine(chosen.warmup, chosen.final)
        case schema.OneCycleSchedule():
            return schedules.OneCycle(chosen.peak, chosen.initial, chosen.final)
        case _:
            assert_never(chosen)


def average(recipe: Recipe, trained: nn.Module) -> Average | None:
    """The average of `trained`, which starts as a copy of it."""
    chosen = recipe.averaging
    match chosen:
        case schema.NoAveraging():
            return None
        case schema.EmaAveraging():
            return Average(trained, Decay(chosen.decay, chosen.warmup))
        case _:
            assert_never(chosen)


def share(batch_size: int, world: int, images: int | None = None) -> int:
    """The images of each of `world` ranks in an update of `batch_size`, or of all `images` if those are fewer;
    UsageError says which batch can be shared."""
    whole = batch_size if images is None else min(batch_size, images)
    least, below = 2 * world, whole // world * world
    if world == 1 or whole == below >= least:
        return whole // world
    at_most = images or max(least, below + world)
    fit = [size for size in (below, below + world) if least <= size <= at_most] or ([least] if least <= at_most else [])
    advice = f"{' or '.join(map(str, fit))} can; --set schedule.batch_size={fit[0]}, or " if fit else ""
    asked = f"{batch_size} of {images} images" if whole < batch_size else str(batch_size)
    raise UsageError(
        f"schedule.batch_size = {asked} cannot be shared by {world} ranks, each of which needs as many images as "
        f"the others, and at least two: {advice}start another number of ranks"
    )


def training(
    recipe: Recipe, images: Dataset, trained: nn.Module, formulation: Formulation = "eager", team: Team = ALONE
) -> Training:
    """The loop that trains `trained` on `images`; "captured" is made of compiled parts, and captured by the engine.

    A batch larger than the training set is all of it. UsageError if `team` cannot share it.
    """
    chosen, beta, engine = recipe.maximizer, recipe.loss.trades_beta, recipe.engine
    step = Step(
        network=trained,
        logits=logits_of(trained, precision=engine.precision, channels_last=engine.channels_last),
        maximizer=maximizer(recipe, formulation),
        divergence=divergence_of(recipe.loss),
        optimizer=optimizer(recipe, list(trained.parameters()), formulation),
        batch_norm="train" if isinstance(chosen, schema.NoMaximizer) else chosen.ascent.batch_norm,
        weight=recipe.loss.pristine_weight if beta is None else beta,
        loss=formed(update_loss if beta is None else trades_loss, formulation),
        seen=cast_once(trained, channels_last=engine.channels_last) if engine.precision == "bf16" else None,
        team=team,
    )
    return Training(
        on_batch=OnBatch(step, images, recipe.data.translate),
        network=trained,
        optimizer=step.optimizer,
        sampler=sampler(recipe),
        images=images.train,
        schedule=schedule(recipe),
        lr=recipe.optimizer.lr,
        epochs=recipe.schedule.epochs,
        batch_size=share(recipe.schedule.batch_size, team.world, len(images.train)),
        flip=recipe.data.flip,
        translate=recipe.data.translate,
        seed=recipe.seed,
        average=average(recipe, trained),
        team=team,
    )
