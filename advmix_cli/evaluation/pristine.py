"""Accuracy on the images as they are."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from advmix_cli.data.images import Images, to_unit
from advmix_cli.evaluation.outcome import Tick
from advmix_cli.evaluation.predict import is_correct


@dataclass(frozen=True)
class Pristine:
    """The images as they are, in fp32."""

    batch_size: int

    def settings(self, classes: int) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def __call__(self, network: nn.Module, images: Images, tick: Tick) -> Tensor:
        verdicts: list[Tensor] = []
        for pixels, labels in zip(
            images.pixels.split(self.batch_size), images.labels.split(self.batch_size), strict=True
        ):
            verdicts.append(is_correct(network, to_unit(pixels), labels))
            tick(len(labels), "")
        return torch.cat(verdicts)
