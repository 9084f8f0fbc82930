"""What the ranks of a training compute and agree on together."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from advmix_cli.errors import AdvmixError, RanksError, StoppedError, UsageError, first_line
from advmix_cli.ranks.farewell import End, leave_word, word_left
from advmix_cli.ranks.torchrun import Launch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup, Store  # pyright: ignore[reportPrivateImportUsage]

Shared = TypeVar("Shared")


@dataclass(frozen=True)
class Team(Launch):
    """The ranks of a training. Alone, every method gives back what it is given, at once.

    RanksError, or the StoppedError that another rank has ended with, where one is gone.
    """

    store: "Store | None" = field(default=None, repr=False)
    """Where words are left."""
    agreeing: "ProcessGroup | None" = field(default=None, repr=False)
    """Within which one may wait long for another; all else is in step."""

    def __deepcopy__(self, _: object) -> "Team":
        """Itself: networks that know it are copied."""
        return self

    @property
    def first(self) -> bool:
        """Whether this one writes, says and decides."""
        return self.rank == 0

    def highest(self, *values: int) -> tuple[int, ...]:
        """Each the highest of all ranks."""
        if self.world == 1:
            return values
        import torch
        import torch.distributed as dist

        found = torch.tensor(values)
        with self._reached():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(found.tolist())

    def average(self, tensors: Sequence["Tensor"]) -> None:
        """Each becomes the mean of all ranks, in place; all of one type and on one device. They are summed as one
        vector, the same one at each call, so that the order of its sums is, too."""
        if self.world == 1:
            return
        import torch
        import torch.distributed as dist

        vector = torch.cat([value.detach().reshape(-1) for value in tensors])
        with self._reached():
            dist.all_reduce(vector)
        vector /= self.world
        parts = vector.split([value.numel() for value in tensors])
        for value, part in zip(tensors, parts, strict=True):
            value.detach().copy_(part.view(value.shape))

    def from_first(self, value: Shared) -> Shared:
        """The first rank's value, which is small."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        holder = [value]
        with self._reached():
            dist.broadcast_object_list(holder, src=0, group=self.agreeing)
        return holder[0]

    def first_of(self, reason: str) -> str:
        """The first reason of any rank, or "" if none has one."""
        if self.world == 1:
            return reason
        reasons = self._gathered(reason)
        return next((f"rank {rank}: {one}" if rank else one for rank, one in enumerate(reasons) if one), "")

    def tensors_from_first(self, own: Mapping[str, "Tensor"] | None) -> dict[str, "Tensor"]:
        """Those of the first rank, on the CPU, as they are there; the others have none of their own."""
        import torch

        forms = self.from_first({name: (value.shape, value.dtype) for name, value in (own or {}).items()})
        found = dict(own or {name: torch.empty(shape, dtype=kind) for name, (shape, kind) in forms.items()})
        for value in found.values():
            self.spread(value)
        return found

    def spread(self, value: "Tensor") -> None:
        """It becomes what the first rank has, in place."""
        if self.world > 1:
            import torch.distributed as dist

            with self._reached():
                dist.broadcast(value.detach(), src=0)

    def total(self, value: "Tensor") -> "Tensor":
        """The sum over all ranks."""
        import torch.distributed as dist

        found = value.clone()
        with self._reached():
            dist.all_reduce(found)
        return found

    def stacked(self, value: "Tensor") -> "Tensor":
        """(...) of each rank -> (ranks, ...)."""
        import torch
        import torch.distributed as dist

        found = [torch.empty_like(value) for _ in range(self.world)]
        with self._reached():
            dist.all_gather(found, value)
        return torch.stack(found)

    def together(self) -> AbstractContextManager[None]:
        """What ends one rank's work within ends all: with the error of the first of them, which says it."""
        return nullcontext() if self.world == 1 else self._together()

    @contextmanager
    def _together(self) -> Iterator[None]:
        own = None
        try:
            yield
        except (AdvmixError, OSError, StoppedError) as error:
            own = error
        outcomes = self._gathered(End.of(own) if own else None)
        speaker = next((rank for rank, outcome in enumerate(outcomes) if outcome), None)
        if speaker is None:
            return
        if speaker == self.rank:
            assert own
            raise own
        end = outcomes[speaker]
        assert end
        raise end.elsewhere()

    def raise_if_different(self, text: str, what: str) -> None:
        """UsageError on all ranks if `text` is not the same on each."""
        if self.world > 1 and len(set(self._gathered(text))) > 1:
            raise self._on_all(UsageError(f"the ranks have different {what}"))

    def raise_if_apart(self, tensors: Mapping[str, "Tensor"], when: str) -> None:
        """RanksError on all ranks if a tensor's bits, summed, are not the same on each."""
        if self.world == 1:
            return
        import torch

        sums = [int(value.detach().reshape(-1).view(torch.int32).sum()) for value in tensors.values()]
        found = self._gathered(dict(zip(tensors, sums, strict=True)))
        differ = [name for name in tensors if len({one.get(name) for one in found}) > 1]
        if differ or len({len(one) for one in found}) > 1:
            named = f" ({differ[0]} and {len(differ) - 1} more)" if differ else ""
            raise self._on_all(
                RanksError(
                    f"the ranks have come apart {when}{named}: they compute differently, as GPUs of two kinds do; "
                    "nothing of it is saved"
                )
            )

    def leave(self) -> None:
        """When all have come here, each goes on alone."""
        if self.world > 1:
            import torch.distributed as dist

            self.highest(0)
            dist.destroy_process_group()

    def _gathered(self, value: Shared) -> list[Shared]:
        """Of each rank."""
        import torch.distributed as dist

        found: list[Shared] = [value] * self.world
        with self._reached():
            dist.all_gather_object(found, value, group=self.agreeing)
        return found

    def _on_all(self, error: AdvmixError) -> AdvmixError:
        """An error that every rank raises: the first one says it."""
        error.said = not self.first
        return error

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self._lost(error) from None

    def _lost(self, error: RuntimeError) -> BaseException:
        """Why another rank is gone, if it has left a word."""
        word = word_left(self.store) if self.store is not None else None
        if word is not None:
            return word
        lost = RanksError(
            f"another rank has ended without a word, or cannot be reached ({first_line(error):.200}); what was saved "
            "before is whole, and the same command with --resume goes on"
        )
        # It may be the first one that is gone: of those that are left, who finds it says so.
        lost.said = self.store is not None and not leave_word(self.store, lost, self.rank)
        return lost


ALONE = Team()
