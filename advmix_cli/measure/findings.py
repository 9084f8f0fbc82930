"""What evaluators have found before they were interrupted."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

from advmix_cli import machine, seals
from advmix_cli.checkpoint import Checkpoint
from advmix_cli.evaluation.notebook import Written, fail
from advmix_cli.recipe import schema
from advmix_cli.recipe.measurement import Measuring


@dataclass(frozen=True)
class Known:
    """By what findings know a network without a checkpoint: its own digest, and that of each part of its images."""

    weights: str
    images: dict[str, str]


@dataclass
class Findings:
    """What the evaluators have found so far of one checkpoint, in a directory: one in it for each of them, which is
    that of the same weights, images, settings, machine and versions alone. `unwritable` is told where it cannot be
    kept; `images`: whether the images that attacks end with are kept, too."""

    directory: Path
    saved: Checkpoint | Known
    recipe: Measuring
    place: torch.device
    unwritable: Callable[[OSError], None] = fail
    images: bool = False
    _made: list[Written] = field(default_factory=list)

    def of(self, chosen: schema.Evaluator) -> Written:
        """Those of an evaluator, to be asked for on the threads that it will run on."""
        parts = (self.recipe.model, self.recipe.threat, self.recipe.engine, chosen)
        settings = [part.model_dump(mode="json") for part in parts]
        made_with = [machine.described(self.place), version("pyautoattack")]
        owner = json.dumps([self.saved.weights, self.saved.images, settings, made_with])
        path = self.directory / f"{chosen.name} {seals.digest(owner)[:16]}"
        self._made.append(Written(path, owner, self.place, self.unwritable, images=self.images))
        return self._made[-1]

    def discard(self) -> None:
        """All is found, and has been told."""
        for written in self._made:
            written.discard()
