"""Who trains, who validates, who tests; and the statistics of the images that train."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advmix_cli import build
from advmix_cli.data.images import Images, Raw, to_unit
from advmix_cli.data.splits import channel_statistics, split
from advmix_cli.errors import DataError
from advmix_cli.recipe.load import load

PLAIN = {"held_out": 0.2, "train_limit": None, "test_limit": None, "seed": 0}


def numbered(count, test=5):
    """Each label is the number of its image; test images are numbered from 1,000."""
    pixels = torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    names = tuple(str(number) for number in range(1000 + test))
    return Raw(Images(pixels, torch.arange(count)), Images(pixels[:test], torch.arange(1000, 1000 + test)), names)


@given(count=st.integers(5, 60), held_out=st.floats(0, 0.5), seed=st.integers(0, 5))
def test_held_out_images_and_the_rest_are_a_partition(count, held_out, seed):
    raw = numbered(count)
    parts = split(raw, **{**PLAIN, "held_out": held_out, "seed": seed})
    assert len(parts.validation) == round(held_out * count)
    assert sorted(parts.train.labels.tolist() + parts.validation.labels.tolist()) == list(range(count))
    assert torch.equal(parts.train.pixels, raw.train.pixels[parts.train.labels])
    assert torch.equal(parts.validation.pixels, raw.train.pixels[parts.validation.labels])
    assert torch.equal(parts.test.labels, raw.test.labels)


def test_the_seed_chooses_who_is_held_out():
    chosen = [frozenset(split(numbered(50), **{**PLAIN, "seed": seed}).validation.labels.tolist()) for seed in range(4)]
    assert len(set(chosen)) == 4
    assert chosen[0] == set(split(numbered(50), **PLAIN).validation.labels.tolist())


def test_the_training_limit_changes_neither_the_held_out_images_nor_their_neighbours():
    whole, part = (split(numbered(50), **{**PLAIN, "train_limit": limit}) for limit in (None, 7))
    assert torch.equal(whole.validation.labels, part.validation.labels)
    assert torch.equal(whole.train.labels[:7], part.train.labels)


def test_limits_are_reached_exactly():
    parts = split(numbered(50), **{**PLAIN, "train_limit": 40, "test_limit": 5})
    assert (len(parts.train), len(parts.test)) == (40, 5)
    assert split(numbered(50), **{**PLAIN, "test_limit": 2}).test.labels.tolist() == [1000, 1001]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"train_limit": 41}, "data.train_limit = 41, but there are only 40 train images"),
        ({"test_limit": 6}, "data.test_limit = 6, but there are only 5 test images"),
    ],
)
def test_a_limit_above_what_is_there_is_refused(limits, message):
    with pytest.raises(DataError) as caught:
        split(numbered(50), **{**PLAIN, **limits})
    assert str(caught.value) == message


def test_the_seed_of_the_run_does_not_change_the_split(tiny):
    first, second = (build.dataset(tiny(f"seed={seed}"), torch.device("cpu"), print) for seed in (0, 1))
    assert torch.equal(first.validation.pixels, second.validation.pixels)
    assert torch.equal(first.train.pixels, second.train.pixels)
    other = build.dataset(tiny("data.seed=1"), torch.device("cpu"), print)
    assert not torch.equal(first.validation.pixels, other.validation.pixels)


def test_the_images_of_the_digits_are_those_that_the_documents_have_numbers_of():
    found = build.dataset(load("digits"), torch.device("cpu"), print).fingerprints()
    assert {name: digest[:12] for name, digest in found.items()} == {
        "train": "8ccd09f17c70",
        "validation": "d4c627aa149f",
        "test": "50d7aef53e47",
    }


def test_channel_statistics_are_numpys_in_float64():
    pixels = torch.randint(256, (9, 3, 8, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    pixels[:, 1] //= 3
    mean, std = channel_statistics(Images(pixels, torch.zeros(9)))
    units = pixels.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, units.mean((0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, units.std((0, 2, 3)), rtol=1e-13)


def test_statistics_are_those_of_the_images_that_train():
    parts = split(numbered(50), **{**PLAIN, "train_limit": 10})
    assert parts.mean == pytest.approx([to_unit(parts.train.pixels).double().mean().item()], rel=1e-6)


def test_a_channel_of_one_grey_level_is_refused():
    pixels = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    pixels[:, 2] = 7
    with pytest.raises(DataError, match="one grey level"):
        channel_statistics(Images(pixels, torch.zeros(4)))


def test_units_are_grey_levels_over_255():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_unit(levels), torch.arange(256, dtype=torch.float32) / 255)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, 1, 10, 3])}, "the test labels run from 0 to 10, and there are 10 classes"),
        ({"labels": torch.tensor([0, 1, -1, 3])}, "the test labels run from -1 to 3, and there are 10 classes"),
        ({"labels": torch.tensor([0, 1])}, "the test images are torch.uint8 of shape (4, 1, 8, 8) with 2 labels; "),
        ({"pixels": torch.rand(4, 1, 8, 8)}, "the test images are torch.float32 of shape (4, 1, 8, 8) with 4 labels; "),
        ({"pixels": torch.zeros(4, 8, 8, dtype=torch.uint8)}, "the test images are torch.uint8 of shape (4, 8, 8) "),
        ({"pixels": torch.zeros(0, 1, 8, 8, dtype=torch.uint8), "labels": torch.zeros(0)}, "there are no test images"),
    ],
)
def test_what_are_no_images_and_labels_is_refused(change, message):
    true = Images(torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8), torch.arange(4))
    wrong, classes = Images(**{**vars(true), **change}), tuple("0123456789")
    for name, raw in (("test", Raw(true, wrong, classes)), ("train", Raw(wrong, true, classes))):
        with pytest.raises(DataError) as caught:
            split(raw, **PLAIN)
        assert str(caught.value).startswith(message.replace("test", name))


def test_all_of_a_dataset_goes_to_a_device():
    moved = split(numbered(50), **PLAIN).to(torch.device("meta"))
    for images in (moved.train, moved.validation, moved.test):
        assert (images.pixels.device.type, images.labels.device.type) == ("meta", "meta")
