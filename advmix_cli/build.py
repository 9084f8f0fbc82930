"""Recipe -> objects: the one file that sees both sides."""

from collections.abc import Callable
from functools import cache
from typing import assert_never

import torch
from torch import nn

from advmix_cli import __version__, checkpoint
from advmix_cli.data import folder, sources
from advmix_cli.data.images import Dataset, Raw
from advmix_cli.data.outline import WHOLE, Outline
from advmix_cli.data.splits import split
from advmix_cli.errors import CheckpointError, DataError, DeviceError, RecipeError, UsageError
from advmix_cli.evaluation.autoattack import AutoAttack
from advmix_cli.evaluation.outcome import Evaluator
from advmix_cli.evaluation.pgd import Pgd as PgdEvaluator
from advmix_cli.evaluation.pristine import Pristine as PristineEvaluator
from advmix_cli.method import divergence, maximizers
from advmix_cli.method.ascent import ascent_step
from advmix_cli.method.draws import Sampler
from advmix_cli.method.maximizers import Divergence, Maximizer, prediction
from advmix_cli.method.ratio import mass_above
from advmix_cli.networks.batch_norm import shared_batch_norm
from advmix_cli.networks.normalize import Normalize, on_pixels
from advmix_cli.networks.preact_resnet import preact_resnet
from advmix_cli.networks.wide_resnet import wide_resnet
from advmix_cli.ranks.team import ALONE, Team
from advmix_cli.ranks.torchrun import Launch
from advmix_cli.recipe import schema
from advmix_cli.recipe.measurement import Measurement, Measuring
from advmix_cli.recipe.schema import Recipe
from advmix_cli.seeding import derive
from advmix_cli.training import schedules
from advmix_cli.training.accelerate import Formulation, cast_once, formed, logits_of
from advmix_cli.training.averaging import Average, Decay
from advmix_cli.training.batch import OnBatch
from advmix_cli.training.loop import Training
from advmix_cli.training.schedules import Schedule
from advmix_cli.training.step import Step, trades_loss, update_loss
from advmix_cli.training.yogi import Yogi, yogi_update


def device(name: str, launch: Launch = ALONE) -> torch.device:
    """ "auto" (a CUDA GPU if there is one), "cpu", "cuda" or "cuda:1", which becomes the current one; DeviceError if it
    is not there. Of several ranks on a machine each has the GPU of its number there."""
    chosen = named_device(name) if launch.world == 1 else _device_of_rank(name, launch)
    if chosen.index is not None and chosen.type == "cuda":
        torch.cuda.set_device(chosen)  # streams, graphs and compiled code are the current device's
    return chosen


def _device_of_rank(name: str, launch: Launch) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise DeviceError(
            f"--device {name}: {launch.world} ranks cannot all have it; leave it out, and each has the GPU of its "
            "number (CUDA_VISIBLE_DEVICES chooses which those are)"
        )
    there = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not there):
        return torch.device("cpu")
    if launch.local_world > there:
        raise DeviceError(
            f"{launch.local_world} ranks on one machine, where torch sees {there or 'no'} CUDA devices; start "
            f"torchrun with --nproc-per-node {max(there, 1)}, or give --device cpu"
        )
    return torch.device(f"cuda:{launch.local_rank}")


def named_device(name: str) -> torch.device:
    """As `device`; nothing is made on it, as for who only has others work on it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda") or (chosen.type == "cpu" and chosen.index):
        raise DeviceError(f"--device {name}: not a device; use auto, cpu, cuda or cuda:N")
    there = torch.cuda.device_count()
    if chosen.type == "cuda" and (chosen.index or 0) >= there:
        raise DeviceError(f"--device {name}: not there; torch {torch.__version__} sees {there or 'no'} CUDA devices")
    return chosen


def kind_of(place: torch.device) -> str:
    """What all ranks of a training must have alike: what they say to each other depends on it."""
    return f"{place.type}, torch {torch.__version__}, advmix {__version__}"


def arithmetic(recipe: Measuring) -> None:
    """Settings that torch keeps for the whole process, and so would the next recipe."""
    own = _own_threads()
    torch.set_num_threads(own if recipe.engine.threads is None else recipe.engine.threads)


@cache
def _own_threads() -> int:
    """torch's choice before any recipe had one."""
    return torch.get_num_threads()


