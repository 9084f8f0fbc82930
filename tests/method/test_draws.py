"""All randomness of a batch: shapes, ranges, and nothing but its two generators."""

import pytest
import torch

from advmix_cli.method.draws import Sampler

SHAPE = torch.Size((6, 2, 4, 3))


def draw(sampler, host=0, device=1):
    return sampler(SHAPE, host=torch.Generator().manual_seed(host), device=torch.Generator().manual_seed(device))


@pytest.mark.parametrize("copies", [0, 1, 2])
def test_the_noise_has_a_copy_for_each_delta(copies):
    noise = draw(Sampler(copies=copies)).noise
    assert noise.shape == (copies * 6, 2, 4, 3)
    assert noise.dtype == torch.float32


def test_copies_start_apart():
    left, right = draw(Sampler(copies=2)).noise.chunk(2)
    assert (left != right).all()


def test_uniform_noise_fills_minus_one_to_one():
    shape = torch.Size((100, 1, 10, 10))
    noise = Sampler()(shape, torch.Generator(), torch.Generator().manual_seed(0)).noise
    assert noise.abs().max() <= 1
    assert noise.min() < -0.99
    assert noise.max() > 0.99
    assert noise.mean().abs() < 4 / 30_000**0.5


def test_zero_noise_is_zero():
    assert draw(Sampler(copies=2, init="zero", alpha=0.5)).noise.count_nonzero() == 0


def test_without_alpha_nothing_is_mixed():
    draws = draw(Sampler())
    assert torch.equal(draws.permutation, torch.arange(6))
    assert torch.equal(draws.ratio, torch.ones(1, dtype=torch.float64))


def test_the_permutation_is_one_and_varies():
    permutations = [draw(Sampler(alpha=0.5), host=seed).permutation for seed in range(8)]
    for permutation in permutations:
        assert torch.equal(permutation.sort().values, torch.arange(6))
    assert len({tuple(permutation.tolist()) for permutation in permutations}) > 4


@pytest.mark.parametrize(("per", "shape"), [("sample", (6,)), ("batch", (1,))])
def test_one_ratio_for_each_sample_or_for_the_batch(per, shape):
    ratio = draw(Sampler(alpha=0.5, per=per)).ratio
    assert ratio.shape == shape
    assert ratio.dtype == torch.float64
    assert len(ratio.unique()) == len(ratio)


def test_kappa_bounds_the_ratio_from_below():
    sampler, shape = Sampler(alpha=0.5, kappa=0.65), torch.Size((2_000, 1, 1, 1))
    ratio = sampler(shape, torch.Generator().manual_seed(0), torch.Generator()).ratio
    assert ratio.min() >= 0.65
    assert ratio.min() < 0.66
    whole = Sampler(alpha=0.5)(shape, torch.Generator().manual_seed(0), torch.Generator()).ratio
    assert whole.min() < 0.01


def test_the_seeds_decide_everything_and_the_global_generator_nothing():
    sampler = Sampler(copies=2, alpha=0.5)
    state = torch.get_rng_state()
    first, second = draw(sampler), draw(sampler)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_each_generator_draws_its_own_part():
    sampler = Sampler(alpha=0.5)
    reference, other_host, other_device = draw(sampler), draw(sampler, host=5), draw(sampler, device=5)
    assert torch.equal(other_host.noise, reference.noise)
    assert not torch.equal(other_host.permutation, reference.permutation)
    assert not torch.equal(other_host.ratio, reference.ratio)
    assert not torch.equal(other_device.noise, reference.noise)
    assert torch.equal(other_device.permutation, reference.permutation)
    assert torch.equal(other_device.ratio, reference.ratio)
