"""The ascent on objectives that have nothing to do with images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advmix_cli.method.ascent import Variable, ascend, box


def test_a_concave_quadratic_is_maximised_to_within_one_step():
    summit = torch.tensor([[0.31, -1.7], [2.04, 0.0]])
    (found,), path = ascend(lambda v: -((v - summit) ** 2).sum(1), [Variable(torch.zeros(2, 2), 0.1)], 25)
    assert ((found - summit).abs() <= 0.1 + 1e-6).all()
    assert (path[-1] > path[0]).all()


def test_all_variables_move_at_once_each_by_its_own_step():
    # One after the other, the second would see the first's new sign and end at -2.5.
    variables = [Variable(torch.tensor([0.5]), 1.0), Variable(torch.tensor([-0.5]), 2.0)]
    (a, b), _ = ascend(lambda a, b: a * b, variables, 1)
    assert (a.item(), b.item()) == (-0.5, 1.5)


def test_the_objective_may_be_summed_over_a_variable_that_images_share():
    shared = Variable(torch.tensor([0.0]), 0.25)
    (found,), path = ascend(lambda v: v * torch.tensor([1.0, -3.0, 1.0]), [shared], 4)
    assert found.item() == -1.0
    assert torch.equal(path[-1], torch.tensor([-0.75, 2.25, -0.75]))


def test_the_start_is_projected_and_the_path_begins_there():
    seen = []

    def objective(v):
        seen.append(v.detach().clone())
        return 3 * v

    start = torch.tensor([5.0, -5.0, 0.25])
    (found,), path = ascend(objective, [Variable(start, 0.125, box(1.0))], 3)
    assert torch.equal(seen[0], torch.tensor([1.0, -1.0, 0.25]))
    assert torch.equal(found, torch.tensor([1.0, -0.625, 0.625]))
    assert len(path) == 3
    for value, reached in zip(seen, path, strict=True):
        assert torch.equal(reached, 3 * value)
    assert torch.equal(start, torch.tensor([5.0, -5.0, 0.25]))


def test_no_steps_return_the_projected_start_and_never_ask_the_objective():
    (found,), path = ascend(pytest.fail, [Variable(torch.tensor([2.0, -0.5]), 0.1, box(1.0))], 0)
    assert torch.equal(found, torch.tensor([1.0, -0.5]))
    assert path == []


def test_what_comes_back_is_detached_and_gradients_are_on_even_within_no_grad():
    with torch.no_grad():
        values, path = ascend(lambda v: 2 * v, [Variable(torch.zeros(3, requires_grad=True), 1.0)], 2)
    assert torch.equal(values[0], torch.full((3,), 2.0))
    assert not any(tensor.requires_grad for tensor in [*values, *path])


def test_the_gradients_of_parameters_are_left_untouched():
    layer = torch.nn.Linear(3, 1)
    layer.weight.grad = kept = torch.tensor([[7.0, 8.0, 9.0]])
    ascend(lambda v: layer(v).squeeze(1), [Variable(torch.zeros(2, 3), 0.1)], 2)
    assert layer.weight.grad is kept
    assert torch.equal(kept, torch.tensor([[7.0, 8.0, 9.0]]))
    assert layer.bias.grad is None


def test_the_smallest_gradient_of_float32_still_has_its_sign():
    # As a mean over these 8 numbers it would underflow to 0, and nothing would move.
    (found,), _ = ascend(lambda v: v * 2.0**-149, [Variable(torch.zeros(8), 1.0)], 1)
    assert torch.equal(found, torch.ones(8))


def test_l2_is_another_direction_and_another_projection():
    slope = torch.tensor([[3.0, 4.0], [-1.0, 0.0]], dtype=torch.float64)

    def unit(v):
        return v / v.norm(dim=1, keepdim=True)

    def ball(v):
        return v * (0.5 / v.norm(dim=1, keepdim=True)).clamp(max=1)

    start = torch.tensor([[-0.3, 0.4], [0.2, 0.4]], dtype=torch.float64)
    (found,), _ = ascend(lambda v: (v * slope).sum(1), [Variable(start, 0.1, ball, unit)], 200)
    torch.testing.assert_close(found, 0.5 * unit(slope), rtol=0, atol=1e-6)


pixel = st.floats(0, 1, width=32)


@settings(max_examples=60)
@given(
    epsilon=st.floats(0, 1),
    step_size=st.floats(0, 3),
    start=st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3),
    slope=st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3),
    steps=st.integers(0, 4),
)
def test_the_box_has_no_slack(epsilon, step_size, start, slope, steps):
    (found,), _ = ascend(
        lambda v: v * torch.tensor(slope), [Variable(torch.tensor(start), step_size, box(epsilon))], steps
    )
    assert found.abs().max() <= torch.tensor(epsilon)


@settings(max_examples=100)
@given(
    epsilon=st.floats(0, 1),
    image=st.lists(pixel, min_size=4, max_size=4),
    delta=st.lists(st.floats(-9, 9, width=32), min_size=4, max_size=4),
)
def test_the_box_around_an_image_keeps_it_an_image(epsilon, image, delta):
    around, limit = torch.tensor(image), torch.tensor(epsilon)
    found = box(epsilon, around=around)(torch.tensor(delta))
    assert found.abs().max() <= limit
    assert (around + found).min() >= 0
    assert (around + found).max() <= 1 + torch.finfo(torch.float32).eps


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ([-9.0, -9.0, -9.0], [0.0, -0.25, -0.25]),
        ([9.0, 9.0, 9.0], [0.25, 0.25, 0.0]),
        ([0.125, -0.125, -0.125], [0.125, -0.125, -0.125]),
    ],
)
def test_the_box_around_an_image_is_no_smaller_than_it_must_be(delta, expected):
    around = torch.tensor([0.0, 0.5, 1.0])
    assert torch.equal(box(0.25, around=around)(torch.tensor(delta)), torch.tensor(expected))
