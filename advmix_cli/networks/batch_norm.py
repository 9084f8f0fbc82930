"""How batch norm behaves while the adversary looks at the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
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
