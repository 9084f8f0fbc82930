"""How the network's arithmetic is done in training, behind one signature."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn


def logits_of(
    network: nn.Module, *, precision: Literal["fp32", "bf16"], channels_last: bool
) -> Callable[[Tensor], Tensor]:
    """`network` as a function (B, C, H, W) float32 -> (B, K) float32. With "bf16" its convolutions and products run in
    bfloat16; what is not the network (δ, γ, loss, projection) never does."""
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def logits(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            return network(x.contiguous(memory_format=layout)).float()

    return logits
