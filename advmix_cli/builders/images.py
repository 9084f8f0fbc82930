"""The recipe's images."""

from collections.abc import Callable
from typing import assert_never

import torch

from advmix_cli.data import folder, sources
from advmix_cli.data.images import Dataset, Raw
from advmix_cli.data.outline import WHOLE, Outline
from advmix_cli.data.splits import split
from advmix_cli.errors import DataError
from advmix_cli.recipe import schema
from advmix_cli.recipe.measurement import Measuring
from advmix_cli.recipe.schema import Recipe


def dataset(recipe: Measuring, place: torch.device, say: Callable[[str], None]) -> Dataset:
    """The images of the recipe, split, on `place`; `say` is told of slow work. DataError if they do not fit it."""
    data = recipe.data
    held_out = recipe.validation.held_out
    whole = split(
        _raw(data, say), held_out=held_out, train_limit=data.train_limit, test_limit=data.test_limit, seed=data.seed
    )
    _raise_if_unfit(recipe, Outline.of(whole))
    known = WHOLE.get(data.source)
    if known and whole.image_shape != known.image_shape:
        raise DataError(f"the images of {data.source} are {whole.image_shape}, and should be {known.image_shape}")
    if len(whole.classes) < 2:
        raise DataError(f"there is only one class, '{''.join(whole.classes)}'")
    return whole.to(place)


def outline(recipe: Recipe, place: torch.device, say: Callable[[str], None]) -> Outline:
    """What the recipe's images are like; only a folder has to be read for it. DataError if they do not fit it."""
    data = recipe.data
    if isinstance(data, schema.FolderData):
        return Outline.of(dataset(recipe, place, say))
    whole = WHOLE[data.source]
    validation = round(recipe.validation.held_out * whole.train)
    left = whole.train - validation
    for name, limit, there in (("train", data.train_limit, left), ("test", data.test_limit, whole.test)):
        if limit is not None and limit > there:
            raise DataError(f"data.{name}_limit = {limit}, but there are only {there} {name} images")
    found = whole._replace(train=data.train_limit or left, validation=validation, test=data.test_limit or whole.test)
    _raise_if_unfit(recipe, found)
    return found


def _raise_if_unfit(recipe: Measuring, images: Outline) -> None:
    translate, (height, width) = recipe.data.translate, images.image_shape[1:]
    if images.train < 2:
        raise DataError("there are fewer than two training images, and batch norm needs two")
    if translate >= min(height, width):
        raise DataError(f"data.translate = {translate}, but the images are {width} pixels wide")
    there = {"train": images.train, "validation": images.validation, "test": images.test}
    for evaluator in recipe.evaluators:
        if not there[evaluator.split]:
            raise DataError(f"evaluator '{evaluator.name}' wants the {evaluator.split} images, but none are held out")


def _raw(data: schema.Data, say: Callable[[str], None]) -> Raw:
    match data:
        case schema.DigitsData():
            return sources.digits()
        case schema.Cifar10Data():
            return sources.cifar10(data.root)
        case schema.Cifar100Data():
            return sources.cifar100(data.root)
        case schema.FashionMnistData():
            return sources.fashion_mnist(data.root)
        case schema.FolderData():
            return folder.folder(data.root, size=data.size, channels=data.channels, say=say)
        case _:
            assert_never(data)
