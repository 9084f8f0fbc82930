"""The whole way of a batch, from the uint8 images on the device to the update: what a CUDA graph captures."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from advmix_cli.data.augment import Moves, augment
from advmix_cli.data.images import Dataset, to_unit
from advmix_cli.method.draws import Draws
from advmix_cli.training.step import Step


class Batch(NamedTuple):
    """All that differs between two batches, drawn beforehand: `indices` (B,) of the images, how they move, and the
    random numbers of the method. The shapes are those of every other batch."""

    indices: Tensor
    moves: Moves
    draws: Draws

    def tensors(self) -> list[Tensor]:
        """All of it, in a fixed order."""
        return [self.indices, *self.moves, *self.draws]

    def copy(self) -> "Batch":
        """In memory of its own."""
        moves, draws = (value.clone() for value in self.moves), (value.clone() for value in self.draws)
        return Batch(self.indices.clone(), Moves(*moves), Draws(*draws))


@dataclass(frozen=True)
class OnBatch:
    """Gather, augment, step. Nothing in it waits for the device."""

    step: Step
    dataset: Dataset
    translate: int

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """The step's figures."""
        return self.step(*self.inputs(batch), batch.draws)

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W) and y (B, K), as the step is given them."""
        images = self.dataset.train.at(batch.indices)
        x = to_unit(augment(images.pixels, batch.moves, self.translate))
        return x, self.dataset.labels_one_hot(images.labels)
