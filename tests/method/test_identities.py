"""Which maximizers are the same function, bit for bit, where the paper's algorithms coincide."""

import pytest
import torch
from torch import nn

from advmix_cli.method.divergence import kl
from advmix_cli.method.draws import Draws
from advmix_cli.method.maximizers import (
    Attack,
    AttackThenMix,
    Integrated,
    Labels,
    LearnedRatio,
    MixThenAttack,
    Pgd,
    Pristine,
)
from advmix_cli.method.mixing import interpolate

SIZE, SHAPE, CLASSES = 6, (1, 4, 4), 3
PGD = Pgd(epsilon=0.1, step_size=0.04, steps=4, clamp=True, divergence=kl)
LEARNED = LearnedRatio(kappa=0.65, step_size=0.4, logit_clamp=1e-6)
KINDS = ["linear", "geometric-clean", "geometric-perturbed"]


def setting(copies=1, ratio=None, permutation=None):
    """A small network, a batch with black and white pixels, and its draws."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, CLASSES))
    x = (torch.rand(SIZE, *SHAPE) * 1.4 - 0.2).clamp(0, 1)
    y = torch.eye(CLASSES)[torch.tensor([0, 1, 2, 1, 0, 2])]
    noise = torch.rand(copies * SIZE, *SHAPE) * 2 - 1
    draws = Draws(
        noise,
        torch.tensor([1, 2, 0, 3, 5, 4]) if permutation is None else permutation,
        0.65 + 0.35 * torch.rand(SIZE, dtype=torch.float64) if ratio is None else ratio,
    )
    return network, x, y, draws


def pgd(**changes):
    return Pgd(**{**PGD.__dict__, **changes})


def assert_same_batch(found, expected):
    assert torch.equal(found.x, expected.x)
    assert torch.equal(found.y, expected.y)


def assert_same_path(found, expected):
    assert len(found.path) == len(expected.path) > 0
    assert all(torch.equal(a, b) for a, b in zip(found.path, expected.path, strict=True))


@pytest.mark.parametrize("per", ["sample", "batch"])
@pytest.mark.parametrize("kind", ["linear", "geometric-perturbed"])
@pytest.mark.parametrize("clamp", [True, False])
def test_integrated_at_ratio_one_with_a_shared_delta_is_attack(clamp, kind, per):
    ratio = torch.ones(SIZE if per == "sample" else 1, dtype=torch.float64)
    network, x, y, draws = setting(ratio=ratio)
    found = Integrated(pgd(clamp=clamp), "shared", None, Labels(kind))(network, x, y, draws)
    attacked = Attack(pgd(clamp=clamp))(network, x, y, draws)
    assert_same_batch(found, attacked)
    assert_same_path(found, attacked)
    assert torch.equal(found.x_pristine, x)
    assert torch.equal(found.y_pristine, y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("learned", [None, LEARNED], ids=["frozen", "learned"])
def test_integrated_with_the_identity_permutation_and_a_shared_delta_is_attack(kind, learned):
    network, x, y, draws = setting(permutation=torch.arange(SIZE))
    found = Integrated(PGD, "shared", learned, Labels(kind))(network, x, y, draws)
    attacked = Attack(PGD)(network, x, y, draws)
    assert_same_batch(found, attacked)
    assert_same_path(found, attacked)


@pytest.mark.parametrize("maximizer", [MixThenAttack, AttackThenMix])
@pytest.mark.parametrize("nothing", ["ratio", "permutation"])
def test_a_baseline_that_mixes_nothing_is_attack(maximizer, nothing):
    same = {"ratio": torch.ones(1, dtype=torch.float64)} if nothing == "ratio" else {"permutation": torch.arange(SIZE)}
    network, x, y, draws = setting(**same)
    assert_same_batch(maximizer(PGD)(network, x, y, draws), Attack(PGD)(network, x, y, draws))


@pytest.mark.parametrize("still", ["no steps from zero", "no room"])
@pytest.mark.parametrize("maximizer", [MixThenAttack, AttackThenMix, "shared", "independent"])
def test_an_adversary_that_may_not_move_is_plain_mixup(maximizer, still):
    network, x, y, draws = setting(copies=2 if maximizer == "independent" else 1)
    if still == "no room":
        weak = pgd(epsilon=0.0)
    else:
        weak, draws = pgd(steps=0), draws._replace(noise=torch.zeros_like(draws.noise))
    made = Integrated(weak, maximizer, None, Labels()) if isinstance(maximizer, str) else maximizer(weak)
    found = made(network, x, y, draws)
    ratio = draws.ratio.float()
    assert torch.equal(found.x, interpolate(x, x[draws.permutation], ratio))
    assert torch.equal(found.y, interpolate(y, y[draws.permutation], ratio))
    assert torch.equal(found.x_pristine, found.x)
    assert torch.equal(found.y_pristine, found.y)


def test_an_attack_without_room_is_the_image():
    network, x, y, draws = setting()
    found = Attack(pgd(epsilon=0.0))(network, x, y, draws)
    assert_same_batch(found, Pristine()(network, x, y, draws))


def test_mix_then_attack_is_the_attack_on_the_mixture():
    network, x, y, draws = setting()
    ratio = draws.ratio.float()
    mixed = interpolate(x, x[draws.permutation], ratio), interpolate(y, y[draws.permutation], ratio)
    found, attacked = MixThenAttack(PGD)(network, x, y, draws), Attack(PGD)(network, *mixed, draws)
    assert_same_batch(found, attacked)
    assert_same_path(found, attacked)
    assert torch.equal(found.x_pristine, mixed[0])
    assert torch.equal(found.y_pristine, mixed[1])


def test_attack_then_mix_is_the_mixture_of_the_attacked():
    network, x, y, draws = setting()
    ratio = draws.ratio.float()
    found, attacked = AttackThenMix(PGD)(network, x, y, draws), Attack(PGD)(network, x, y, draws)
    assert torch.equal(found.x, interpolate(attacked.x, attacked.x[draws.permutation], ratio))
    assert torch.equal(found.y, interpolate(y, y[draws.permutation], ratio))
    assert_same_path(found, attacked)
    assert torch.equal(found.x_pristine, interpolate(x, x[draws.permutation], ratio))
    assert torch.equal(found.y_pristine, found.y)


def test_independent_deltas_that_start_alike_part():
    network, x, y, draws = setting()
    doubled = draws._replace(noise=torch.cat([draws.noise, draws.noise[draws.permutation]]))
    shared = Integrated(PGD, "shared", None, Labels())(network, x, y, draws)
    independent = Integrated(PGD, "independent", None, Labels())(network, x, y, doubled)
    assert torch.equal(shared.path[0], independent.path[0])
    assert not torch.equal(shared.x, independent.x)


def test_pristine_training_asks_the_network_nothing():
    _, x, y, draws = setting()
    found = Pristine()(pytest.fail, x, y, draws)
    assert torch.equal(found.x, x)
    assert torch.equal(found.y, y)
    assert found.path == []


def test_the_perturbed_endpoints_of_algorithm_five_change_nothing():
    network, x, y, draws = setting(copies=2)
    x, y, network = x.double(), y.double(), network.double()
    draws = draws._replace(noise=draws.noise.double())
    as_printed = Integrated(PGD, "independent", LEARNED, Labels("geometric-perturbed"))(network, x, y, draws)
    linear = Integrated(PGD, "independent", LEARNED, Labels("linear"))(network, x, y, draws)
    torch.testing.assert_close(as_printed.x, linear.x, rtol=0, atol=1e-12)
    torch.testing.assert_close(as_printed.y, linear.y, rtol=0, atol=1e-12)


def test_the_clean_endpoints_of_algorithm_five_move_the_label():
    network, x, y, draws = setting(copies=2)
    geometric = Integrated(PGD, "independent", None, Labels("geometric-clean"))(network, x, y, draws)
    moved = (geometric.y - geometric.y_pristine).abs().sum(1)
    alone = draws.permutation == torch.arange(SIZE)
    same_class = (y == y[draws.permutation]).all(1)
    assert (moved[~alone & ~same_class] > 0).all()
    assert (moved[alone] < 1e-6).all()


def test_a_maximizers_repr_is_the_experiment():
    assert repr(Integrated(PGD, "shared", LEARNED, Labels("linear", detach=True))).endswith(
        "delta='shared', learned=LearnedRatio(kappa=0.65, step_size=0.4, logit_clamp=1e-06), "
        "labels=Labels(kind='linear', detach=True), stages=0)"
    )
