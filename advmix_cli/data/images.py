"""What a dataset is once loaded."""

import hashlib
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import one_hot


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1]."""
    return pixels.float() / 255


@dataclass(frozen=True)
class Images:
    """`pixels` (N, C, H, W) uint8, `labels` (N,) int64."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device) -> "Images":
        """The same images on `device`."""
        return Images(self.pixels.to(device), self.labels.to(device))

    def first(self, count: int | None) -> "Images":
        """The first `count` images, or all of them."""
        return Images(self.pixels[:count], self.labels[:count])

    def fingerprint(self) -> str:
        """SHA-256 of every pixel and label."""
        total = hashlib.sha256()
        for value in (self.pixels, self.labels):
            total.update(f"{tuple(value.shape)} {value.dtype}".encode())
            total.update(value.cpu().contiguous().numpy().data)
        return total.hexdigest()

    def at(self, indices: Tensor) -> "Images":
        """The images at `indices`, in that order."""
        return Images(self.pixels[indices], self.labels[indices])


Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)


class Raw(NamedTuple):
    """A source as it is: two disjoint sets of images, and the names of the classes."""

    train: Images
    test: Images
    classes: tuple[str, ...]


class Dataset(NamedTuple):
    """A source split for one experiment; `mean` and `std` of each channel of the training images, in [0, 1] units."""

    train: Images
    validation: Images
    test: Images
    classes: tuple[str, ...]
    mean: list[float]
    std: list[float]

    def part(self, name: Part) -> Images:
        """The images of that name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of every pixel and label, of each part."""
        return {name: self.part(name).fingerprint() for name in PARTS}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    def labels_one_hot(self, labels: Tensor) -> Tensor:
        """(B,) -> (B, K) float32."""
        return one_hot(labels, len(self.classes)).float()

    def to(self, device: torch.device) -> "Dataset":
        """The same images on `device`."""
        return self._replace(
            train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device)
        )
