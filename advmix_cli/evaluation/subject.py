"""The network under measurement, as two functions: the one that judges, and the one that attacks look at."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Logits = Callable[[Tensor], Tensor]
Looking = Callable[[], AbstractContextManager[None]]


class Subject(NamedTuple):
    """`judge` is the network itself, eager and in fp32: verdicts are its alone. `attacked` computes the same, perhaps
    faster, and within `looking` perhaps less exactly; an attack may take its word for a gradient, and never for a
    verdict."""

    judge: Logits
    attacked: Logits
    looking: Looking = nullcontext
    """Forward passes of `attacked` and their gradients are within it, so it is around a whole attack."""
    engine: str = "eager"
    """What `attacked` is, for who reads the numbers."""

    @classmethod
    def plain(cls, network: Logits) -> "Subject":
        """Both are the network itself."""
        return cls(network, network)

    def in_chunks(self, size: int) -> "Subject":
        """The same function with the memory of `size` images at a time."""
        judge = InChunks(self.judge, size)
        attacked = judge if self.attacked is self.judge else InChunks(self.attacked, size)
        return self._replace(judge=judge, attacked=attacked)


class InChunks:
    """Logits of a batch, `size` images at a time; what a backward pass needs is computed again, chunk by chunk, so its
    memory is a chunk's too. In eval mode no image knows of another one, so that the function is the same."""

    def __init__(self, logits: Logits, size: int) -> None:
        self._logits = logits
        self._size = size

    def __call__(self, x: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            return torch.cat([self._logits(chunk) for chunk in x.split(self._size)])
        chunks = [
            checkpoint(self._logits, chunk, use_reentrant=False, preserve_rng_state=False)
            for chunk in x.split(self._size)
        ]
        return torch.cat(chunks)  # pyright: ignore[reportArgumentType] (checkpoint's stub says None)


class AtLeastTwo:
    """A batch of one image goes as two: compiled code that is general in the size of a batch is not so for one."""

    def __init__(self, logits: Logits) -> None:
        self._logits = logits

    def __call__(self, x: Tensor) -> Tensor:
        return self._logits(x) if len(x) != 1 else self._logits(torch.cat([x, x]))[:1]
