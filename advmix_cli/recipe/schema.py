"""The whole TOML surface of a recipe, as frozen models. Every default lives here and nowhere else.

A field that has no meaning for a kind does not exist in that kind's model, so writing it is an error.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError

from advmix_cli.recipe.fields import (
    Betas,
    Count,
    Decay,
    Flip,
    Fraction,
    Half,
    Name,
    NonNegative,
    OpenFraction,
    Pixels,
    Positive,
    PositiveCount,
    PositivePixels,
    Rate,
    Section,
    Seed,
    Title,
    Translate,
    WholeNumber,
)

YOUNGER = "younger than digests"
"""Marks a field that recipes had digests without: at its default it is in none, so that they stay what they were."""

# ---- data ----------------------------------------------------------------------------------------------------------


class _Source(Section):
    train_limit: PositiveInt | None = None
    """Train on this many images only, chosen by `seed`."""
    test_limit: PositiveInt | None = None
    """Keep only the first images of the test set."""
    seed: Seed = 0
    """Chooses the validation images and the `train_limit`, the same for every seed of the run itself."""


class _Downloaded(_Source):
    root: str | None = None
    """Directory in torchvision's own layout; by default the user's data directory. Filled on first use."""


class DigitsData(_Source):
    """scikit-learn's 1,797 real 8x8 grey images of handwritten digits: 1,500 to train, 297 to test. No download."""

    source: Literal["digits"]
    flip: Flip = False
    translate: Translate = 1


class Cifar10Data(_Downloaded):
    """CIFAR-10 as torchvision downloads it: 50,000 + 10,000 colour images, 32x32, 10 classes."""

    source: Literal["cifar10"]
    flip: Flip = True
    translate: Translate = 4


class Cifar100Data(_Downloaded):
    """CIFAR-100 as torchvision downloads it: 50,000 + 10,000 colour images, 32x32, 100 classes."""

    source: Literal["cifar100"]
    flip: Flip = True
    translate: Translate = 4


class FashionMnistData(_Downloaded):
    """Fashion-MNIST as torchvision downloads it: 60,000 + 10,000 grey images, 28x28, 10 classes."""

    source: Literal["fashion-mnist"]
    flip: Flip = True
    translate: Translate = 2


class FolderData(_Source):
    """Images of one's own: ROOT/train/CLASS/* and ROOT/test/CLASS/*, PNG, JPEG or WebP."""

    source: Literal["folder"]
    root: str
    """The directory that holds train/ and test/."""
    size: Annotated[int, Field(ge=8, le=64)] | None = None
    """Scale the shorter side to this many pixels and crop the centre; without it all images must have one size."""
    channels: Annotated[Literal[1, 3], WholeNumber] = 3
    """3 for colour, 1 for grey."""
    flip: Flip = True
    translate: Translate = 4


Data = Annotated[DigitsData | Cifar10Data | Cifar100Data | FashionMnistData | FolderData, Field(discriminator="source")]

# ---- model ---------------------------------------------------------------------------------------------------------


class PreActResNetModel(Section):
    """Pre-activation ResNet of basic blocks; depth 18 and width 64 are the paper's PreAct-ResNet-18."""

    kind: Literal["preact-resnet"]
    depth: Annotated[Literal[10, 18, 34], WholeNumber] = 18
    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the first stage; the four stages have 1, 2, 4 and 8 times as many."""


class WideResNetModel(Section):
    """Wide ResNet without dropout; depth 34 and width 10 are the paper's WRN-34-10."""

    kind: Literal["wide-resnet"]
    depth: Annotated[int, Field(le=1000)] = 34
    width: Annotated[int, Field(ge=1, le=1024)] = 10
    """Widening factor: the three stages have 16, 32 and 64 times as many channels."""

    @model_validator(mode="after")
    def _has_whole_blocks(self) -> Self:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise PydanticCustomError("depth", "depth must be 6n + 4: 10, 16, 22, 28, 34, ...")
        return self


Model = Annotated[PreActResNetModel | WideResNetModel, Field(discriminator="kind")]

# ---- threat and inner maximizer ------------------------------------------------------------------------------------


class Threat(Section):
    """What the adversary may do to an image."""

    norm: Literal["linf"] = "linf"
    epsilon: Pixels
    """Largest change of a pixel."""

    @property
    def quarter(self) -> float:
        """ε/4, a usual step; a grey level where ε is 0 and no step leads anywhere."""
        return self.epsilon / 4 or 1 / 255


