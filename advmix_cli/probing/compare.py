"""The paper's algorithms on the same batch, from the same draws."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from advmix_cli import build
from advmix_cli.data.images import Dataset
from advmix_cli.method.draws import Draws
from advmix_cli.method.ratio import mass_above
from advmix_cli.probing.climb import Climb, climb
from advmix_cli.probing.numbers import Paired, Spread
from advmix_cli.recipe import schema
from advmix_cli.recipe.schema import Recipe
from advmix_cli.training.batch import OnBatch
from advmix_cli.training.loop import Training
from advmix_cli.training.step import Step

BASELINES = ("2 mix-then-attack", "4 integrated")


class First(NamedTuple):
    """The first batch of a training, and the step that takes it."""

    step: Step
    x: Tensor
    y: Tensor
    draws: Draws


def first_batch(recipe: Recipe, images: Dataset, network: nn.Module) -> First:
    """Of a training of `recipe`, bit for bit, with `network` as it is; the arithmetic is the eager one."""
    training: Training = build.training(recipe, images, network)
    on_batch = training.on_batch
    assert isinstance(on_batch, OnBatch)
    batch = training.draw(training.order(1), epoch=1, index=0)
    return First(on_batch.step, *on_batch.inputs(batch), batch.draws)


@dataclass(frozen=True)
class Standing:
    """What an algorithm reached on the batch."""

    name: str
    own: bool
    """It is the recipe's."""
    path: tuple[float, ...]
    """The mean of its own objective, at the start and after each step."""
    reached: Spread
    """d(f(x'), y') of the batch to train on."""
    against: dict[str, Paired]
    """That beside a baseline's, image by image."""

    def to_json(self) -> dict[str, Any]:
        """All but what the path ends with, image by image."""
        return {
            "name": self.name,
            "own": self.own,
            "path": list(self.path),
            "reached": self.reached.to_json(),
            "against": {name: paired.to_json() for name, paired in self.against.items()},
        }


def algorithms(recipe: Recipe) -> dict[str, schema.Maximizer]:
    """Algorithms 1, 2, 3, 4, 6 and 5 with them, in that order, with the ascent and all else that the recipe says of
    them. Without an ascent of its own: the paper's, five steps of ε/2."""
    own = recipe.maximizer
    ascent = (
        schema.Ascent(steps=5, step_size=recipe.threat.epsilon / 2)
        if isinstance(own, schema.NoMaximizer)
        else own.ascent
    )
    ratio = schema.FrozenRatio() if isinstance(own, schema.NoMaximizer | schema.AttackMaximizer) else own.ratio
    frozen = schema.FrozenRatio(alpha=ratio.alpha, per=ratio.per)
    learned = ratio if isinstance(ratio, schema.LearnedRatio) else _learned(frozen)
    delta, labels = "independent", None
    if isinstance(own, schema.IntegratedMaximizer):
        delta, labels = own.delta, own.labels
    linear = labels if isinstance(labels, schema.LinearLabels) else schema.LinearLabels()
    geometric = labels if isinstance(labels, schema.GeometricLabels) else schema.GeometricLabels(kind="geometric")

    def integrated(
        ratio: schema.FrozenRatio | schema.LearnedRatio, labels: schema.LinearLabels | schema.GeometricLabels
    ) -> schema.IntegratedMaximizer:
        return schema.IntegratedMaximizer(kind="integrated", ascent=ascent, delta=delta, ratio=ratio, labels=labels)

    return {
        "1 attack": schema.AttackMaximizer(kind="attack", ascent=ascent),
        "2 mix-then-attack": schema.MixThenAttackMaximizer(kind="mix-then-attack", ascent=ascent, ratio=frozen),
        "3 attack-then-mix": schema.AttackThenMixMaximizer(kind="attack-then-mix", ascent=ascent, ratio=frozen),
        "4 integrated": integrated(frozen, schema.LinearLabels()),
        "4+6 learned λ": integrated(learned, linear),
        "4+5+6 geometric": integrated(learned, geometric),
    }


def _learned(frozen: schema.FrozenRatio) -> schema.LearnedRatio:
    """Algorithm 6 as the schema has it by default, from a distribution that may have nothing so far from 1/2."""
    kappa = schema.LearnedRatio(kind="learned").kappa
    kappa = kappa if mass_above(kappa, frozen.alpha) >= 1e-3 else 0.5
    return schema.LearnedRatio(kind="learned", alpha=frozen.alpha, per=frozen.per, kappa=kappa)


def standings(recipe: Recipe, images: Dataset, network: nn.Module) -> list[Standing]:
    """Every algorithm on the first batch of a training with Algorithm 6, whose λ is one that Algorithm 6 can start
    from; an algorithm that needs less noise is given the first of it."""
    chosen = algorithms(recipe)
    # TRADES leaves no label to be learned; its adversary has another objective, and is no line of the paper.
    plain = recipe.loss.model_copy(update={"trades_beta": None})
    trades, recipe = recipe.loss.trades_beta is not None, recipe.model_copy(update={"loss": plain})
    made = {name: recipe.model_copy(update={"maximizer": one}) for name, one in chosen.items()}
    _, x, y, draws = first_batch(made["4+6 learned λ"], images, network)
    climbs: dict[str, Climb] = {}
    for name, other in made.items():
        needed = build.sampler(other).copies * len(x)
        step = first_batch(other, images, network).step
        climbs[name] = climb(step, x, y, draws._replace(noise=draws.noise[:needed]))
    return [
        Standing(
            name=name,
            own=not trades and chosen[name] == recipe.maximizer,
            path=tuple(float(losses.double().mean()) for losses in one.path),
            reached=Spread.of(one.reached),
            against=_against(name, climbs),
        )
        for name, one in climbs.items()
    ]


def _against(name: str, climbs: Mapping[str, Climb]) -> dict[str, Paired]:
    return {
        baseline: Paired.of(climbs[name].reached, climbs[baseline].reached)
        for baseline in BASELINES
        if baseline != name
    }
