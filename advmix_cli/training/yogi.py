"""Yogi (Zaheer et al., 2018), as the paper's library has it: weight decay in the gradient, both moments debiased.

pytorch-optimizer's own counts its steps on the host, which no CUDA graph can capture, and makes a dozen passes over the
weights. Here everything that changes is a tensor, and the update is one function of flat tensors, which compiles into
one pass over a parameter. Eagerly it is called for as much at a time as the device likes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

CACHED = 2**18
"""Elements of a piece whose four tensors, 1 MB each, a CPU has in its caches during the passes of an eager update."""
TOGETHER = 2**23
"""Elements of parameters that are updated as one: what is joined for it, and what the update makes, are nine times
32 MB. All parameters of a large network at once would take more memory than the pass through it."""


class Flat(NamedTuple):
    """A parameter, its gradient and its moments, (N,) each."""

    parameter: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor


def yogi_update(
    parameter: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    rate: Tensor,
    root: Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """Update a parameter (N,) in place, and with it its moments `mean` and `square` (N,). `rate` () is the learning
    rate over the first moment's bias, `root` () the square root of the second one's."""
    beta_mean, beta_square = betas
    decayed = gradient + weight_decay * parameter
    mean.lerp_(decayed, 1 - beta_mean)
    squared = decayed * decayed
    square -= (1 - beta_square) * torch.sign(square - squared) * squared
    parameter -= rate * mean / (square.sqrt() / root + eps)


Update = Callable[..., None]
"""Called as `yogi_update` is, with a sequence of `Flat` for the first four."""


def one_by_one(update: Callable[..., None]) -> Update:
    """A parameter at a time."""

    def updated(flats: Sequence[Flat], *numbers: Any) -> None:
        for flat in flats:
            update(*flat, *numbers)

    return updated


def in_pieces(update: Callable[..., None]) -> Update:
    """As much of a parameter at a time as the caches of a CPU hold."""

    def updated(flats: Sequence[Flat], *numbers: Any) -> None:
        for flat in flats:
            for piece in zip(*(value.split(CACHED) for value in flat), strict=True):
                update(*piece, *numbers)

    return updated


def joined(update: Callable[..., None]) -> Update:
    """Many parameters as one: a GPU waits for the host to start the dozen operations on each of dozens of them."""

    def updated(flats: Sequence[Flat], *numbers: Any) -> None:
        for run in _runs(flats):
            sizes = [flat.parameter.numel() for flat in run]
            parameters, gradients, means, squares = zip(*run, strict=True)
            parameter, mean, square = (torch.cat(values) for values in (parameters, means, squares))
            update(parameter, torch.cat(gradients), mean, square, *numbers)
            for own, changed in ((parameters, parameter), (means, mean), (squares, square)):
                torch._foreach_copy_(own, changed.split(sizes))  # pyright: ignore[reportPrivateImportUsage]

    return updated


def _runs(flats: Sequence[Flat]) -> Iterator[list[Flat]]:
    """In their order: as many as have TOGETHER elements at the most, or one that has more."""
    run, size = list[Flat](), 0
    for flat in flats:
        if run and size + flat.parameter.numel() > TOGETHER:
            yield run
            run, size = [], 0
        run.append(flat)
        size += flat.parameter.numel()
    yield run


class Yogi(torch.optim.Optimizer):
    """`update` is `yogi_update`, or a compiled form of it, in one of the ways above. As in the library, all parameters
    of a group have the same count. The state exists from the start: a graph can be captured before the first step."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: Tensor,
        *,
        betas: tuple[float, float],
        eps: float,
        initial_accumulator: float,
        weight_decay: float,
        update: Update,
    ) -> None:
        # With "capturable" torch's own load_state_dict puts the counts where the parameters are.
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "capturable": True}
        super().__init__(parameters, settings)
        self._update = update
        self._initial = initial_accumulator
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
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

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            counts = [self.state[parameter]["step"] for parameter in group["params"]]
            torch._foreach_add_(counts, 1)  # pyright: ignore[reportPrivateImportUsage]
            # 1 - 0.999 keeps four digits in float32; these are two numbers, so float64 costs nothing.
            bias_mean, bias_square = (1 - beta ** counts[0].double() for beta in group["betas"])
            flats = [self._flat(parameter) for parameter in group["params"] if parameter.grad is not None]
            if flats:
                dtype = flats[0].parameter.dtype
                rate, root = (group["lr"].double() / bias_mean).to(dtype), bias_square.sqrt().to(dtype)
                self._update(flats, rate, root, group["betas"], group["eps"], group["weight_decay"])

    def _flat(self, parameter: Tensor) -> Flat:
        state = self.state[parameter]
        assert parameter.grad is not None
        return Flat(*map(_in_memory_order, (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])))


def _in_memory_order(value: Tensor) -> Tensor:
    """A view (N,). A parameter, its gradient and its moments have one memory layout."""
    return value.as_strided((value.numel(),), (1,))
