"""The worst case over several evaluators: an image is robust if it withstands all of them."""

import json
from collections.abc import Sequence

import torch

from advmix_cli.evaluation.outcome import Evaluated
from advmix_cli.evaluation.verdicts import NOTHING, Verdicts
from advmix_cli.seals import digest


def worst_case(name: str, found: Sequence[Evaluated], epsilon: float) -> Evaluated | None:
    """Over those of `found` that attack the test images with `epsilon`, on the images that all of them looked at; None
    if they are less than two. The evaluators stand in place of attacks, in the order in which they came."""
    attackers = [
        one
        for one in found
        if one.outcome.settings.get("split") == "test" and one.outcome.settings.get("epsilon") == epsilon
    ]
    if len(attackers) < 2:
        return None
    n = min(one.outcome.n for one in attackers)
    clean = torch.stack([one.verdicts.clean[:n] for one in attackers]).all(dim=0)
    broken_by = torch.full((n,), NOTHING, dtype=torch.int8)
    for number, one in reversed(list(enumerate(attackers))):
        broken_by[one.verdicts.broken_by[:n] != NOTHING] = number
    broken_by[~clean] = NOTHING
    margin = torch.stack([one.verdicts.margin[:n] for one in attackers]).amin(dim=0)
    names = tuple(one.outcome.name for one in attackers)
    last = attackers[-1].outcome
    settings = {"split": "test", "norm": last.settings["norm"], "epsilon": epsilon, "over": list(names)}
    # Two worst cases are comparable only if all that they are over was measured alike.
    settings["digest"] = digest(json.dumps([one.outcome.settings for one in attackers], sort_keys=True))[:12]
    if any(one.outcome.n != n for one in attackers):
        settings["images"] = f"the first {n}"
    seconds = sum(one.outcome.seconds for one in attackers)
    return Evaluated.of(
        name, Verdicts(names, clean, broken_by, margin), attackers[0].labels[:n], seconds, settings, last.machine
    )
