"""What a network is measured with."""

from typing import assert_never

from advmix_cli.evaluation.autoattack import AutoAttack
from advmix_cli.evaluation.outcome import Evaluator
from advmix_cli.evaluation.pgd import Pgd
from advmix_cli.evaluation.pristine import Pristine
from advmix_cli.recipe import schema
from advmix_cli.recipe.schema import Recipe


def evaluator(chosen: schema.Evaluator, threat: schema.Threat) -> Evaluator:
    """The measurement, with ε from [threat] unless it has its own."""
    match chosen:
        case schema.PristineEvaluator():
            return Pristine(chosen.batch_size)
        case schema.PgdEvaluator():
            return pgd(chosen, threat)
        case schema.AutoAttackEvaluator():
            return AutoAttack(
                version=chosen.version,
                epsilon=threat.epsilon if chosen.epsilon is None else chosen.epsilon,
                seed=chosen.seed,
                batch_size=chosen.batch_size,
            )
        case _:
            assert_never(chosen)


def pgd(chosen: schema.PgdEvaluator, threat: schema.Threat) -> Pgd:
    """The attack, with ε from [threat] unless it has its own."""
    return Pgd(
        epsilon=threat.epsilon if chosen.epsilon is None else chosen.epsilon,
        step_size=chosen.step_size,
        steps=chosen.steps,
        restarts=chosen.restarts,
        init=chosen.init,
        loss=chosen.loss,
        seed=chosen.seed,
        batch_size=chosen.batch_size,
    )


def validator(recipe: Recipe) -> Pgd:
    """The short PGD that each epoch is judged by."""
    wanted = recipe.validation
    step_size = recipe.threat.quarter if wanted.step_size is None else wanted.step_size
    return pgd(schema.PgdEvaluator(kind="pgd", steps=wanted.steps, step_size=step_size), recipe.threat)
