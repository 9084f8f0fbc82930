"""The inner maximizer, and what it needs drawn."""

from typing import assert_never

from advmix_cli.method import divergence, maximizers
from advmix_cli.method.ascent import ascent_step
from advmix_cli.method.draws import Sampler
from advmix_cli.method.maximizers import Divergence, Maximizer, prediction
from advmix_cli.recipe import schema
from advmix_cli.recipe.schema import Recipe
from advmix_cli.training.accelerate import Formulation, formed


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
        divergence=divergence.kl if trades else divergence_of(recipe.loss),
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


def divergence_of(loss: schema.Loss) -> Divergence:
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
            return Sampler(
                copies=2 if chosen.delta == "independent" else 1,
                init=chosen.ascent.init,
                alpha=chosen.ratio.alpha,
                kappa=kappa,
                per=chosen.ratio.per,
            )
        case _:
            assert_never(chosen)
