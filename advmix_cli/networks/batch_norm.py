"""How batch norm behaves while the adversary looks at the network, and when several ranks share a batch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Mode = Literal["train", "batch", "eval"]


@contextmanager
def batch_norm_mode(network: nn.Module, mode: Mode) -> Iterator[None]:
    """Within: "train" uses batch statistics, and every forward moves the running ones; "batch" uses batch statistics
    and leaves the running ones alone, bit for bit; "eval" uses the running ones. Afterwards all is in train mode.
    """
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    network.train()
    for layer in layers:
        layer.train(mode != "eval")
        layer.track_running_stats = mode != "batch"
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
        network.train()


OverRanks = Callable[[Tensor], Tensor]


def shared_batch_norm(network: nn.Module, stacked: OverRanks, total: OverRanks, *, on_gpu: bool) -> nn.Module:
    """`network` with batch norms whose batch is that of all ranks; names, parameters and buffers stay. On a GPU they
    are torch's own, which are not for the CPU."""
    if on_gpu:
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for name, layer in network.named_children():
        if isinstance(layer, nn.BatchNorm2d):
            network.add_module(name, SharedBatchNorm2d(layer, stacked, total))
        else:
            shared_batch_norm(layer, stacked, total, on_gpu=on_gpu)
    return network


def own_statistics(network: nn.Module) -> list[Tensor]:
    """The running statistics that differ between ranks, each of which has normalised its own part of the batch."""
    layers = [one for one in network.modules() if isinstance(one, _BatchNorm)]
    alone = [one for one in layers if not isinstance(one, SharedBatchNorm2d | nn.SyncBatchNorm)]
    return [value for one in alone for value in (one.running_mean, one.running_var) if value is not None]


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batch of all ranks, each of which has an equal part of it; the parameters and buffers are
    those of `layer`. `stacked` gives (ranks, ...) of what each rank has, `total` the sum of it."""

    def __init__(self, layer: nn.BatchNorm2d, stacked: OverRanks, total: OverRanks) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum)
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self._stacked, self._total = stacked, total

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not self.training:
            return super().forward(x)
        found, mean, variance, count = _Normalized.apply(x.float(), self.eps, self._stacked, self._total)  # pyright: ignore[reportGeneralTypeIssues]
        if self.track_running_stats:
            assert self.num_batches_tracked is not None
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.momentum is not None
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return (found * _of_channels(self.weight) + _of_channels(self.bias)).to(x.dtype)


class _Normalized(torch.autograd.Function):
    """(x - μ) / σ, (B, C, H, W), where μ and σ², (C,), are of the batches of all ranks; those and the number of values
    that they are of, too. The gradient goes through both, on all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, stacked: OverRanks, total: OverRanks) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        variances, means = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        means, variances = stacked(torch.stack([means, variances])).unbind(1)
        mean = means.mean(dim=0)
        variance = (variances + (means - mean).square()).mean(dim=0)
        scale = (variance + eps).rsqrt()
        found = (x - _of_channels(mean)) * _of_channels(scale)
        count = len(means) * x.numel() // x.shape[1]
        ctx.save_for_backward(found, scale)
        ctx.total, ctx.count = total, count
        ctx.mark_non_differentiable(mean, variance)
        return found, mean, variance, count

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *_: Any) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        found, scale = ctx.saved_tensors
        sums = torch.stack([slope.sum(dim=(0, 2, 3)), (slope * found).sum(dim=(0, 2, 3))])
        level, along = ctx.total(sums) / ctx.count
        return (slope - _of_channels(level) - found * _of_channels(along)) * _of_channels(scale), None, None, None


def _of_channels(value: Tensor) -> Tensor:
    return value[:, None, None]
