"""Mixup of images and of labels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advmix_cli.method.mixing import interpolate

SHAPES = [(4, 3), (4, 2, 5, 3)]


def pair(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, *shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_ratio_one_is_the_left_and_ratio_zero_the_right_bit_for_bit(shape):
    left, right = pair(shape)
    assert torch.equal(interpolate(left, right, torch.ones(4)), left)
    assert torch.equal(interpolate(left, right, torch.ones(1)), left)
    assert torch.equal(interpolate(left, right, torch.zeros(4)), right)
    assert torch.equal(interpolate(left, right, torch.zeros(1)), right)


@settings(max_examples=100)
@given(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_equal_ends_are_the_mixture_bit_for_bit_at_every_ratio(ratio):
    left, _ = pair((4, 2, 5, 3))
    assert torch.equal(interpolate(left, left.clone(), torch.tensor(ratio)), left)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_image_has_its_own_ratio(shape):
    left, right = pair(shape, torch.float64)
    ratio = torch.tensor([0.9, 0.5, 0.25, 0.7], dtype=torch.float64)
    mixed = interpolate(left, right, ratio)
    for image in range(4):
        expected = ratio[image] * left[image] + (1 - ratio[image]) * right[image]
        torch.testing.assert_close(mixed[image], expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_single_ratio_serves_the_batch(shape):
    left, right = pair(shape)
    ratio = torch.tensor([0.7])
    assert torch.equal(interpolate(left, right, ratio), interpolate(left, right, ratio.expand(4)))


def test_the_gradient_in_the_ratio_is_left_minus_right():
    left, right = pair((4, 3), torch.float64)
    ratio = torch.full((4,), 0.3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(interpolate(left, right, ratio).sum(), [ratio])
    torch.testing.assert_close(gradient, (left - right).sum(1))
