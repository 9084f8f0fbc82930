"""Yogi as the recipe builds it is the Yogi of torch-optimizer 0.3.0, which the paper used."""

import copy
import math

import pytest
import torch
from pytorch_optimizer import Yogi as Reference
from started import Started
from torch import nn

from advmix_cli import build
from advmix_cli.recipe.schema import Recipe
from advmix_cli.training import yogi
from advmix_cli.training.accelerate import Compilation, forget_compiled, formed
from advmix_cli.training.yogi import Flat, Yogi, in_pieces, joined, one_by_one, yogi_update


def recipe(**optimizer):
    return Recipe.model_validate(
        {
            "data": {"source": "digits"},
            "model": {"kind": "preact-resnet"},
            "threat": {"epsilon": 0.1},
            "maximizer": {"kind": "none"},
            "optimizer": {"kind": "yogi", **optimizer},
            "schedule": {"kind": "steps", "epochs": 1},
        }
    )


def yogi_by_hand(start, gradients, *, lr, betas, eps, initial, weight_decay):
    """One number at a time, in Python's floats: debiased like Adam, the decay added to the gradient."""
    value, first, second = start, initial, initial
    for step, gradient in enumerate(gradients, start=1):
        gradient += weight_decay * value
        first = betas[0] * first + (1 - betas[0]) * gradient
        square = gradient * gradient
        second -= (1 - betas[1]) * ((second > square) - (second < square)) * square
        denominator = math.sqrt(second) / math.sqrt(1 - betas[1] ** step) + eps
        value -= lr / (1 - betas[0] ** step) * first / denominator
    return value


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0.003, "weight_decay": 5e-4},
        {"lr": 0.1, "weight_decay": 0.3, "betas": (0.8, 0.9), "eps": 1e-2, "initial_accumulator": 0.1},
        {"lr": 0.01},
    ],
)
def test_yogi_is_the_one_of_the_paper(settings):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    gradients = torch.randn(40, 6, 5, generator=generator, dtype=torch.float64)
    gradients *= torch.logspace(-4, 1, 40, dtype=torch.float64)[torch.randperm(40, generator=generator), None, None]
    parameter = nn.Parameter(start.clone())
    optimizer = build.optimizer(recipe(**settings), [parameter])
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    given = {"weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-3, "initial_accumulator": 1e-6} | settings
    initial = given.pop("initial_accumulator")
    expected = [
        yogi_by_hand(number.item(), of_number.tolist(), initial=initial, **given)
        for number, of_number in zip(start.flatten(), gradients.flatten(1).T, strict=True)
    ]
    found = parameter.detach().flatten()
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14)
    assert (found - start.flatten()).abs().median() > 1e-3


def test_the_first_step_is_debiased():
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = build.optimizer(recipe(lr=0.5, eps=1e-12, initial_accumulator=0.0), [parameter])
    parameter.grad = torch.tensor([1e-3], dtype=torch.float64)
    optimizer.step()
    assert parameter.item() == pytest.approx(-0.5)


SETTINGS = {"betas": (0.8, 0.99), "eps": 1e-2, "initial_accumulator": 0.05, "weight_decay": 0.1}
RATES = [0.1 if step < 25 else 0.02 for step in range(40)]


def starts(dtype):
    """Parameters of several shapes and layouts."""
    drawing = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 3, 3), (4, 3, 1, 1), (7,), (5, 6), (), (1, 1)]
    values = [torch.randn(shape, generator=drawing, dtype=dtype) for shape in shapes]
    return [
        nn.Parameter(value.to(memory_format=torch.channels_last) if value.dim() == 4 else value) for value in values
    ]


def gradients(parameters, steps):
    """Those of each step: of very different sizes, and each in its parameter's layout."""
    drawing = torch.Generator().manual_seed(1)
    for step in range(steps):
        size = 10.0 ** (step % 5 - 3)
        yield [
            torch.empty_like(value, requires_grad=False).copy_(
                size * torch.randn(value.shape, generator=drawing, dtype=value.dtype)
            )
            for value in parameters
        ]


EACH = one_by_one(yogi_update)


def ours(parameters, update=EACH):
    rate = torch.tensor(1.0, dtype=torch.float64)
    return Yogi(parameters, rate, **SETTINGS, update=update), rate


def stepped(optimizer, parameters, rate, rates, given):
    """The values after each step."""
    after = []
    for number, slopes in zip(rates, given, strict=False):
        rate.fill_(number)
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.grad = slope
        optimizer.step()
        after.append([value.detach().clone() for value in parameters])
    return after


def test_tensors_of_every_shape_and_layout_move_as_the_librarys_do():
    parameters, others = starts(torch.float64), starts(torch.float64)
    optimizer, rate = ours(parameters)
    reference = Reference(others, lr=1.0, weight_decouple=False, **SETTINGS)
    given = list(gradients(parameters, 40))
    found = stepped(optimizer, parameters, rate, RATES, given)
    for number, slopes, values in zip(RATES, given, found, strict=True):
        for group in reference.param_groups:
            group["lr"] = number
        for other, slope in zip(others, slopes, strict=True):
            other.grad = slope.clone()
        reference.step()
        for value, other in zip(values, others, strict=True):
            torch.testing.assert_close(value, other.detach(), rtol=0, atol=1e-12)
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in parameters if value.dim() == 4)
    assert all(
        (value - start).abs().min() > 1e-3 for value, start in zip(parameters, starts(torch.float64), strict=True)
    )