class Ascent(Section):
    """The inner loop of Algorithm 1."""

    steps: Count
    """K, the number of signed gradient steps."""
    step_size: Pixels
    """η, the change of a pixel in one step."""
    init: Literal["uniform", "zero"] = "uniform"
    """Where δ starts: U(-ε, ε), or 0."""
    clamp: bool = True
    """Keep the perturbed images in [0, 1], at the start and at every step; the printed algorithms do not."""
    batch_norm: Literal["train", "batch", "eval"] = "train"
    """While attacking: batch statistics that also move the running ones (as the cited code does), batch statistics
    that leave the running ones alone, or the running statistics."""


class FrozenRatio(Section):
    """λ ~ Beta(α, α), then fixed."""

    kind: Literal["frozen"] = "frozen"
    alpha: Annotated[float, Field(ge=1e-3, le=1e6)] = 0.5
    per: Literal["sample", "batch"] = "sample"
    """One λ for each image, or one for the batch (as the cited code of Algorithm 2 has it)."""


class LearnedRatio(Section):
    """Algorithm 6: λ ~ Beta(α, α) above κ, then moved by the ascent through γ, λ = κ + (1 - κ)σ(γ)."""

    kind: Literal["learned"]
    alpha: Annotated[float, Field(ge=1e-3, le=1e6)] = 0.5
    per: Literal["sample", "batch"] = "sample"
    """One λ for each image, or one for the batch."""
    kappa: Annotated[float, Field(ge=0.5, lt=1)] = 0.65
    """κ, the lower bound of λ."""
    travel: NonNegative = 2.0
    """K·η_γ, how far γ can move in all: the step of γ is travel / steps."""
    logit_clamp: Annotated[float, Field(ge=1e-12, lt=0.5)] = 1e-6
    """(λ - κ)/(1 - κ) is kept this far from 0 and 1 before its logit is taken."""

    @model_validator(mode="after")
    def _has_ratios_above_kappa(self) -> Self:
        # Chernoff's bound of the mass of Beta(α, α) above κ: (4κ(1 - κ))^α.
        if self.alpha * math.log(4 * self.kappa * (1 - self.kappa)) < math.log(1e-12):
            raise PydanticCustomError(
                "kappa", "Beta({alpha}, {alpha}) has next to no mass above kappa = {kappa}: lower alpha or kappa",
                {"alpha": self.alpha, "kappa": self.kappa},
            )  # fmt: skip
        return self


class LinearLabels(Section):
    """λ_y = λ_x."""

    kind: Literal["linear"] = "linear"
    detach: bool = False
    """Keep the adversary's gradient from flowing through λ_y."""


class GeometricLabels(Section):
    """Algorithm 5: λ_y is where x'_m lies along the line between the endpoints."""

    kind: Literal["geometric"]
    endpoints: Literal["clean", "perturbed"] = "clean"
    """The line's ends: x_i and x_j, or x'_i and x'_j as printed (for which λ_y = λ_x identically)."""
    detach: bool = False
    """Keep the adversary's gradient from flowing through λ_y."""


class NoMaximizer(Section):
    """Plain training on the pristine images."""

    kind: Literal["none"]


class AttackMaximizer(Section):
    """Algorithm 1: PGD adversarial training."""

    kind: Literal["attack"]
    ascent: Ascent


class MixThenAttackMaximizer(Section):
    """Algorithm 2: mixup, then attack the mixture."""

    kind: Literal["mix-then-attack"]
    ascent: Ascent
    ratio: FrozenRatio = FrozenRatio()


MixAfter = Annotated[
    Literal[0, 1, 2],
    WholeNumber,
    YOUNGER,
    Field(
        description="Stages of the network before the mixture: 0 mixes the images; 1 and 2 mix what the last block of "
        "the first or second stage gives (Manifold Mixup)."
    ),
]


class AttackThenMixMaximizer(Section):
    """Algorithm 3: attack, then mixup (Interpolated Adversarial Training)."""

    kind: Literal["attack-then-mix"]
    ascent: Ascent
    ratio: FrozenRatio = FrozenRatio()
    mix_after: MixAfter = 0


