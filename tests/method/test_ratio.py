"""Algorithm 6: λ and its logit, and the truncated Beta against drawing again until it fits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import ks_2samp
from torch.distributions import Beta

from advmix_cli.method.ratio import from_gamma, mass_above, sample, to_gamma
from advmix_cli.recipe.schema import LearnedRatio


def drawn_again_until_it_fits(count, alpha, kappa):
    """Lines 1 to 4 of Algorithm 6."""
    beta = Beta(torch.tensor(alpha, dtype=torch.float64), torch.tensor(alpha, dtype=torch.float64))
    ratio = beta.sample((count,))
    while ratio.min() < kappa:
        below = ratio < kappa
        ratio[below] = beta.sample((int(below.sum()),))
    return ratio


def uniform(count, seed=0):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
@pytest.mark.parametrize("kappa", [0.0, 0.65])
def test_samples_are_distributed_as_by_rejection(alpha, kappa):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        expected = drawn_again_until_it_fits(20_000, alpha, kappa)
    assert ks_2samp(sample(uniform(20_000), alpha, kappa), expected).pvalue > 0.05


def test_the_comparison_with_rejection_would_notice_another_kappa():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        expected = drawn_again_until_it_fits(20_000, 0.5, 0.65)
    assert ks_2samp(sample(uniform(20_000), 0.5, 0.67), expected).pvalue < 1e-6


def test_four_draws_in_ten_are_accepted_at_the_papers_kappa():
    assert round(mass_above(0.65, 0.5), 2) == 0.40


@pytest.mark.parametrize(("kappa", "alpha"), [(0.65, 0.5), (0.5, 3.0), (0.9, 0.2), (0.0, 0.5)])
def test_the_mass_above_is_the_share_of_draws_above(kappa, alpha):
    with torch.random.fork_rng():
        torch.manual_seed(2)
        share = (Beta(alpha, alpha).sample((100_000,)) > kappa).double().mean().item()
    assert abs(mass_above(kappa, alpha) - share) < 4 * 0.5 / 100_000**0.5


alphas = st.one_of(st.floats(1e-3, 20), st.floats(1e-3, 1e6))


@settings(max_examples=150)
@given(
    u=st.integers(0, 2**53 - 1).map(lambda n: n / 2**53),
    alpha=alphas,
    kappa=st.one_of(st.just(0.0), st.floats(0.5, 1, exclude_max=True)),
)
def test_every_uniform_of_torch_gives_a_sample_between_kappa_and_one(u, alpha, kappa):
    if kappa:
        try:
            LearnedRatio(kind="learned", alpha=alpha, kappa=kappa)
        except ValidationError:
            assert mass_above(kappa, alpha) < 1e-12
            return
    (ratio,) = sample(torch.tensor([u], dtype=torch.float64), alpha, kappa)
    assert kappa <= ratio <= 1


def test_samples_are_float64_of_the_shape_of_their_uniforms():
    drawn = sample(uniform(6).reshape(2, 3), 0.5, 0.65)
    assert drawn.dtype == torch.float64
    assert drawn.shape == (2, 3)


@pytest.mark.parametrize("kappa", [0.5, 0.65, 0.9])
def test_gamma_is_line_five_of_algorithm_six(kappa):
    ratio = torch.linspace(kappa + 1e-3, 1 - 1e-3, 50, dtype=torch.float64)
    expected = -torch.log((1 - kappa) / (ratio - kappa) - 1)
    torch.testing.assert_close(to_gamma(ratio, kappa, 1e-6), expected)


@pytest.mark.parametrize("kappa", [0.5, 0.65, 0.9])
def test_from_gamma_undoes_to_gamma(kappa):
    ratio = torch.linspace(kappa + 1e-3, 1 - 1e-3, 50, dtype=torch.float64)
    torch.testing.assert_close(from_gamma(to_gamma(ratio, kappa, 1e-6), kappa), ratio, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kappa", [0.5, 0.65, 0.99])
def test_gamma_is_finite_and_no_further_than_the_clamp_at_the_bounds(kappa, dtype):
    gamma = to_gamma(torch.tensor([kappa, 1.0], dtype=dtype), kappa, 1e-3)
    edge = torch.tensor([-1.0, 1.0], dtype=dtype) * torch.logit(torch.tensor(1 - 1e-3, dtype=dtype))
    torch.testing.assert_close(gamma, edge, rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_default_clamp_still_leaves_a_gradient_at_the_bounds(dtype):
    gamma = to_gamma(torch.tensor([0.65, 1.0], dtype=torch.float64), 0.65, 1e-6).to(dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(from_gamma(gamma, 0.65).sum(), [gamma])
    assert (gradient > 1e-7).all()


@settings(max_examples=60)
@given(gamma=st.floats(-1e6, 1e6), kappa=st.floats(0.5, 1, exclude_max=True))
def test_every_gamma_gives_a_ratio_between_kappa_and_one(gamma, kappa):
    ratio = from_gamma(torch.tensor(gamma, dtype=torch.float64), kappa)
    assert kappa <= ratio <= 1