def test_a_parameter_without_a_gradient_stays_and_its_group_counts_on_as_the_librarys_does():
    parameters, others = starts(torch.float64)[:2], starts(torch.float64)[:2]
    optimizer, rate = ours(parameters)
    reference = Reference(others, lr=1.0, weight_decouple=False, **SETTINGS)
    rate.fill_(1.0)
    for moving in ([0], [0, 1]):
        before = [value.detach().clone() for value in parameters]
        for index, (value, other) in enumerate(zip(parameters, others, strict=True)):
            value.grad, other.grad = (torch.ones_like(one) if index in moving else None for one in (value, other))
        optimizer.step()
        reference.step()
        for index, (value, other, start) in enumerate(zip(parameters, others, before, strict=True)):
            assert torch.equal(value, start) == (index not in moving)
            torch.testing.assert_close(value, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("way", [in_pieces, joined])
def test_each_way_of_an_update_gives_the_same_bits(monkeypatch, way):
    monkeypatch.setattr(yogi, "CACHED", 16)
    monkeypatch.setattr(yogi, "TOGETHER", 100)
    parameters, others = starts(torch.float32), starts(torch.float32)
    assert any(value.numel() > 2 * 16 and value.numel() % 16 for value in parameters)
    (optimizer, rate), (other, other_rate) = ours(parameters), ours(others, way(yogi_update))
    given = list(gradients(parameters, 12))
    kept = [[value.clone() for value in slopes] for slopes in given]
    found = stepped(other, others, other_rate, RATES[20:], given)
    for values, other_values in zip(stepped(optimizer, parameters, rate, RATES[20:], kept), found, strict=True):
        assert all(torch.equal(*pair) for pair in zip(values, other_values, strict=True))
    for value, twin in zip(parameters, others, strict=True):
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[value][name], other.state[twin][name])
        assert torch.equal(value.grad, twin.grad)


def test_no_more_parameters_are_joined_than_a_bound(monkeypatch):
    monkeypatch.setattr(yogi, "TOGETHER", 100)
    sizes = []
    update = joined(lambda parameter, *_: sizes.append(parameter.numel()))
    update([Flat(*(torch.zeros(size) for _ in range(4))) for size in (60, 40, 1, 250, 30, 70)])
    assert sizes == [100, 1, 250, 100]


def test_at_once_a_device_is_given_as_many_operations_for_sixty_parameters_as_for_six():
    counts = []
    for times in (1, 10):
        parameters = [value for _ in range(times) for value in starts(torch.float32)]
        optimizer, _ = ours(parameters, joined(yogi_update))
        for value in parameters:
            value.grad = torch.ones_like(value)
        with Started() as started:
            optimizer.step()
        counts.append(started.count)
    assert counts[0] == counts[1] < 50


@pytest.mark.usefixtures("traced")
def test_compiled_it_moves_by_the_same_bits_with_fewer_graphs_than_shapes_and_none_for_another_rate():
    parameters, others = starts(torch.float32)[:4], starts(torch.float32)[:4]
    optimizer, rate = ours(parameters)
    compiled, other_rate = ours(others, one_by_one(formed(yogi_update, "compiled", dynamic=True)))
    given = list(gradients(parameters, 6))
    expected = stepped(optimizer, parameters, rate, RATES[22:], given)
    found = stepped(compiled, others, other_rate, RATES[22:], given[:1])
    graphs = Compilation.so_far()
    found += stepped(compiled, others, other_rate, RATES[23:], given[1:])
    for values, other_values in zip(expected, found, strict=True):
        assert all(torch.equal(*pair) for pair in zip(values, other_values, strict=True))
    assert Compilation.so_far() == graphs
    assert 1 <= graphs.graphs < len(parameters)
    assert graphs.breaks == 0


@pytest.mark.slow
def test_generated_code_moves_the_parameters_as_eager_code_does():
    forget_compiled()
    parameters, others = starts(torch.float32), starts(torch.float32)
    optimizer, rate = ours(parameters)
    compiled, other_rate = ours(others, one_by_one(formed(yogi_update, "compiled", dynamic=True)))
    given = list(gradients(parameters, 40))
    expected = stepped(optimizer, parameters, rate, RATES, given)
    found = stepped(compiled, others, other_rate, RATES, given)
    for values, other_values in zip(expected, found, strict=True):
        for value, other in zip(values, other_values, strict=True):
            torch.testing.assert_close(other, value, rtol=1e-5, atol=1e-6)


def test_a_saved_state_goes_on_by_the_same_bits():
    parameters = starts(torch.float32)
    optimizer, rate = ours(parameters)
    given = list(gradients(parameters, 20))
    stepped(optimizer, parameters, rate, RATES, given[:10])
    others = [nn.Parameter(value.detach().clone()) for value in parameters]
    other, _ = ours(others)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    (group,) = other.param_groups
    expected = stepped(optimizer, parameters, rate, RATES[10:], given[10:])
    found = stepped(other, others, group["lr"], RATES[10:], given[10:])
    for values, other_values in zip(expected, found, strict=True):
        assert all(torch.equal(*pair) for pair in zip(values, other_values, strict=True))
    assert {state["step"].item() for state in other.state.values()} == {20}


def test_without_a_gradient_nothing_moves_and_the_steps_are_counted():
    parameters = starts(torch.float32)
    optimizer, _ = ours(parameters)
    optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(parameters, starts(torch.float32), strict=True))
    assert {state["step"].item() for state in optimizer.state.values()} == {1}