class IntegratedMaximizer(Section):
    """Algorithms 4 to 6: attack through the mixup."""

    kind: Literal["integrated"]
    ascent: Ascent
    delta: Literal["independent", "shared"] = "independent"
    """δ of shape (2B, ...), one for each role of an image, or (B, ...), one for both."""
    ratio: Annotated[FrozenRatio | LearnedRatio, Field(discriminator="kind")] = LearnedRatio(kind="learned")
    labels: Annotated[LinearLabels | GeometricLabels, Field(discriminator="kind")] = LinearLabels()
    mix_after: MixAfter = 0

    @model_validator(mode="after")
    def _has_a_mixture_to_place(self) -> Self:
        if self.mix_after and not isinstance(self.labels, LinearLabels):
            raise PydanticCustomError(
                "mix_after",
                'labels.kind = "{kind}" has no meaning for mix_after = {stages}: it asks where the mixed image '
                'lies, and there is none; use "linear"',
                {"kind": self.labels.kind, "stages": self.mix_after},
            )
        return self

    @model_validator(mode="after")
    def _detaches_something(self) -> Self:
        if isinstance(self.labels, LinearLabels) and self.labels.detach and isinstance(self.ratio, FrozenRatio):
            raise PydanticCustomError(
                "detach", "labels.detach has no meaning here: linear labels of a frozen λ have no gradient"
            )
        return self


Maximizer = Annotated[
    NoMaximizer | AttackMaximizer | MixThenAttackMaximizer | AttackThenMixMaximizer | IntegratedMaximizer,
    Field(discriminator="kind"),
]


class Loss(Section):
    """d(f(x), y), for the adversary and for the update."""

    divergence: Literal["kl", "cross-entropy"] = "kl"
    """KL(y || softmax f(x)), or the cross-entropy; they differ where the label is optimised too."""
    pristine_weight: Fraction = 0.0
    """w in (1 - w)·L(x'_m, y'_m) + w·L(x_m, y_m); 0.5 is Interpolated Adversarial Training's sum."""
    trades_beta: Positive | None = None
    """TRADES with this β: the update's loss is d(f(x), y) + β·KL(softmax f(x) || softmax f(x')), and the adversary
    ascends that KL from the prediction on the pristine images, whatever their labels. 6 in its paper."""

    @model_validator(mode="after")
    def _has_one_pristine_term(self) -> Self:
        if self.trades_beta is not None and self.pristine_weight:
            raise PydanticCustomError(
                "trades_beta", "pristine_weight has no meaning beside trades_beta: TRADES has the pristine loss in it"
            )
        return self


# ---- optimisation --------------------------------------------------------------------------------------------------


class Sgd(Section):
    """torch.optim.SGD."""

    kind: Literal["sgd"]
    lr: Rate
    momentum: Decay = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 0.0

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise PydanticCustomError("nesterov", "nesterov needs a momentum above 0")
        return self


class Adam(Section):
    """torch.optim.Adam."""

    kind: Literal["adam"]
    lr: Rate
    betas: Betas = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0


class AdamW(Section):
    """torch.optim.AdamW."""

    kind: Literal["adamw"]
    lr: Rate
    betas: Betas = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.01


class Yogi(Section):
    """Yogi as the paper's library has it: the weight decay is added to the gradient, both moments are debiased."""

    kind: Literal["yogi"]
    lr: Rate
    betas: Betas = (0.9, 0.999)
    eps: Positive = 1e-3
    initial_accumulator: NonNegative = 1e-6
    weight_decay: NonNegative = 0.0


Optimizer = Annotated[Sgd | Adam | AdamW | Yogi, Field(discriminator="kind")]


class _Schedule(Section):
    epochs: PositiveCount
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Images in an update; the last, incomplete batch of an epoch is left out."""
    on_collapse: Annotated[Literal["warn", "stop", "rollback"], YOUNGER] = "warn"
    """Within an epoch the accuracy under the validation's attack falls from more than twice chance to half of it: say
    so; or end the training as one that diverged; or go on from the weights of the best epoch so far, which become the
    average's too, with an optimizer that starts again (not after the last epoch). An epoch that collapsed is in the
    results whatever was done."""


class StepSchedule(_Schedule):
    """The learning rate is multiplied by `factor` at each of the `drops`."""

    kind: Literal["steps"]
    drops: Annotated[tuple[OpenFraction, ...], Field(strict=False)] = (0.7, 0.9)
    """Fractions of the training; empty for a constant learning rate."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _drops_ascend(self) -> Self:
        if list(self.drops) != sorted(set(self.drops)):
            raise PydanticCustomError("drops", "drops must ascend, each once")
        return self


