"""Every random number follows from (seed, purpose, indices)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupted import CPU

from advmix_cli import build
from advmix_cli.seeding import derive, generator

number = st.integers(0, 2**31)
origin = st.tuples(number, st.sampled_from(["order", "noise", "mix", "weights"]), st.lists(number, max_size=3))


def test_the_seeds_of_finished_runs_stay_what_they_were():
    # Another value here would change every number of every recipe.
    assert derive(0, "order", 1) == 4374215849138048446
    assert derive(7, "weights") == 6300404303127924190


def test_what_a_recipe_draws_stays_what_it_was(tiny):
    # Another value here is another experiment under the digest of this one.
    ours = 'maximizer={kind="integrated", ascent={steps=1, step_size="8/255"}}'
    recipe = tiny(ours, "schedule.batch_size=4", "data.flip=true")
    images = build.dataset(recipe, CPU, print)
    network = build.new_network(recipe, images, CPU)
    training = build.training(recipe, images, network)
    assert images.train.labels[:10].tolist() == [6, 4, 6, 6, 3, 4, 2, 4, 4, 4]
    assert images.validation.labels[:10].tolist() == [7, 1, 1, 7, 3, 5, 3, 0, 1, 3]
    assert next(network.parameters()).flatten()[:2].tolist() == pytest.approx([-0.2624333, 0.2718599])
    assert training.order(1)[:6].tolist() == [68, 106, 109, 89, 98, 33]
    indices, moves, draws = training.draw(training.order(2), epoch=2, index=1)
    assert indices.tolist() == [96, 53, 6, 47]
    assert moves.flip.tolist() == [False, True, True, True]
    assert moves.shift.tolist() == [[1, 1], [1, 1], [-1, -1], [-1, 0]]
    assert draws.permutation.tolist() == [0, 2, 1, 3]
    assert draws.ratio.tolist() == pytest.approx([0.9316, 0.7290, 0.9512, 0.7563], abs=5e-5)
    assert draws.noise.flatten()[:4].tolist() == pytest.approx([-0.1819, -0.7432, 0.8254, -0.0673], abs=5e-5)


@settings(max_examples=200)
@given(origin, origin)
def test_origins_that_differ_have_seeds_that_differ(one, other):
    first, second = (derive(seed, purpose, *indices) for seed, purpose, indices in (one, other))
    assert (first == second) == (one == other)
    assert 0 <= first < 2**63


def test_digits_do_not_run_into_each_other():
    assert len({derive(1, "mix", 23), derive(1, "mix", 2, 3), derive(12, "mix", 3), derive(1, "mix", 23, 0)}) == 4


def test_a_generator_is_fresh_and_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    first, again = (torch.rand(5, generator=generator("cpu", 1, "noise", 2, 3)) for _ in range(2))
    other = torch.rand(5, generator=generator("cpu", 1, "noise", 2, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
