"""Epochs of batches."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from advmix_cli.data.augment import draw_moves
from advmix_cli.data.images import Images
from advmix_cli.errors import DivergedError
from advmix_cli.method.draws import Sampler, sent
from advmix_cli.ranks.team import ALONE, Team
from advmix_cli.seeding import generator
from advmix_cli.training.averaging import Average
from advmix_cli.training.batch import Batch, OnBatch
from advmix_cli.training.schedules import Schedule


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
class Progress:
    """How far a training is: `done` batches of `epoch`, which counts from 1, and their figures.

    With the weights, the buffers, their average and the optimizer's state it is all that the rest of the training
    depends on: every random number derives from (seed, epoch, batch), so that no generator has a state of its own.
    """

    epoch: int = 1
    done: int = 0
    names: tuple[str, ...] = ()
    figures: tuple[Tensor, ...] = ()
    """(figures,) of each batch, on the device."""


@dataclass(frozen=True)
class Training:
    """All that an epoch needs; every random number of it derives from (seed, epoch, batch), and from the rank where
    there are several."""

    on_batch: Callable[[Batch], dict[str, Tensor]]
    """`OnBatch`, or a captured form of it."""
    network: nn.Module
    optimizer: torch.optim.Optimizer
    sampler: Sampler
    images: Images
    schedule: Schedule
    lr: float
    epochs: int
    batch_size: int
    """Of this rank: its part of the images of an update."""
    flip: bool
    translate: int
    seed: int
    average: Average | None = None
    """Of the network."""
    team: Team = ALONE
    """Every rank has one, which differs in this alone."""

    @property
    def batches(self) -> int:
        """In an epoch; the last, incomplete batch is left out."""
        return len(self.images) // (self.batch_size * self.team.world)

    def within(self, team: Team) -> "Training":
        """The same, whose batches are parts of those of `team`; of one that is not captured."""
        assert isinstance(self.on_batch, OnBatch)
        step = replace(self.on_batch.step, team=team)
        return replace(self, team=team, on_batch=replace(self.on_batch, step=step))

    def run(self, tick: Callable[[Progress], None], start: Progress = Progress()) -> Iterator[Epoch]:
        """Train from `start` to the end, an epoch at a time; `tick` is called after each batch, and what it raises ends
        the training between two batches. DivergedError at a non-finite loss."""
        while start.epoch <= self.epochs:
            yield self._epoch(start, tick)
            start = Progress(start.epoch + 1)

    def order(self, epoch: int) -> Tensor:
        """(N,) the images of an epoch, on their device."""
        shuffled = torch.randperm(len(self.images), generator=generator("cpu", self.seed, "order", epoch))
        return sent(shuffled, self.images.pixels.device)

    def draw(self, order: Tensor, epoch: int, index: int) -> Batch:
        """Batch `index`, from 0, of an epoch, and of it this rank's part: the same whatever was drawn before it."""
        device, rank = order.device, self.team.rank
        where = (epoch, index, rank) if rank else (epoch, index)
        start = (index * self.team.world + rank) * self.batch_size
        moves = draw_moves(
            self.batch_size,
            flip=self.flip,
            translate=self.translate,
            generator=generator(device, self.seed, "augment", *where),
        )
        draws = self.sampler(
            torch.Size((self.batch_size, *self.images.pixels.shape[1:])),
            host=generator("cpu", self.seed, "mix", *where),
            device=generator(device, self.seed, "noise", *where),
        )
        return Batch(order[start : start + self.batch_size], moves, draws)

    def train_on(self, order: Tensor, epoch: int, index: int) -> dict[str, Tensor]:
        """Train on batch `index`, from 0, of an epoch, at the rate that is set; the average follows."""
        figures = self.on_batch(self.draw(order, epoch, index))
        if self.average:
            self.average.follow((epoch - 1) * self.batches + index)
        return figures

    def _progress(self, epoch: int, index: int) -> float:
        """Of the training, in [0, 1), before batch `index` of an epoch."""
        return (epoch - 1 + index / self.batches) / self.epochs

    def set_rate(self, progress: float) -> None:
        """Give the optimizer the learning rate at `progress` in [0, 1) of the training."""
        self.use_rate(self.lr * self.schedule(progress))

    def use_rate(self, rate: float) -> None:
        """Give the optimizer this learning rate."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _epoch(self, start: Progress, tick: Callable[[Progress], None]) -> Epoch:
        epoch, progress = start.epoch, start
        started = time.perf_counter()
        order = self.order(epoch)
        for index in range(start.done, self.batches):
            self.set_rate(self._progress(epoch, index))
            figures = self.train_on(order, epoch, index)
            row = torch.stack(list(figures.values()))
            progress = Progress(epoch, index + 1, tuple(figures), (*progress.figures, row))
            tick(progress)
        # One look at the device an epoch: a look a batch would stall a GPU.
        table = torch.stack(progress.figures).double().cpu()
        seconds = time.perf_counter() - started
        _raise_if_diverged(table, progress.names, epoch)
        if not all(bool(value.isfinite().all()) for value in self.network.state_dict().values()):
            raise DivergedError(f"the weights became non-finite at epoch {epoch}, batch {self.batches}")
        return Epoch(
            number=epoch,
            figures=dict(zip(progress.names, table.mean(dim=0).tolist(), strict=True)),
            lr=self.lr * self.schedule(self._progress(epoch, self.batches - 1)),
            images_per_second=(self.batches - start.done) * self.batch_size * self.team.world / seconds,
            seconds=seconds,
        )


def _raise_if_diverged(table: Tensor, names: Sequence[str], epoch: int) -> None:
    """`table` (batches, figures), the first of which is the loss: it is named if it is among the broken ones."""
    broken = (~table.isfinite()).any(dim=1).nonzero()
    if len(broken):
        batch = int(broken[0])
        figure = int((~table[batch].isfinite()).nonzero()[0])
        name = names[figure].replace("_", " ")
        value = table[batch, figure].item()
        raise DivergedError(f"the {name} became non-finite ({value}) at epoch {epoch}, batch {batch + 1}")