class CosineSchedule(_Schedule):
    """Linear warm-up, then half a cosine down to `final` times the learning rate."""

    kind: Literal["cosine"]
    warmup: Decay = 0.0
    """Fraction of the training."""
    final: Fraction = 0.0


class OneCycleSchedule(_Schedule):
    """Linear from `initial` up to the learning rate at `peak`, then linear down to `final`."""

    kind: Literal["one-cycle"]
    peak: OpenFraction = 0.4
    """Fraction of the training."""
    initial: Fraction = 0.0
    final: Fraction = 0.0


Schedule = Annotated[StepSchedule | CosineSchedule | OneCycleSchedule, Field(discriminator="kind")]


class NoAveraging(Section):
    """The weights as they are trained, alone."""

    kind: Literal["none"] = "none"


class EmaAveraging(Section):
    """Beside the weights their exponential moving average, by which each update is followed. It changes nothing of the
    training; what is validated, saved and measured of the weights is so of their average."""

    kind: Literal["ema"]
    decay: Decay = 0.995
    """The share of itself that the average keeps at an update: it looks back over about 1 / (1 - decay) of them."""
    warmup: bool = True
    """min(decay, (1 + t) / (10 + t)) at the update after t others: the first weights are soon forgotten."""


Averaging = Annotated[NoAveraging | EmaAveraging, Field(discriminator="kind")]


class Validation(Section):
    """The images that choose the best epoch, and the short PGD that they are measured with."""

    on: Literal["held-out", "test"] = "held-out"
    """Images held out of the training set, or the test set itself: a choice made on test data is stamped as such."""
    fraction: Half | None = None
    """Of the training set, held out; by default 0.02; 0 for no validation and no best epoch."""
    limit: PositiveInt | None = None
    """Measure on the first of them only."""
    steps: PositiveCount = 10
    step_size: PositivePixels | None = None
    """By default ε/4."""
    report: Literal["last", "best", "both"] = "both"
    """Which epoch's weights the evaluators measure after training, and with them its average, if there is one; both
    kinds are always saved."""

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        if self.report == "best" and self.on == "held-out" and self.fraction == 0:
            raise PydanticCustomError("report", "there is no best epoch to report when fraction is 0")
        if self.on == "test" and self.fraction is not None:
            raise PydanticCustomError("fraction", 'fraction has no meaning for on = "test": nothing is held out')
        return self

    @property
    def held_out(self) -> float:
        """The fraction of the training set that is held out."""
        if self.on == "test":
            return 0.0
        return 0.02 if self.fraction is None else self.fraction


class Engine(Section):
    """How the arithmetic is done."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the network in training; parameters, δ, γ and loss stay fp32, and verdicts of evaluations are in full fp32.
    "fp32" is torch's own, by which a recent GPU runs convolutions in TF32; "bf16" is autocast."""
    channels_last: bool = True
    compile: Literal["auto", "off", "step", "graph"] = "auto"
    """Of training: eager ("off"), the reference; or the step of the ascent, the loss and the update compiled ("step");
    or, on a CUDA GPU, the whole batch as one CUDA graph of compiled parts ("graph"). "auto" is "graph" on a GPU and
    "step" on a CPU where a training is long enough to pay for it. Where it cannot be done training is eager, with a
    warning; "graph" written here makes that an error. What attacks look at in an evaluation is compiled where that is
    long enough, unless this is "off"."""
    batch_norm: Annotated[Literal["averaged", "synchronised"], YOUNGER] = "averaged"
    """Of a training on several GPUs (torchrun), each of which has a part of the batch: each normalises by the
    statistics of its own part, and the running ones are averaged at every update; or all normalise by those of the
    whole batch, in the update and in the attack, as one GPU does. On one it has no effect."""
    deterministic: bool = False
    """Train with such algorithms alone as give the same bits every time. On a CPU all of them do; on a CUDA GPU this
    costs speed, and a training that was stopped ends with the same bits only with it."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Of the CPU; by default torch's own choice, which follows the machine. The number of threads changes the last bits
    of a sum, so a recipe that names it gives the same numbers on more machines; a small network is fastest with one."""


# ---- evaluation ----------------------------------------------------------------------------------------------------


WORST = "worst case"
"""What is found over all evaluators."""


