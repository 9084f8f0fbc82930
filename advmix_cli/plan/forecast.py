"""An estimate and what was measured -> how long a run will take."""

from dataclasses import dataclass

from advmix_cli.plan.estimate import Estimate
from advmix_cli.plan.probe import Probe
from advmix_cli.recipe.table import Row


@dataclass(frozen=True)
class Forecast:
    """Seconds of one run of a row."""

    probe: Probe
    epoch: float
    """The training of an epoch, without its validation."""
    training: float
    """All epochs, each with its validation."""
    reports: int
    """How many sets of weights are evaluated."""
    evaluation: float
    """All evaluators on all of these, at most."""


def forecast(row: Row, estimate: Estimate, probe: Probe) -> Forecast:
    """Preparing the training is left out: it is done once and takes a minute or two."""
    counted = estimate.cost
    epoch = counted.batches * counted.batch_size / probe.speed.images_per_second
    reports = 2 if row.recipe.validation.report == "both" and probe.evaluation.validation.images else 1
    return Forecast(
        probe=probe,
        epoch=epoch,
        training=counted.epochs * (epoch + probe.evaluation.validation.seconds),
        reports=reports,
        evaluation=reports * sum(one.seconds for one in probe.evaluation.evaluators),
    )
