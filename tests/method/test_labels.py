"""Algorithm 5: where the mixture lies between its endpoints."""

import pytest
import torch

from advmix_cli.method.labels import geometric
from advmix_cli.method.mixing import interpolate


def scene(seed=0):
    """Endpoints, ratios and two small perturbations, in float64."""
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.rand(2, 5, 2, 3, 3, generator=generator, dtype=torch.float64)
    deltas = (torch.rand(2, 5, 2, 3, 3, generator=generator, dtype=torch.float64) - 0.5) / 10
    ratio = 0.2 + 0.6 * torch.rand(5, generator=generator, dtype=torch.float64)
    return left, right, ratio, *deltas


def test_an_unperturbed_mixture_lies_at_its_ratio():
    left, right, ratio, *_ = scene()
    torch.testing.assert_close(geometric(ratio, left, right, interpolate(left, right, ratio)), ratio)


@pytest.mark.parametrize("c", [0.05, 0.2, -0.3])
def test_an_image_that_flees_its_partner_by_c_has_ratio_times_one_plus_c(c):
    left, right, ratio, *_ = scene()
    mixture = interpolate(left - c * (right - left), right, ratio)
    torch.testing.assert_close(geometric(ratio, left, right, mixture), ratio * (1 + c))


def test_endpoints_that_differ_by_one_grey_level_of_one_pixel_have_a_line_between_them():
    left, _, ratio, *_ = scene()
    right = left.clone()
    right[:, 0, 0, 0] += 1 / 255
    mixture = interpolate(left - 0.2 * (right - left), right, ratio)
    torch.testing.assert_close(geometric(ratio, left, right, mixture), 1.2 * ratio)


def test_the_place_is_clamped_to_the_segment():
    left, right, ratio, *_ = scene()
    beyond_left = interpolate(left - 9 * (right - left), right, ratio)
    beyond_right = interpolate(left, right + 9 * (right - left), ratio)
    assert torch.equal(geometric(ratio, left, right, beyond_left), torch.ones(5, dtype=torch.float64))
    assert torch.equal(geometric(ratio, left, right, beyond_right), torch.zeros(5, dtype=torch.float64))


def test_only_the_movement_along_the_line_counts():
    left, right, ratio, delta, _ = scene()
    v = right - left
    along = (delta * v).sum((1, 2, 3), keepdim=True) / (v * v).sum((1, 2, 3), keepdim=True) * v
    placed = geometric(ratio, left, right, interpolate(left, right, ratio) + delta - along)
    torch.testing.assert_close(placed, ratio)


def test_perturbed_endpoints_give_the_ratio_in_value_and_in_gradient():
    left, right, ratio, *deltas = scene()
    leaves = [tensor.requires_grad_() for tensor in (ratio, *deltas)]
    ends = left + deltas[0], right + deltas[1]
    placed = geometric(ratio, *ends, interpolate(*ends, ratio))
    torch.testing.assert_close(placed, ratio, rtol=0, atol=1e-14)
    weights = torch.arange(1.0, 6, dtype=torch.float64)
    of_ratio, *of_deltas = torch.autograd.grad((weights * placed).sum(), leaves)
    torch.testing.assert_close(of_ratio, weights, rtol=0, atol=1e-13)
    for gradient in of_deltas:
        assert gradient.abs().max() < 1e-13


def test_coincident_endpoints_give_the_ratio_with_finite_gradients():
    left, right, ratio, delta, _ = scene()
    right[2] = left[2]
    leaves = [tensor.requires_grad_() for tensor in (ratio, left, right, delta)]
    placed = geometric(ratio, left, right, interpolate(left + delta, right, ratio))
    assert placed[2] == ratio[2]
    assert (placed[[0, 1, 3, 4]] != ratio[[0, 1, 3, 4]]).all()
    gradients = torch.autograd.grad(placed.sum(), leaves)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0][2] == 1
    assert gradients[3][2].abs().max() == 0


def test_one_ratio_for_the_batch_serves_the_coincident():
    left, right, *_ = scene()
    right[2] = left[2]
    ratio = torch.tensor([0.7], dtype=torch.float64)
    placed = geometric(ratio, left, right, interpolate(left, right, ratio))
    torch.testing.assert_close(placed, ratio.expand(5))


def test_the_gradients_are_those_of_finite_differences():
    left, right, ratio, delta, _ = scene()
    leaves = [tensor[:2].clone().requires_grad_() for tensor in (ratio, left, right, delta)]

    def placed(ratio, left, right, delta):
        return geometric(ratio, left, right, interpolate(left + delta, right, ratio))

    assert torch.autograd.gradcheck(placed, leaves)
