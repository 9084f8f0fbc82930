"""A training between two batches, as tensors, and back: what `Progress` does not hold."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from advmix_cli.tensors import on_cpu
from advmix_cli.training.loop import Progress, Training
from advmix_cli.training.yogi import Yogi

NETWORKS = ("network.", "average.")
OF_A_PARAMETER = {"step", "exp_avg", "exp_avg_sq", "momentum_buffer"}
"""What the optimizers keep of a parameter."""


def tensors(training: Training, progress: Progress) -> dict[str, Tensor]:
    """Weights, buffers, their average, the optimizer's state and the figures of the epoch so far, on the CPU, bit for
    bit."""
    found = living(training)
    if progress.figures:
        found["figures"] = torch.stack(progress.figures)
    return on_cpu(found)


def living(training: Training) -> dict[str, Tensor]:
    """Weights, buffers, their average and the optimizer's state, where they are: what is equal on all ranks."""
    return dict(_networks(training)) | dict(_optimizer(training))


@torch.no_grad()
def restore(training: Training, saved: Mapping[str, Tensor], epoch: int, done: int, names: tuple[str, ...]) -> Progress:
    """Put `saved` into a training that has been prepared, in place: a captured graph knows its tensors by their
    addresses. ValueError if it is the state of another training."""
    if epoch > training.epochs + 1 or done > training.batches or (done and epoch > training.epochs):
        raise ValueError("it is further than the training")
    table = saved.get("figures")
    if (table is None) != (done == 0) or (table is not None and table.shape != (done, len(names))):
        raise ValueError("its figures are not those of its batches")
    networks = dict(_networks(training))
    if _forms(networks) != _forms({name: value for name, value in saved.items() if name.startswith(NETWORKS)}):
        raise ValueError("its network is another one")
    for name, value in networks.items():
        value.copy_(saved[name])
    parameters = [parameter for group in training.optimizer.param_groups for parameter in group["params"]]
    for name, value in saved.items():
        kind, _, rest = name.partition(".")
        if kind != "optimizer":
            continue
        index, _, what = rest.partition(".")
        if not index.isdecimal() or int(index) >= len(parameters):
            raise ValueError("its optimizer has other parameters")
        parameter = parameters[int(index)]
        if value.shape not in (parameter.shape, torch.Size()):
            raise ValueError("its optimizer's state is another one")
        state = training.optimizer.state[parameter]
        if what not in state and what not in OF_A_PARAMETER:
            raise ValueError("its optimizer is another one")
        if what not in state:
            # What the optimizer would have made at its first step: like the weights, or a count.
            state[what] = torch.zeros_like(
                parameter if value.shape == parameter.shape else value, device=parameter.device
            )
        state[what].copy_(value)
    figures = () if table is None else table.to(training.images.pixels.device).unbind()
    return Progress(epoch, done, names, tuple(figures))


@torch.no_grad()
def roll_back(training: Training, weights: Mapping[str, Tensor]) -> None:
    """Put the weights of an earlier epoch into a training and into their average, which has followed what is undone,
    and its optimizer to where it started from; in place, as `restore` does."""
    for network in (training.network, *([training.average.network] if training.average else [])):
        for name, value in network.state_dict().items():
            value.copy_(weights[name])
    if isinstance(training.optimizer, Yogi):
        training.optimizer.restart()
        return
    for state in training.optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                value.zero_()


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _networks(training: Training) -> Iterator[tuple[str, Tensor]]:
    own, average = NETWORKS
    yield from ((f"{own}{name}", value) for name, value in training.network.state_dict().items())
    if training.average:
        yield from ((f"{average}{name}", value) for name, value in training.average.network.state_dict().items())


def _optimizer(training: Training) -> Iterator[tuple[str, Tensor]]:
    parameters = (parameter for group in training.optimizer.param_groups for parameter in group["params"])
    for index, parameter in enumerate(parameters):
        for what, value in training.optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                yield f"optimizer.{index}.{what}", value
