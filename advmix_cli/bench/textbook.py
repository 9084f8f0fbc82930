"""Adversarial training as it is usually written: what the engine is measured against.

A DataLoader with workers, torchvision's transforms, integer labels, torch's cross-entropy, `loss.backward()` in the
inner steps, a forward pass to choose between restarts and one for the log.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler

from advmix_cli.data.images import Images
from advmix_cli.errors import UsageError

WORKERS = 2
LONGEST_SOCKET = 107
"""Bytes of the path of a Unix socket, on Linux; who passes images between processes opens one."""


class _Pictures(Dataset[tuple[Tensor, int]]):
    """uint8 images as torchvision's datasets give them: PIL, through a transform, one at a time."""

    def __init__(self, images: Images, *, flip: bool, translate: int) -> None:
        from torchvision import transforms

        self._images = images.pixels.cpu()
        self._labels = images.labels.cpu().tolist()
        height, width = images.pixels.shape[2:]
        moves: list[Any] = [transforms.RandomCrop((height, width), padding=translate)] if translate else []
        moves += [transforms.RandomHorizontalFlip()] if flip else []
        self._transform = transforms.Compose([transforms.ToPILImage(), *moves, transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._images[index]), self._labels[index]


def loader(images: Images, batch_size: int, *, flip: bool, translate: int) -> DataLoader[Any]:
    """Batches of randomly chosen images without an end that a measurement would reach."""
    pictures = _Pictures(images, flip=flip, translate=translate)
    sampler = RandomSampler(pictures, replacement=True, num_samples=batch_size * 1_000_000)
    return DataLoader(
        pictures,
        batch_size,
        sampler=sampler,
        num_workers=WORKERS,
        pin_memory=images.pixels.is_cuda,
        drop_last=True,
        worker_init_fn=_apart,
    )


def check_sockets() -> None:
    """UsageError where the workers' sockets, in the directory of temporary files, would have too long a path."""
    place = tempfile.gettempdir()
    longest = LONGEST_SOCKET - len("/pymp-12345678/listener-12345678")
    if len(os.fsencode(place)) > longest:
        raise UsageError(f"TMPDIR = {place}: the sockets of a loader's workers want at most {longest} bytes of a path")


def _apart(_: int) -> None:
    """A process group of its own for a worker: a signal to the benchmark's, from a terminal or `timeout`, would end it
    before the benchmark, which torch takes for a fault."""
    os.setpgid(0, 0)


@dataclass(frozen=True)
class Textbook:
    """One batch a call: PGD with K `steps`, then an update. `epsilon` and `step_size` in pixel units.

    `mixup`: the loop that adds mixup to this one calls the network a second time in every inner step, for the mixed
    loss. `delta_only`: the gradient is taken for δ alone, and there is no restart and no log to run forward for, as in
    an attack from a library. `pristine_weight` of the loss is that of the images as they are.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Iterator[Any]
    device: torch.device
    epsilon: float
    step_size: float
    steps: int
    mixup: bool = False
    delta_only: bool = False
    bf16: bool = False
    channels_last: bool = False
    pristine_weight: float = 0.0

    def __call__(self) -> None:
        """Train on the next batch."""
        x, y = next(self.batches)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        x = x.to(self.device, non_blocking=True).contiguous(memory_format=layout)
        y = y.to(self.device, non_blocking=True)
        with self._precision():
            loss_of = self._mixed(y) if self.mixup else lambda logits, **how: F.cross_entropy(logits, y, **how)
            delta = self._one_gradient(x, loss_of) if self.delta_only else self._backward(x, loss_of)
            loss = loss_of(self.network((x + delta).clamp(0, 1)))
            if self.pristine_weight:
                loss = (1 - self.pristine_weight) * loss + self.pristine_weight * loss_of(self.network(x))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if not self.delta_only:
            with self._precision():
                loss_of(self.network(x))

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()

    def _mixed(self, y: Tensor) -> Callable[..., Tensor]:
        """The loss between the labels of a batch and those of its permutation."""
        other = y[torch.randperm(len(y), device=y.device)]
        ratio = float(torch.distributions.Beta(0.5, 0.5).sample())

        def loss_of(logits: Tensor, **how: Any) -> Tensor:
            return ratio * F.cross_entropy(logits, y, **how) + (1 - ratio) * F.cross_entropy(logits, other, **how)

        return loss_of

    def _start(self, x: Tensor) -> Tensor:
        return torch.empty_like(x).uniform_(-self.epsilon, self.epsilon)

    def _moved(self, x: Tensor, delta: Tensor, gradient: Tensor) -> Tensor:
        moved = (delta + self.step_size * gradient.sign()).clamp(-self.epsilon, self.epsilon)
        return (x + moved).clamp(0, 1) - x

    def _backward(self, x: Tensor, loss_of: Callable[..., Tensor]) -> Tensor:
        """`backward()` also computes the gradient of every weight, and adds it to what the steps before left there."""
        delta = self._start(x).requires_grad_()
        for _ in range(self.steps):
            logits = self.network(x + delta)
            loss = loss_of(self.network(x + delta)) if self.mixup else loss_of(logits)
            loss.backward()
            assert delta.grad is not None
            delta.data = self._moved(x, delta.data, delta.grad)
            delta.grad.zero_()
        # Whether this restart was the best so far.
        loss_of(self.network(x + delta), reduction="none")
        return delta.detach()

    def _one_gradient(self, x: Tensor, loss_of: Callable[..., Tensor]) -> Tensor:
        delta = self._start(x)
        for _ in range(self.steps):
            delta.requires_grad_()
            (gradient,) = torch.autograd.grad(loss_of(self.network(x + delta)), delta)
            delta = self._moved(x, delta.detach(), gradient)
        return delta