def dataset(recipe: Measuring, place: torch.device, say: Callable[[str], None]) -> Dataset:
    """The images of the recipe, split, on `place`; `say` is told of slow work. DataError if they do not fit it."""
    data = recipe.data
    held_out = recipe.validation.held_out
    whole = split(
        _raw(data, say), held_out=held_out, train_limit=data.train_limit, test_limit=data.test_limit, seed=data.seed
    )
    _raise_if_unfit(recipe, Outline.of(whole))
    known = WHOLE.get(data.source)
    if known and whole.image_shape != known.image_shape:
        raise DataError(f"the images of {data.source} are {whole.image_shape}, and should be {known.image_shape}")
    if len(whole.classes) < 2:
        raise DataError(f"there is only one class, '{''.join(whole.classes)}'")
    return whole.to(place)


def outline(recipe: Recipe, place: torch.device, say: Callable[[str], None]) -> Outline:
    """What the recipe's images are like; only a folder has to be read for it. DataError if they do not fit it."""
    data = recipe.data
    if isinstance(data, schema.FolderData):
        return Outline.of(dataset(recipe, place, say))
    whole = WHOLE[data.source]
    validation = round(recipe.validation.held_out * whole.train)
    left = whole.train - validation
    for name, limit, there in (("train", data.train_limit, left), ("test", data.test_limit, whole.test)):
        if limit is not None and limit > there:
            raise DataError(f"data.{name}_limit = {limit}, but there are only {there} {name} images")
    found = whole._replace(train=data.train_limit or left, validation=validation, test=data.test_limit or whole.test)
    _raise_if_unfit(recipe, found)
    return found


def _raise_if_unfit(recipe: Measuring, images: Outline) -> None:
    translate, (height, width) = recipe.data.translate, images.image_shape[1:]
    if images.train < 2:
        raise DataError("there are fewer than two training images, and batch norm needs two")
    if translate >= min(height, width):
        raise DataError(f"data.translate = {translate}, but the images are {width} pixels wide")
    there = {"train": images.train, "validation": images.validation, "test": images.test}
    for evaluator in recipe.evaluators:
        if not there[evaluator.split]:
            raise DataError(f"evaluator '{evaluator.name}' wants the {evaluator.split} images, but none are held out")


def _raw(data: schema.Data, say: Callable[[str], None]) -> Raw:
    match data:
        case schema.DigitsData():
            return sources.digits()
        case schema.Cifar10Data():
            return sources.cifar10(data.root)
        case schema.Cifar100Data():
            return sources.cifar100(data.root)
        case schema.FashionMnistData():
            return sources.fashion_mnist(data.root)
        case schema.FolderData():
            return folder.folder(data.root, size=data.size, channels=data.channels, say=say)
        case _:
            assert_never(data)