class _Evaluator(Section):
    split: Literal["test", "validation", "train"] = "test"
    limit: PositiveInt | None = None
    """Measure on at most so many images, the first of the split; the result says how many there were."""
    batch_size: PositiveCount = 500


class _Attacker(_Evaluator):
    epsilon: Pixels | None = None
    """By default the threat's."""
    seed: Seed = 0


# A field that is itself wrong is not in `earlier`; pydantic 2.12 asks for the name all the same.
def _pristine_name(earlier: Mapping[str, Any]) -> str:
    return f"pristine{_of_split(earlier)}"


def _pgd_name(earlier: Mapping[str, Any]) -> str:
    return f"PGD{earlier.get('steps', '')}{_of_split(earlier)}"


def _autoattack_name(earlier: Mapping[str, Any]) -> str:
    return f"AA {earlier.get('version', '')}{_of_split(earlier)}"


def _of_split(earlier: Mapping[str, Any]) -> str:
    split = earlier.get("split", "test")
    return "" if split == "test" else f" {split}"


class PristineEvaluator(_Evaluator):
    """Accuracy on the images as they are."""

    kind: Literal["pristine"]
    name: Name = Field(default_factory=_pristine_name)


class PgdEvaluator(_Attacker):
    """Projected gradient descent on the final iterate, with restarts."""

    kind: Literal["pgd"]
    steps: PositiveCount
    step_size: PositivePixels
    restarts: PositiveCount = 1
    init: Literal["uniform", "zero"] = "uniform"
    loss: Literal["cross-entropy", "margin"] = "cross-entropy"
    """The margin is max_{k != y} f_k - f_y (Carlini and Wagner's)."""
    name: Name = Field(default_factory=_pgd_name)

    @model_validator(mode="after")
    def _restarts_differ(self) -> Self:
        if self.init == "zero" and self.restarts > 1:
            raise PydanticCustomError("restarts", 'restarts from init = "zero" are all the same: use "uniform"')
        return self


class AutoAttackEvaluator(_Attacker):
    """AutoAttack (pyautoattack). "cheap-2020" is the version that the paper calls AAch, removed upstream since."""

    kind: Literal["autoattack"]
    version: Literal["standard", "cheap-2020", "plus", "rand"]
    name: Name = Field(default_factory=_autoattack_name)


Evaluator = Annotated[PristineEvaluator | PgdEvaluator | AutoAttackEvaluator, Field(discriminator="kind")]

# ---- the recipe ----------------------------------------------------------------------------------------------------


def derived_name(evaluator: Mapping[str, Any]) -> str | None:
    """That of an evaluator as a file spells it, if it were given none."""
    match evaluator.get("kind"):
        case "pristine":
            return _pristine_name(evaluator)
        case "pgd":
            return _pgd_name(evaluator)
        case "autoattack":
            return _autoattack_name(evaluator)
        case _:
            return None


def _with_names_of_their_own(evaluators: tuple[Evaluator, ...]) -> tuple[Evaluator, ...]:
    """PydanticCustomError if two have the same name, or one that of what is found over all of them."""
    names = [evaluator.name for evaluator in evaluators]
    if WORST in names:
        raise PydanticCustomError("names", "'{name}' is the name of all of them", {"name": WORST})
    for name in names:
        if names.count(name) > 1:
            raise PydanticCustomError("names", "two are called '{name}'; give one of them a name", {"name": name})
    return evaluators


Evaluators = Annotated[tuple[Evaluator, ...], Field(strict=False), AfterValidator(_with_names_of_their_own)]


