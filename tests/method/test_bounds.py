"""What holds of every maximizer on every batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advmix_cli.method.divergence import cross_entropy, kl
from advmix_cli.method.draws import Sampler
from advmix_cli.method.maximizers import (
    Attack,
    AttackThenMix,
    Integrated,
    Labels,
    LearnedRatio,
    MixThenAttack,
    Pgd,
)

SHAPE, CLASSES, KAPPA = torch.Size((4, 1, 2, 3)), 3, 0.65

means = st.builds(
    Pgd,
    epsilon=st.floats(0, 0.6),
    step_size=st.floats(0, 0.6),
    steps=st.integers(0, 3),
    clamp=st.booleans(),
    divergence=st.sampled_from([kl, cross_entropy]),
)
frozen = st.none()
learned = st.builds(LearnedRatio, kappa=st.just(KAPPA), step_size=st.floats(0, 5), logit_clamp=st.just(1e-6))
labels = st.builds(
    Labels, kind=st.sampled_from(["linear", "geometric-clean", "geometric-perturbed"]), detach=st.booleans()
)
deltas = st.sampled_from(["shared", "independent"])
maximizers = st.one_of(
    st.builds(Attack, means),
    st.builds(MixThenAttack, means),
    st.builds(AttackThenMix, means),
    st.builds(Integrated, means, deltas, frozen, labels),
    st.builds(Integrated, means, deltas, learned, labels),
)


def batch(seed, maximizer, per="sample", dtype=torch.float32):
    """Images with black and white pixels, labels, draws as `maximizer` needs them, and a linear network."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(SHAPE, generator=generator) * 1.5 - 0.25).clamp(0, 1).to(dtype)
    y = torch.eye(CLASSES, dtype=dtype)[torch.randint(CLASSES, SHAPE[:1], generator=generator)]
    integrated = isinstance(maximizer, Integrated)
    sampler = Sampler(
        copies=2 if integrated and maximizer.delta == "independent" else 1,
        alpha=None if isinstance(maximizer, Attack) else 0.5,
        kappa=KAPPA if integrated and maximizer.learned else 0.0,
        per=per,
    )
    draws = sampler(SHAPE, host=generator, device=generator)
    linear = nn.Linear(6, CLASSES, dtype=dtype)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(CLASSES, 6, generator=generator))
        linear.bias.zero_()
    return nn.Sequential(nn.Flatten(), linear), x, y, draws._replace(noise=draws.noise.to(dtype))


@settings(max_examples=120)
@given(maximizer=maximizers, seed=st.integers(0, 10**6), per=st.sampled_from(["sample", "batch"]))
def test_every_result_is_within_bounds_and_detached(maximizer, seed, per):
    network, x, y, draws = batch(seed, maximizer, per)
    before = [tensor.clone() for tensor in (x, y, *draws)]
    found = maximizer(network, x, y, draws)
    pgd, ulp = maximizer.pgd, torch.finfo(torch.float32).eps
    assert (found.x - found.x_pristine).abs().max() <= pgd.epsilon + 2 * ulp
    if pgd.clamp:
        assert found.x.min() >= 0
        assert found.x.max() <= 1
    for rows in (found.y, found.y_pristine):
        assert rows.min() >= 0
        assert (rows.sum(1) - 1).abs().max() <= 4 * ulp
    lowest = KAPPA if isinstance(maximizer, Integrated) and maximizer.learned else 0.0
    assert found.ratio.min() >= lowest - ulp
    assert found.ratio.max() <= 1
    assert len(found.path) == pgd.steps
    assert all(step.shape == SHAPE[:1] and step.isfinite().all() for step in found.path)
    assert found.x.dtype == found.y.dtype == torch.float32
    assert not any(tensor.requires_grad for tensor in (*found[:5], *found.path))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, (x, y, *draws), strict=True))


@settings(max_examples=80)
@given(
    maximizer=st.one_of(
        st.builds(Attack, means),
        st.builds(MixThenAttack, means),
        st.builds(Integrated, means, deltas, frozen, st.just(Labels())),
    ),
    seed=st.integers(0, 10**6),
)
def test_the_objective_of_a_linear_network_never_falls(maximizer, seed):
    # For a fixed label d is convex in δ, and a projected signed step never points down a convex slope.
    network, x, y, draws = batch(seed, maximizer, dtype=torch.float64)
    found = maximizer(network, x, y, draws)
    reached = torch.stack([*found.path, maximizer.pgd.divergence(network(found.x), found.y).detach()])
    assert (reached.diff(dim=0) >= -1e-12).all()


@pytest.mark.parametrize("learned", [False, True], ids=["frozen", "learned"])
@pytest.mark.parametrize("delta", ["shared", "independent"])
@pytest.mark.parametrize("kind", ["linear", "geometric-clean"])
def test_small_steps_raise_the_objective_of_every_integrated_adversary(delta, kind, learned):
    pgd = Pgd(epsilon=0.05, step_size=0.002, steps=10, clamp=False, divergence=kl)
    means = LearnedRatio(KAPPA, 0.01, 1e-6) if learned else None
    maximizer = Integrated(pgd, delta, means, Labels(kind))
    network, x, y, draws = batch(5, maximizer, dtype=torch.float64)
    found = maximizer(network, x, y, draws._replace(noise=draws.noise * 0.2))
    means_of_path = torch.stack(found.path).mean(1)
    assert (means_of_path.diff() > 0).all()


@pytest.mark.parametrize("clamp", [True, False])
def test_the_attack_on_a_linear_network_of_two_classes_finds_the_worst_corner(clamp):
    weight = torch.tensor([[2.0, -1.0, 0.5, -3.0]], dtype=torch.float64)
    x = torch.tensor([[0.5, 0.5, 0.95, 0.5], [0.02, 0.98, 0.5, 0.01]], dtype=torch.float64).reshape(2, 1, 2, 2)

    def network(images):
        z = images.flatten(1) @ weight.T
        return torch.cat([z, torch.zeros_like(z)], dim=1)

    y = torch.eye(2, dtype=torch.float64)
    draws = Sampler()(x.shape, torch.Generator(), torch.Generator().manual_seed(0))
    pgd = Pgd(epsilon=0.125, step_size=0.1, steps=3, clamp=clamp, divergence=kl)
    found = Attack(pgd)(network, x, y, draws._replace(noise=draws.noise.double()))
    uphill = torch.tensor([[-1.0], [1.0]], dtype=torch.float64) * weight.sign()
    expected = x + 0.125 * uphill.reshape(2, 1, 2, 2)
    torch.testing.assert_close(found.x, expected.clamp(0, 1) if clamp else expected, rtol=0, atol=1e-15)


def test_pixels_pushed_all_the_way_to_white_are_not_whiter_than_white():
    x = torch.linspace(0, 1, 1000).reshape(1, 1, 10, 100)
    pgd = Pgd(epsilon=1.0, step_size=1.0, steps=2, clamp=True, divergence=cross_entropy)

    def network(images):
        brightness = images.sum((1, 2, 3))
        return torch.stack([-brightness, brightness], dim=1)

    draws = Sampler(init="zero")(x.shape, torch.Generator(), torch.Generator())
    found = Attack(pgd)(network, x, torch.tensor([[1.0, 0.0]]), draws)
    assert found.x.max() == 1
    assert found.x.min() > 1 - 1e-6