def network(recipe: Recipe, normalize: Normalize, *, channels: int, classes: int) -> nn.Module:
    """A new network on the CPU; its weights follow from the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(recipe.seed, "weights"))
        model = recipe.model
        match model:
            case schema.PreActResNetModel():
                make = preact_resnet
            case schema.WideResNetModel():
                make = wide_resnet
            case _:
                assert_never(model)
        return make(normalize, depth=model.depth, width=model.width, channels=channels, classes=classes)


def new_network(recipe: Recipe, images: Dataset, place: torch.device, team: Team = ALONE) -> nn.Module:
    """The network that the recipe trains, on `place`, normalising with the statistics of the training images; that of
    the first rank, on all of `team`."""
    channels = images.train.pixels.shape[1]
    made = network(recipe, Normalize(images.mean, images.std), channels=channels, classes=len(images.classes))
    if team.world > 1:
        for value in made.state_dict().values():
            team.spread(value)  # a CPU of another kind draws other last bits
        if recipe.engine.batch_norm == "synchronised":
            made = shared_batch_norm(made, team.stacked, team.total, on_gpu=place.type == "cuda")
    return _placed(made, recipe, place)


def saved_network(saved: checkpoint.Checkpoint, place: torch.device) -> nn.Module:
    """The network of a checkpoint, on `place`; CheckpointError lists parameters that are missing, too many, or of
    another shape."""
    channels = saved.image_shape[0]

    def blank() -> nn.Module:
        normalize = Normalize([0.0] * channels, [1.0] * channels)
        return network(saved.recipe, normalize, channels=channels, classes=len(saved.classes))

    try:
        with torch.device("meta"):  # a recipe can claim a network of any size: first without its memory
            claimed = blank()
            types = {name: value.dtype for name, value in claimed.state_dict().items()}
            claimed.load_state_dict(saved.state, strict=True, assign=True)
        wrong = [name for name, value in saved.state.items() if value.dtype != types[name]]
        if wrong:
            raise RuntimeError(f"{', '.join(wrong[:5])} of another type")
        made = blank()
        made.load_state_dict(saved.state, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit its recipe's network: {error}") from None
    return _placed(made, saved.recipe, place)


def foreign_network(chosen: Measurement, module: nn.Module, place: torch.device) -> nn.Module:
    """`module` on `place`, behind what makes pixels in [0, 1] what it takes."""
    model = chosen.model
    return _placed(on_pixels(module, model.input_range, model.statistics), chosen, place)


def _placed(made: nn.Module, recipe: Measuring, place: torch.device) -> nn.Module:
    layout = torch.channels_last if recipe.engine.channels_last else torch.contiguous_format
    return made.to(place).to(memory_format=layout)  # pyright: ignore[reportCallIssue] (torch's stub lacks this form)


def maximizer(recipe: Recipe, formulation: Formulation = "eager") -> Maximizer:
    """The method, with ε from [threat] and d from [loss], and its parts in that formulation."""
    chosen = recipe.maximizer
    match chosen:
        case schema.NoMaximizer():
            return maximizers.Pristine()
        case schema.AttackMaximizer():
            return maximizers.Attack(_pgd(recipe, chosen.ascent, formulation))
        case schema.MixThenAttackMaximizer():
            return maximizers.MixThenAttack(_pgd(recipe, chosen.ascent, formulation))
        case schema.AttackThenMixMaximizer():
            return maximizers.AttackThenMix(_pgd(recipe, chosen.ascent, formulation), chosen.mix_after)
        case schema.IntegratedMaximizer():
            return maximizers.Integrated(
                _pgd(recipe, chosen.ascent, formulation),
                chosen.delta,
                _learned(chosen),
                _labels(chosen.labels),
                chosen.mix_after,
            )
        case _:
            assert_never(chosen)


def _pgd(recipe: Recipe, chosen: schema.Ascent, formulation: Formulation) -> maximizers.Pgd:
    trades = recipe.loss.trades_beta is not None
    return maximizers.Pgd(
        epsilon=recipe.threat.epsilon,
        step_size=chosen.step_size,
        steps=chosen.steps,
        clamp=chosen.clamp,
        divergence=divergence.kl if trades else _divergence(recipe.loss),
        step=formed(ascent_step, formulation),
        reference=formed(prediction, formulation) if trades else None,
    )


def _learned(chosen: schema.IntegratedMaximizer) -> maximizers.LearnedRatio | None:
    ratio = chosen.ratio
    match ratio:
        case schema.FrozenRatio():
            return None
        case schema.LearnedRatio():
            return maximizers.LearnedRatio(ratio.kappa, ratio.travel / max(chosen.ascent.steps, 1), ratio.logit_clamp)
        case _:
            assert_never(ratio)


def _labels(labels: schema.LinearLabels | schema.GeometricLabels) -> maximizers.Labels:
    match labels:
        case schema.LinearLabels():
            return maximizers.Labels("linear", labels.detach)
        case schema.GeometricLabels():
            return maximizers.Labels(
                "geometric-clean" if labels.endpoints == "clean" else "geometric-perturbed", labels.detach
            )
        case _:
            assert_never(labels)


def _divergence(loss: schema.Loss) -> Divergence:
    return divergence.kl if loss.divergence == "kl" else divergence.cross_entropy


def sampler(recipe: Recipe) -> Sampler:
    """What the method needs drawn."""
    chosen = recipe.maximizer
    match chosen:
        case schema.NoMaximizer():
            return Sampler(copies=0)
        case schema.AttackMaximizer():
            return Sampler(init=chosen.ascent.init)
        case schema.MixThenAttackMaximizer() | schema.AttackThenMixMaximizer():
            return Sampler(init=chosen.ascent.init, alpha=chosen.ratio.alpha, per=chosen.ratio.per)
        case schema.IntegratedMaximizer():
            kappa = chosen.ratio.kappa if isinstance(chosen.ratio, schema.LearnedRatio) else 0.0
            if mass_above(kappa, chosen.ratio.alpha) < 1e-12:
                raise RecipeError(
                    f"maximizer.ratio: Beta({chosen.ratio.alpha}, {chosen.ratio.alpha}) has next to no mass above "
                    f"kappa = {kappa}, so there is no λ to start from; lower alpha or kappa"
                )
            return Sampler(
                copies=2 if chosen.delta == "independent" else 1,
                init=chosen.ascent.init,
                alpha=chosen.ratio.alpha,
                kappa=kappa,
                per=chosen.ratio.per,
            )
        case _:
            assert_never(chosen)


def optimizer(
    recipe: Recipe, parameters: list[nn.Parameter], update: Callable[..., None] = yogi_update
) -> torch.optim.Optimizer:
    """Over all parameters, those of the batch norms and biases included, as the cited code has it. On a GPU the rate is
    a tensor and so are the counts: a captured graph can then be given another rate, and counts itself. `update` is
    `yogi_update`, or a compiled form of it."""
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
                update=update,
            )
        case _:
            assert_never(chosen)


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


def share(batch_size: int, world: int) -> int:
    """The images of each of `world` ranks in an update of `batch_size`; UsageError says which can be shared."""
    least, below = 2 * world, batch_size // world * world
    if batch_size == below >= least:
        return batch_size // world
    if world == 1:
        return batch_size
    fit = [str(size) for size in (below, below + world) if size >= least] or [str(least)]
    raise UsageError(
        f"schedule.batch_size = {batch_size} cannot be shared by {world} ranks, each of which needs as many images as "
        f"the others, and at least two: {' or '.join(fit)} can; --set schedule.batch_size={fit[0]}, or start another "
        "number of ranks"
    )


def training(
    recipe: Recipe, images: Dataset, trained: nn.Module, formulation: Formulation = "eager", team: Team = ALONE
) -> Training:
    """The loop that trains `trained` on `images`; "captured" is made of compiled parts, and captured by the engine.

    A batch larger than the training set is all of it. UsageError if `team` cannot share it.
    """
    chosen, beta, engine = recipe.maximizer, recipe.loss.trades_beta, recipe.engine
    # What changes its arguments in place is nothing that torch.compile captures.
    update = "compiled" if formulation == "reduce-overhead" else formulation
    step = Step(
        network=trained,
        logits=logits_of(trained, precision=engine.precision, channels_last=engine.channels_last),
        maximizer=maximizer(recipe, formulation),
        divergence=_divergence(recipe.loss),
        optimizer=optimizer(recipe, list(trained.parameters()), formed(yogi_update, update, dynamic=True)),
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
        batch_size=share(min(recipe.schedule.batch_size, len(images.train)), team.world),
        flip=recipe.data.flip,
        translate=recipe.data.translate,
        seed=recipe.seed,
        average=average(recipe, trained),
        team=team,
    )


def evaluator(chosen: schema.Evaluator, threat: schema.Threat) -> Evaluator:
    """The measurement, with ε from [threat] unless it has its own."""
    match chosen:
        case schema.PristineEvaluator():
            return PristineEvaluator(chosen.batch_size)
        case schema.PgdEvaluator():
            return PgdEvaluator(
                epsilon=threat.epsilon if chosen.epsilon is None else chosen.epsilon,
                step_size=chosen.step_size,
                steps=chosen.steps,
                restarts=chosen.restarts,
                init=chosen.init,
                loss=chosen.loss,
                seed=chosen.seed,
                batch_size=chosen.batch_size,
            )
        case schema.AutoAttackEvaluator():
            return AutoAttack(
                version=chosen.version,
                epsilon=threat.epsilon if chosen.epsilon is None else chosen.epsilon,
                seed=chosen.seed,
                batch_size=chosen.batch_size,
            )
        case _:
            assert_never(chosen)


def validator(recipe: Recipe) -> PgdEvaluator:
    """The short PGD that each epoch is judged by."""
    epsilon = recipe.threat.epsilon
    wanted = recipe.validation.step_size
    return PgdEvaluator(
        epsilon=epsilon,
        step_size=epsilon / 4 if wanted is None else wanted,
        steps=recipe.validation.steps,
        restarts=1,
        init="uniform",
        loss="cross-entropy",
        seed=0,
        batch_size=500,
    )
