"""Yogi as the recipe builds it is the Yogi of torch-optimizer 0.3.0, which the paper used."""

import math

import pytest
import torch
from torch import nn

from advmix_cli import build
from advmix_cli.recipe.schema import Recipe


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
