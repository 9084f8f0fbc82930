"""Epochs of steps."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from advmix_cli.data.augment import augment, draw_moves
from advmix_cli.data.images import Dataset, to_unit
from advmix_cli.errors import DivergedError
from advmix_cli.method.draws import Sampler
from advmix_cli.seeding import generator
from advmix_cli.training.schedules import Schedule
from advmix_cli.training.step import Step


@dataclass(frozen=True)
class Epoch:
    """What an epoch did. `number` counts from 1; `figures` are the step's, averaged over the epoch; `lr` is that of its
    last step; `seconds` are the training's alone."""

    number: int
    figures: dict[str, float]
    lr: float
    images_per_second: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The start of a line of metrics.jsonl."""
        timing = {"images_per_second": round(self.images_per_second, 1), "seconds": round(self.seconds, 3)}
        return {"epoch": self.number, **self.figures, "lr": self.lr, **timing}


@dataclass(frozen=True)
class Training:
    """All that an epoch needs; every random number of it derives from (seed, epoch, batch)."""

    step: Step
    sampler: Sampler
    dataset: Dataset
    schedule: Schedule
    lr: float
    epochs: int
    batch_size: int
    flip: bool
    translate: int
    seed: int

    @property
    def batches(self) -> int:
        """In an epoch; the last, incomplete batch is left out."""
        return len(self.dataset.train) // self.batch_size

    def run(self, tick: Callable[[], None]) -> Iterator[Epoch]:
        """Train, an epoch at a time; `tick` is called after each batch. DivergedError at a non-finite loss."""
        for epoch in range(1, self.epochs + 1):
            yield self._epoch(epoch, tick)

    def _epoch(self, epoch: int, tick: Callable[[], None]) -> Epoch:
        images = self.dataset.train
        device = images.pixels.device
        order = torch.randperm(len(images), generator=generator("cpu", self.seed, "order", epoch)).to(device)
        gathered: list[dict[str, torch.Tensor]] = []
        started, rate = time.perf_counter(), self.lr
        for index in range(self.batches):
            rate = self.lr * self.schedule((epoch - 1 + index / self.batches) / self.epochs)
            for group in self.step.optimizer.param_groups:
                group["lr"] = rate
            batch = images.at(order[index * self.batch_size : (index + 1) * self.batch_size])
            moves = draw_moves(
                self.batch_size,
                flip=self.flip,
                translate=self.translate,
                generator=generator(device, self.seed, "augment", epoch, index),
            )
            x = to_unit(augment(batch.pixels, moves, self.translate))
            draws = self.sampler(
                x.shape,
                host=generator("cpu", self.seed, "mix", epoch, index),
                device=generator(device, self.seed, "noise", epoch, index),
            )
            gathered.append(self.step(x, self.dataset.labels_one_hot(batch.labels), draws))
            tick()
        # One look at the device an epoch: a look a batch would stall a GPU.
        table = torch.stack([torch.stack(list(figures.values())) for figures in gathered]).double().cpu()
        seconds = time.perf_counter() - started
        _raise_if_diverged(table, list(gathered[0]), epoch)
        if not all(bool(value.isfinite().all()) for value in self.step.network.state_dict().values()):
            raise DivergedError(f"the weights became non-finite at epoch {epoch}, batch {self.batches}")
        return Epoch(
            number=epoch,
            figures=dict(zip(gathered[0], table.mean(dim=0).tolist(), strict=True)),
            lr=rate,
            images_per_second=self.batches * self.batch_size / seconds,
            seconds=seconds,
        )


def _raise_if_diverged(table: torch.Tensor, names: list[str], epoch: int) -> None:
    """`table` (batches, figures), the first of which is the loss: it is named if it is among the broken ones."""
    broken = (~table.isfinite()).any(dim=1).nonzero()
    if len(broken):
        batch = int(broken[0])
        figure = int((~table[batch].isfinite()).nonzero()[0])
        name = names[figure].replace("_", " ")
        value = table[batch, figure].item()
        raise DivergedError(f"the {name} became non-finite ({value}) at epoch {epoch}, batch {batch + 1}")
