"""The training, validation and test images of one experiment."""

import torch

from advmix_cli.data.images import Dataset, Images, Raw
from advmix_cli.errors import DataError
from advmix_cli.seeding import generator


def split(raw: Raw, *, held_out: float, train_limit: int | None, test_limit: int | None, seed: int) -> Dataset:
    """Hold out the fraction `held_out` of the training images, chosen by `seed`, then keep `train_limit` of the rest.

    DataError if more training or test images are asked for than there are, and for labels of no class.
    """
    for name, images in (("train", raw.train), ("test", raw.test)):
        _raise_if_no_images(name, images, len(raw.classes))
    order = torch.randperm(len(raw.train), generator=generator("cpu", seed, "split"))
    count = round(held_out * len(raw.train))
    rest = len(order) - count
    for name, limit, there in (("train", train_limit, rest), ("test", test_limit, len(raw.test))):
        if limit is not None and limit > there:
            raise DataError(f"data.{name}_limit = {limit}, but there are only {there} {name} images")
    train = raw.train.at(order[count:][:train_limit])
    mean, std = channel_statistics(train)
    return Dataset(train, raw.train.at(order[:count]), raw.test.first(test_limit), raw.classes, mean, std)


def _raise_if_no_images(name: str, images: Images, classes: int) -> None:
    """A label that is out of range would be an index out of range, or, with a negative one, another class."""
    if images.pixels.dtype != torch.uint8 or images.pixels.dim() != 4 or len(images.pixels) != len(images.labels):
        what = f"{images.pixels.dtype} of shape {tuple(images.pixels.shape)} with {len(images.labels)} labels"
        raise DataError(f"the {name} images are {what}; (N, C, H, W) of uint8 with N labels are wanted")
    if not len(images):
        raise DataError(f"there are no {name} images")
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or high >= classes:
        raise DataError(f"the {name} labels run from {low} to {high}, and there are {classes} classes")


def channel_statistics(images: Images) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, in [0, 1] units, exact: from the 256 counts of its grey levels."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means: list[float] = []
    deviations: list[float] = []
    for channel in range(images.pixels.shape[1]):
        share = torch.bincount(images.pixels[:, channel].flatten().int(), minlength=256).double()
        share /= share.sum()
        mean = (share * levels).sum()
        deviation = (share * (levels - mean) ** 2).sum().sqrt().item()
        if deviation == 0:
            raise DataError("the training images are all of one grey level: there is nothing to learn from")
        means.append(mean.item())
        deviations.append(deviation)
    return means, deviations