def _without_younger(section: Section, content: dict[str, Any]) -> dict[str, Any]:
    """`content` of a section without the fields that are YOUNGER and at their default."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if YOUNGER in field.metadata and value == field.default:
            del content[name]
        elif isinstance(value, Section):
            _without_younger(value, content[name])
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Recipe(Section):
    """One experiment: what is trained, and how it is judged."""

    title: Title = ""
    seed: Seed = 0
    """Of the weights, the order of the images, the augmentation, λ and δ."""
    data: Data
    model: Model
    threat: Threat
    maximizer: Maximizer
    loss: Loss = Loss()
    optimizer: Optimizer
    schedule: Schedule
    averaging: Annotated[Averaging, YOUNGER] = NoAveraging()
    validation: Validation = Validation()
    engine: Engine = Engine()
    evaluators: Evaluators = ()

    @property
    def networks(self) -> int:
        """That there are after an epoch: the trained one, and its average."""
        return 1 if isinstance(self.averaging, NoAveraging) else 2

    @property
    def reports(self) -> int:
        """How many sets of weights are measured: of each network the last or the best or both."""
        chosen = self.validation
        both = chosen.report == "both" and (chosen.on == "test" or chosen.held_out > 0)
        return self.networks * (2 if both else 1)

    @model_validator(mode="after")
    def _has_two_losses(self) -> Self:
        if isinstance(self.maximizer, NoMaximizer) and self.loss.pristine_weight:
            raise PydanticCustomError(
                "pristine_weight", 'loss.pristine_weight has no meaning for maximizer.kind = "none": all is pristine'
            )
        return self

    @model_validator(mode="after")
    def _trades_has_a_meaning(self) -> Self:
        if self.loss.trades_beta is None:
            return self
        chosen = self.maximizer
        why = ""
        if isinstance(chosen, NoMaximizer):
            why = 'has no meaning for maximizer.kind = "none": no image is perturbed'
        elif chosen.ascent.init == "zero":
            why = (
                'has no meaning for ascent.init = "zero": at δ = 0 its adversary has no gradient to follow; '
                'use "uniform"'
            )
        elif isinstance(chosen, IntegratedMaximizer) and isinstance(chosen.ratio, LearnedRatio):
            why = (
                'has no meaning for ratio.kind = "learned": its adversary ascends from one prediction on the pristine '
                'mixture, which must stay; use "frozen"'
            )
        elif isinstance(chosen, IntegratedMaximizer) and not isinstance(chosen.labels, LinearLabels):
            why = (
                f'has no meaning for labels.kind = "{chosen.labels.kind}": the label of the perturbed mixture is in no '
                'term of it; use "linear"'
            )
        if why:
            raise PydanticCustomError("trades_beta", "loss.trades_beta {why}", {"why": why})
        return self

    @model_validator(mode="after")
    def _sees_a_collapse(self) -> Self:
        what, validation = self.schedule.on_collapse, self.validation
        if what != "warn" and validation.on == "held-out" and not validation.held_out:
            raise PydanticCustomError(
                "on_collapse", 'schedule.on_collapse = "{what}" needs validation images, and validation.fraction is 0',
                {"what": what},
            )  # fmt: skip
        if what == "rollback" and validation.on == "test":
            raise PydanticCustomError(
                "on_collapse", 'schedule.on_collapse = "rollback" with validation.on = "test" would train on a choice '
                "made on test images",
            )  # fmt: skip
        return self

    def resolved(self) -> dict[str, Any]:
        """Every field with its value, as TOML can hold it (what is None is left out)."""
        return self.model_dump(mode="json", exclude_none=True)

    def digest(self) -> str:
        """SHA-256 of what changes the numbers: all but the title and the directory of a downloaded dataset.

        A folder has no identity but its path, so its path counts.
        """
        return _digest(self._content())

    def training_digest(self) -> str:
        """The same of what changes the networks: not of the evaluators, and of which epochs they measure."""
        content = self._content()
        del content["evaluators"], content["validation"]["report"]
        return _digest(content)

    def _content(self) -> dict[str, Any]:
        """What changes the numbers."""
        content = _without_younger(self, self.resolved())
        del content["title"]
        if not isinstance(self.data, FolderData):
            content["data"].pop("root", None)
        return content

    @property
    def attack_passes(self) -> int:
        """Network passes of one image's attack in one epoch: K steps of a forward and an input gradient each, 2K;
        TRADES has one more, for the prediction that it ascends from."""
        steps = 0 if isinstance(self.maximizer, NoMaximizer) else self.maximizer.ascent.steps
        return 2 * steps + (self.loss.trades_beta is not None)

    @property
    def update_losses(self) -> int:
        """Forward passes that the update's loss is made of: with a pristine loss, as TRADES has one, there are two."""
        return 2 if self.loss.pristine_weight or self.loss.trades_beta is not None else 1

    def passes_per_image(self) -> int:
        """Network passes that one image costs in one epoch: the attack's, and three for each loss of the update, since
        a backward pass for the weights counts two. 2K + 3, 2K + 6 with a pristine loss, 2K + 7 in TRADES.

        A pass that mixes within the network runs its first stages twice, and counts once.
        """
        return self.attack_passes + 3 * self.update_losses
