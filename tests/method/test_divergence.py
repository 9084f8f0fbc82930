"""d(f(x), y): parity with torch's KL, and gradients where torch's are not numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import kl_div

from advmix_cli.method.divergence import cross_entropy, kl


def interior(*shape, seed=0, dtype=torch.float64):
    """Random logits, and labels without zeros."""
    generator = torch.Generator().manual_seed(seed)
    logits, other = torch.randn(2, *shape, generator=generator, dtype=dtype) * 3
    return logits, other.softmax(dim=1)


def test_kl_is_torchs_summed_over_classes_and_not_over_images():
    logits, target = interior(7, 5)
    expected = kl_div(logits.log_softmax(1), target, reduction="none").sum(1)
    assert kl(logits, target).shape == (7,)
    torch.testing.assert_close(kl(logits, target), expected, rtol=1e-13, atol=1e-14)


def test_kl_vanishes_where_the_prediction_is_the_label():
    _, target = interior(7, 5)
    assert kl(target.log() + 4.0, target).abs().max() < 1e-14


def test_kl_of_a_hard_label_is_minus_the_log_of_its_probability():
    logits, _ = interior(4, 3)
    labels = torch.tensor([2, 0, 1, 1])
    target = torch.nn.functional.one_hot(labels, 3).double()
    expected = -logits.softmax(1)[torch.arange(4), labels].log()
    torch.testing.assert_close(kl(logits, target), expected)
    torch.testing.assert_close(cross_entropy(logits, target), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("row", [[1.0, 0.0, 0.0], [0.3, 0.7, 0.0], [0.0, 0.0, 0.0]])
def test_kl_has_finite_gradients_at_the_zeros_of_the_label(dtype, row):
    logits = torch.tensor([[1.0, -2.0, 300.0]], dtype=dtype, requires_grad=True)
    target = torch.tensor([row], dtype=dtype, requires_grad=True)
    value = kl(logits, target)
    assert value.isfinite().all()
    for gradient in torch.autograd.grad(value.sum(), [logits, target]):
        assert gradient.isfinite().all()


def test_kl_in_float32_and_float64_agree_at_labels_of_the_smallest_numbers():
    target = torch.tensor([[1.0 - 1e-30, 1e-30, 0.0]], dtype=torch.float64)
    logits = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(kl(logits.float(), target.float()).double(), kl(logits, target), rtol=1e-6, atol=0)


def test_kl_gradient_in_the_label_is_log_y_plus_one_minus_log_p():
    logits, target = interior(6, 4)
    target.requires_grad_()
    (gradient,) = torch.autograd.grad(kl(logits, target).sum(), [target])
    torch.testing.assert_close(gradient, target.detach().log() + 1 - logits.log_softmax(1))


def test_kl_gradient_in_the_logits_is_p_minus_y():
    logits, target = interior(6, 4)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(kl(logits, target).sum(), [logits])
    torch.testing.assert_close(gradient, logits.detach().softmax(1) - target)


def test_kl_and_cross_entropy_have_the_same_bits_of_gradient_for_a_fixed_label():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(5, 4, generator=generator, requires_grad=True)
    delta = torch.randn(6, 5, generator=generator, requires_grad=True)
    target = torch.rand(6, 4, generator=generator).softmax(1)
    gradients = [torch.autograd.grad(d(delta @ weight, target).sum(), [delta, weight]) for d in (kl, cross_entropy)]
    for of_kl, of_cross_entropy in zip(*gradients, strict=True):
        assert torch.equal(of_kl, of_cross_entropy)


@settings(max_examples=60)
@given(
    st.integers(2, 12).flatmap(
        lambda classes: st.tuples(
            st.lists(st.floats(-80, 80), min_size=classes, max_size=classes),
            st.lists(st.floats(0, 1), min_size=classes, max_size=classes).filter(lambda weights: sum(weights) > 1e-3),
        )
    )
)
def test_kl_is_never_negative(case):
    logits, weights = (torch.tensor([row], dtype=torch.float64) for row in case)
    assert kl(logits, weights / weights.sum()).item() >= -1e-13
