"""A checkpoint -> the checks of its evaluation, and how they are shown."""

from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import nn

from advmix_cli import build
from advmix_cli.attacked import subject_of
from advmix_cli.checkpoint import Checkpoint
from advmix_cli.data.images import Dataset
from advmix_cli.diagnosis.battery import Battery, Check
from advmix_cli.errors import CheckpointError, UsageError
from advmix_cli.evaluation.pgd import Pgd
from advmix_cli.evaluation.predict import measured
from advmix_cli.measure.same_images import images_to_measure
from advmix_cli.recipe import schema
from advmix_cli.recipe.measurement import Measuring
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report.grid import Cell, Grid, folded
from advmix_cli.report.progress import Watcher
from advmix_cli.report.tables import levels

PASSES = 3000
"""Network passes an image, about: what compiling is weighed against."""
BATCH = 200
CHECKS = 10
WIDE, NARROW = 37, 24
"""Columns of text: with the verdicts 80 in all."""


class Diagnosis(NamedTuple):
    """The `checks` of a network of so many `classes`, on `n` images, with the threat's `epsilon`."""

    checks: tuple[Check, ...]
    n: int
    classes: int
    epsilon: float


def diagnose_checkpoint(
    saved: Checkpoint, recipe: Recipe, place: torch.device, watch: Watcher, limit: int, transfer: Checkpoint | None
) -> Diagnosis:
    """Check the network of `saved` on the data of `recipe`; `transfer` is a second checkpoint of a network for the same
    images."""
    images = images_to_measure(saved, recipe, place, watch.say)
    if transfer:
        _check_transfer(transfer, saved)
    network = build.saved_network(saved, place)
    other = build.saved_network(transfer, place) if transfer else None
    return diagnosed(network, images, recipe, recipe.seed, watch, limit, other)


def _check_transfer(transfer: Checkpoint, saved: Checkpoint) -> None:
    if transfer.weights == saved.weights:
        raise CheckpointError("--transfer is the checkpoint itself: its own images are no transfer; name another one")
    for what, there, own in (
        ("images of shape", transfer.image_shape, saved.image_shape),
        ("classes", ", ".join(transfer.classes), ", ".join(saved.classes)),
    ):
        if there != own:
            raise CheckpointError(f"the network of --transfer is for {what} {there}, and this one for {own}")


def diagnosed(
    network: nn.Module, images: Dataset, recipe: Measuring, seed: int, watch: Watcher, limit: int,
    other: nn.Module | None,
) -> Diagnosis:  # fmt: skip
    """Check a network on the first `limit` test images, with the ε of the threat of `recipe`."""
    if not recipe.threat.epsilon:
        raise UsageError("with threat.epsilon = 0 there is nothing to diagnose: nothing attacks")
    own = images.test.first(limit)
    with ExitStack() as within:
        for one in filter(None, (network, other)):
            within.enter_context(measured(one))
        subject = subject_of(recipe, network, own.first(BATCH), PASSES * len(own), watch.say)
        watch.begin("diagnosing", CHECKS, "checks")
        battery = Battery(
            subject=subject, images=own, epsilon=recipe.threat.epsilon, classes=len(images.classes), seed=seed,
            batch_size=BATCH, transfer=other, reported=_reported(recipe), tick=watch.advance,
        )  # fmt: skip
        found: list[Check] = []
        for check in battery():
            found.append(check)
            watch.advance(1)
        return Diagnosis(tuple(found), len(own), len(images.classes), recipe.threat.epsilon)


def _reported(recipe: Measuring) -> dict[str, Pgd]:
    """Its PGD evaluators with the threat's ε."""
    attacks = [one for one in recipe.evaluators if isinstance(one, schema.PgdEvaluator)]
    made = {one.name: build.pgd(one, recipe.threat) for one in attacks}
    return {name: one for name, one in made.items() if one.epsilon == recipe.threat.epsilon}


def diagnosis_grids(title: str, diagnosis: Diagnosis) -> list[Grid]:
    """A check a line; then the curve of accuracy against ε."""
    found = diagnosis.checks
    rows = [
        (
            Cell(folded(one.name, WIDE), (folded(f"wanted: {one.wanted}", WIDE),)),
            Cell(one.verdict),
            Cell(folded(one.number, NARROW)),
        )
        for one in found
    ]
    failed, tried = (sum(check.passed is what for check in found) for what in (False, True))
    captions = (
        f"on the first {diagnosis.n:,} test images; {failed} of {failed + tried} failed",
        "A check that fails says that the accuracies under attack are too high, not by how much. Checks that pass "
        "prove nothing: they are what the known ways of hiding gradients fail.",
    )
    grids = [Grid(f"Diagnosis of {title}", ("check", "", "found"), tuple(rows), captions, words=(2,))]
    curve = next((check.figures["curve"] for check in found if "curve" in check.figures), [])
    if curve:
        points = tuple((Cell(levels(one["epsilon"])), Cell(f"{100 * one['accuracy']:.1f}")) for one in curve)
        grids.append(Grid("PGD20", ("ε", "accuracy %"), points))
    return grids
