"""What a dataset is like, without its images: enough to count costs and to measure speed where it is not at hand."""

from typing import NamedTuple

import torch

from advmix_cli.data.images import Dataset, Images
from advmix_cli.seeding import generator


class Outline(NamedTuple):
    """`image_shape` (C, H, W), and how many classes and images there are."""

    image_shape: tuple[int, int, int]
    classes: int
    train: int
    validation: int
    test: int

    @classmethod
    def of(cls, images: Dataset) -> "Outline":
        """That of a dataset."""
        return cls(images.image_shape, len(images.classes), len(images.train), len(images.validation), len(images.test))

    def noise(self, count: int) -> Dataset:
        """A dataset of `count` training and as many test images of uniform noise, none held out."""
        random = generator("cpu", 0, "noise images")
        pixels = torch.randint(256, (2 * count, *self.image_shape), dtype=torch.uint8, generator=random)
        labels = torch.randint(self.classes, (2 * count,), generator=random)
        train, test = (Images(pixels[part], labels[part]) for part in (slice(0, count), slice(count, None)))
        channels = self.image_shape[0]
        names = tuple(str(number) for number in range(self.classes))
        return Dataset(train, train.first(0), test, names, [0.5] * channels, [(1 / 12) ** 0.5] * channels)


WHOLE = {
    "digits": Outline((1, 8, 8), 10, 1_500, 0, 297),
    "cifar10": Outline((3, 32, 32), 10, 50_000, 0, 10_000),
    "cifar100": Outline((3, 32, 32), 100, 50_000, 0, 10_000),
    "fashion-mnist": Outline((1, 28, 28), 10, 60_000, 0, 10_000),
}
"""The datasets that are always the same, before anything is held out."""
