"""Accuracy on the images as they are."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advmix_cli.data.images import Images, to_unit
from advmix_cli.evaluation.notebook import Notebook
from advmix_cli.evaluation.outcome import Tick
from advmix_cli.evaluation.predict import is_correct
from advmix_cli.evaluation.subject import Subject


@dataclass(frozen=True)
class Pristine:
    """The images as they are, in fp32."""

    batch_size: int

    def settings(self, classes: int) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def passes(self, classes: int) -> int:  # noqa: ARG002
        return 1

    def __call__(self, subject: Subject, images: Images, tick: Tick, notes: Notebook) -> Tensor:  # noqa: ARG002 (one pass is not worth a note)
        verdicts: list[Tensor] = []
        for pixels, labels in zip(
            images.pixels.split(self.batch_size), images.labels.split(self.batch_size), strict=True
        ):
            verdicts.append(is_correct(subject.judge, to_unit(pixels), labels))
            tick(len(labels), "")
        return torch.cat(verdicts)
