"""What is known of a dataset without its images is what the images say."""

import pytest
import torch

from advmix_cli import build
from advmix_cli.data.outline import WHOLE, Outline
from advmix_cli.errors import DataError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "settings",
    [
        ["data={source='digits'}"],
        ["data={source='digits'}", "validation={fraction=0.0}"],
        ["data={source='digits'}", "validation={fraction=0.5}"],
        ["data={source='digits'}", "validation={fraction=0.123}"],
        ["data={source='digits'}", "validation={fraction=0.001}"],
        ["data={source='digits'}", "validation={fraction=0.0003}"],
        ["data={source='digits', train_limit=2}"],
        ["data={source='digits', train_limit=100, test_limit=7}", "validation={fraction=0.1}"],
        ["data={source='digits', train_limit=1350}", "validation={fraction=0.1}"],
        ["data={source='digits', test_limit=297}", "validation={on='test'}"],
    ],
)
def test_the_outline_is_that_of_the_images(tiny, settings):
    recipe = tiny(*settings)
    assert build.outline(recipe, CPU, print) == Outline.of(build.dataset(recipe, CPU, print))


@pytest.mark.parametrize(
    "settings",
    [
        ["data={source='digits', train_limit=1351}", "validation={fraction=0.1}"],
        ["data={source='digits', test_limit=298}"],
        ["data={source='digits', train_limit=1501}", "validation={on='test'}"],
        ["data={source='digits', train_limit=1}"],
        ["data={source='digits', translate=8}"],
        ["data={source='digits'}", "validation={fraction=0.0}", 'evaluators=[{kind="pristine", split="validation"}]'],
    ],
)
def test_what_the_images_do_not_allow_the_outline_does_not(tiny, settings):
    recipe = tiny(*settings)
    messages = []
    for ask in (build.dataset, build.outline):
        with pytest.raises(DataError) as caught:
            ask(recipe, CPU, print)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_downloaded_sources_need_not_be_there(tiny):
    recipe = tiny("data={source='cifar100', train_limit=1000}", "validation={fraction=0.02}")
    assert build.outline(recipe, CPU, pytest.fail) == Outline((3, 32, 32), 100, 1000, 1000, 10_000)
    recipe = tiny("data={source='fashion-mnist'}", "validation={on='test'}")
    assert build.outline(recipe, CPU, pytest.fail) == Outline((1, 28, 28), 10, 60_000, 0, 10_000)


def test_noise_has_the_shape_and_the_classes_and_is_the_same_every_time():
    outline = WHOLE["cifar100"]
    made, again = outline.noise(300), outline.noise(300)
    assert Outline.of(made) == Outline((3, 32, 32), 100, 300, 0, 300)
    assert made.fingerprints() == again.fingerprints()
    assert not torch.equal(made.train.pixels, made.test.pixels)
    assert made.train.pixels.dtype == torch.uint8
    assert len(made.train.pixels.unique()) == 256
    units = made.train.pixels.double() / 255
    assert abs(units.mean() - made.mean[0]) < 0.01
    assert abs(units.std() - made.std[0]) < 0.01
    assert set(made.train.labels.tolist()) | set(made.test.labels.tolist()) == set(range(100))


def test_images_that_are_no_squares_have_their_rows_first():
    assert Outline((3, 8, 10), 2, 0, 0, 0).noise(4).image_shape == (3, 8, 10)
