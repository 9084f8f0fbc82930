"""Yogi (Zaheer et al., 2018), as the paper's library has it: weight decay in the gradient, both moments debiased.

pytorch-optimizer's own counts its steps on the host, which no CUDA graph can capture, and makes a dozen passes over the
weights. Here everything that changes is a tensor, and one parameter's update is one function of flat tensors, which
compiles into one pass.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def yogi_update(
    parameter: Tensor,
    gradient: Tensor,
    step: Tensor,
    mean: Tensor,
    square: Tensor,
    lr: Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """Update a parameter (N,) in place, and with it `step` (), the count, and the moments `mean` and `square` (N,).
    `lr` () is a tensor, so that a captured graph can be given another one."""
    beta_mean, beta_square = betas
    step += 1
    # 1 - 0.999 keeps four digits in float32; the debiasing is two numbers, so float64 costs nothing.
    debias_mean = 1 - beta_mean ** step.double()
    debias_square = 1 - beta_square ** step.double()
    decayed = gradient + weight_decay * parameter
    mean.lerp_(decayed, 1 - beta_mean)
    squared = decayed * decayed
    square -= (1 - beta_square) * torch.sign(square - squared) * squared
    size = (lr.double() / debias_mean).to(parameter.dtype)
    parameter -= size * mean / (square.sqrt() / debias_square.sqrt().to(parameter.dtype) + eps)


class Yogi(torch.optim.Optimizer):
    """`update` is `yogi_update`, or a compiled form of it. The state exists from the start: a graph can be captured
    before the first step."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: Tensor,
        *,
        betas: tuple[float, float],
        eps: float,
        initial_accumulator: float,
        weight_decay: float,
        update: Callable[..., None] = yogi_update,
    ) -> None:
        # With "capturable" torch's own load_state_dict puts the counts where the parameters are.
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "capturable": True}
        super().__init__(parameters, settings)
        self._update = update
        self._initial = initial_accumulator
        for parameter in self._parameters():
            self.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.full_like(parameter, initial_accumulator, requires_grad=False),
                "exp_avg_sq": torch.full_like(parameter, initial_accumulator, requires_grad=False),
            }

    @torch.no_grad()
    def restart(self) -> None:
        """Its state is what it was at the start, in place."""
        for state in self.state.values():
            state["step"].zero_()
            state["exp_avg"].fill_(self._initial)
            state["exp_avg_sq"].fill_(self._initial)

    def _parameters(self) -> Iterable[Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                self._update(
                    _flat(parameter),
                    _flat(parameter.grad),
                    state["step"],
                    _flat(state["exp_avg"]),
                    _flat(state["exp_avg_sq"]),
                    group["lr"],
                    group["betas"],
                    group["eps"],
                    group["weight_decay"],
                )


def _flat(value: Tensor) -> Tensor:
    """The elements in memory order, as a view. A parameter, its gradient and its moments have one memory layout."""
    return value.as_strided((value.numel(),), (1,))
