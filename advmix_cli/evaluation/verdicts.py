"""What an evaluator says of each image."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from advmix_cli.evaluation.predict import Judgement

NOTHING = -1
"""In place of the attack that broke an image."""
SLACK = 6e-7
"""What rounding may add to ε: five float32 ulps of 1."""


class Finding(NamedTuple):
    """What one attack found on a batch. `stands` (B,) bool: by its own reckoning it did not break the image.
    `judgement`: that of the network on the images that it ended with, `images` (B, C, H, W) float32, if they are kept.
    """

    stands: Tensor
    judgement: Judgement
    images: Tensor | None


class Verdicts(NamedTuple):
    """Of N images. `clean` (N,) bool: right as it is. `broken_by` (N,) int8: the number of the attack that broke it,
    the first of `attacks` that did, or NOTHING. `margin` (N,) float32: that of the image that broke it, or the smallest
    that was seen. `images` (N, C, H, W) float32, if they are kept: where that margin was."""

    attacks: tuple[str, ...]
    clean: Tensor
    broken_by: Tensor
    margin: Tensor
    images: Tensor | None = None

    @property
    def robust(self) -> Tensor:
        """(N,) bool: right, whatever was done to it."""
        return self.clean & (self.broken_by == NOTHING)

    def cpu(self) -> "Verdicts":
        """The same on the CPU."""
        images = None if self.images is None else self.images.cpu()
        return Verdicts(self.attacks, self.clean.cpu(), self.broken_by.cpu(), self.margin.cpu(), images)

    def broken(self) -> dict[str, int]:
        """How many images were wrong as they are ("clean"), and how many each attack broke, those that others had left
        standing."""
        counts = {"clean": int((~self.clean).sum())}
        return counts | {attack: int((self.broken_by == number).sum()) for number, attack in enumerate(self.attacks)}


class Tally:
    """Verdicts in the making: nothing is broken but what is wrong as it is."""

    def __init__(self, attacks: Sequence[str], clean: Judgement, images: Tensor | None) -> None:
        """`images` (N, C, H, W) as they are, if what becomes of them is to be kept."""
        nothing = torch.full_like(clean.correct, NOTHING, dtype=torch.int8)
        kept = None if images is None else images.clone()
        self.verdicts = Verdicts(tuple(attacks), clean.correct, nothing, clean.margin.clone(), kept)

    def standing(self) -> Tensor:
        """(S,) the indices of what is right so far."""
        return self.verdicts.robust.nonzero().squeeze(1)

    def enter(self, attack: int, batch: Tensor, finding: Finding) -> None:
        """What attack number `attack` found on the images at `batch`, all of which were standing."""
        now = self.verdicts
        broke = ~finding.stands
        now.broken_by[batch[broke]] = attack
        nearest = broke | (finding.judgement.margin < now.margin[batch])
        now.margin[batch[nearest]] = finding.judgement.margin[nearest]
        if now.images is not None and finding.images is not None:
            now.images[batch[nearest]] = finding.images[nearest]

    def replace(self, batch: Tensor, again: Verdicts) -> None:
        """The verdicts on the images at `batch` are those of `again`."""
        for mine, theirs in zip(self.verdicts[1:], again[1:], strict=True):
            if isinstance(mine, Tensor) and isinstance(theirs, Tensor):
                mine[batch] = theirs
