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
    networks: int
    """That are validated: the one that is trained, and its average if there is one."""
    validation: float
    """Of all of these, after each epoch."""
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
    networks, reports = row.recipe.networks, row.recipe.reports
    validation = networks * probe.evaluation.validation.seconds
    return Forecast(
        probe=probe,
        epoch=epoch,
        networks=networks,
        validation=validation,
        training=counted.epochs * (epoch + validation),
        reports=reports,
        evaluation=reports * sum(one.seconds for one in probe.evaluation.evaluators),
    )
