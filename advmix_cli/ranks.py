"""The processes of one training, which torchrun starts: who this one is, and all that they say to each other.

Nothing else of ours knows torch.distributed, which is imported where there is more than one process. Each is a rank;
all take the same decisions, at the same places. What is small and on the CPU travels by gloo, which makes the host wait
and no GPU; the tensors of a GPU travel by NCCL.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from advmix_cli.errors import AdvmixError, RanksError, StoppedError, UsageError, first_line

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

Shared = TypeVar("Shared")

LONGEST_WAIT = timedelta(hours=2)
"""For another rank, which may be validating, downloading or compiling. One that has ended is noticed at once."""
JOINING = timedelta(minutes=10)
"""For all ranks to come: one that has failed before is noticed by nothing else on the other machines."""
GIVEN_WAY = 2.0
"""Seconds in which the rank that says an error is not ended by torchrun, which ends all when the first one fails."""
FAILED, OVER = "advmix/failed", "advmix/over"
"""Where the first failure is told to who finds a rank gone, and that the first rank has done all."""


@dataclass(frozen=True)
class Launch:
    """This process among the `world` that were started together: its number among all, and on its own machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def launched(environment: Mapping[str, str] = os.environ) -> Launch:
    """What torchrun says in the environment; without it, one process. UsageError where it says nonsense."""
    if environment.get("WORLD_SIZE", "1") == "1" and ("WORLD_SIZE" in environment or "RANK" not in environment):
        return Launch()
    hint = "start it with torchrun --nproc-per-node N -m advmix_cli train RECIPE, or unset RANK and WORLD_SIZE"

    def number(name: str, least: int, below: int | None = None) -> int:
        text = environment.get(name)
        if text is None:
            raise UsageError(f"{name} is not set, but others of torchrun's variables are; {hint}")
        if not text.isdecimal() or int(text) < least or (below is not None and int(text) >= below):
            among = f"{least} or more" if below is None else f"{least} to {below - 1}"
            raise UsageError(f"{name} = {text} in the environment, and should be {among}; {hint}")
        return int(text)

    world = number("WORLD_SIZE", 1)
    rank = number("RANK", 0, world)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environment.get(name):
            raise UsageError(f"WORLD_SIZE = {world}, but {name} is not set; {hint}")
    local_world = number("LOCAL_WORLD_SIZE", 1, world + 1)
    return Launch(rank, world, number("LOCAL_RANK", 0, local_world), local_world)


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the one that speaks, by what the environment says of its rank."""
    return environment.get("WORLD_SIZE", "1") == "1" or environment.get("RANK", "0") == "0"


def outlast_torchrun(environment: Mapping[str, str] = os.environ) -> None:
    """When one rank has failed torchrun asks all others to end, and within a tenth of a second, SIGTERM would end one
    that has not yet said why. From here on only who listens hears it; what takes longer than 30 s, torchrun kills."""
    if environment.get("WORLD_SIZE", "1") != "1":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


def end_at_once(code: int, environment: Mapping[str, str] = os.environ) -> None:
    """End a rank whose work is done. The interpreter's own end takes down threads of torch.distributed that still run,
    and now and then aborts by it, which torchrun takes for a failure."""
    if environment.get("WORLD_SIZE", "1") != "1":
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # nobody may read it any more
                stream.flush()
        os._exit(code)


def give_way() -> None:
    """Leave a moment later than the rank that says why all end."""
    time.sleep(GIVEN_WAY)


@dataclass(frozen=True)
class Team(Launch):
    """The ranks of a training. Alone, every method gives back what it is given, at once.

    RanksError, or the StoppedError that another rank has ended with, where one is gone.
    """

    _store: "Store | None" = field(default=None, repr=False)

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
            dist.broadcast_object_list(holder, src=0)
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
        outcomes = self._gathered(_End.of(own) if own else None)
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

    def end(self) -> None:
        """Of each other machine one rank waits for the first to be done. torchrun gives up a machine whose ranks have
        all ended after five minutes, and if it was that one which keeps the store, it ends the first rank's work."""
        if self._store is None:
            return
        with suppress(RuntimeError):
            if self.first:
                self._store.set(OVER, "")
            elif self.local_rank == 0:
                while not self._store.check([OVER]) and not self._store.check([FAILED]):
                    time.sleep(1)

    def fail(self, error: BaseException) -> None:
        """Leave a word for who finds this rank gone, unless there is one."""
        if self._store is not None and not getattr(error, "said", False):
            with suppress(RuntimeError):  # who keeps the words is gone
                self._store.compare_set(FAILED, "", json.dumps(asdict(_End.of(error))))

    def _gathered(self, value: Shared) -> list[Shared]:
        """Of each rank."""
        import torch.distributed as dist

        found: list[Shared] = [value] * self.world
        with self._reached():
            dist.all_gather_object(found, value)
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
        try:
            if self._store is not None and self._store.check([FAILED]):
                return _End(**json.loads(self._store.get(FAILED))).elsewhere()
        except RuntimeError:
            pass  # so is who kept the words
        return self._on_all(
            RanksError(
                f"another rank has ended without a word, or cannot be reached ({first_line(error):.200}); what was "
                "saved before is whole, and the same command with --resume goes on"
            )
        )


ALONE = Team()


@contextmanager
def joined(launch: Launch) -> Iterator[Team]:
    """The ranks that were launched, until all leave; an error here is left as a word for the others."""
    if launch.world == 1:
        yield ALONE
        return
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if dist.is_nccl_available() and _has_gpu() else "gloo"
    try:
        store, rank, world = next(dist.rendezvous("env://", timeout=JOINING))  # pyright: ignore[reportPrivateImportUsage]
        _wait_for_all(store, rank, world)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:
        raise RanksError(f"rank {launch.rank} of {launch.world} could not join the others: {error}") from None
    team = Team(**asdict(launch), _store=store)
    try:
        yield team
    except BaseException as error:
        team.fail(error)
        raise
    if dist.is_initialized():
        team.leave()
    team.end()


def _wait_for_all(store: "Store", rank: int, world: int) -> None:
    """RuntimeError that names who has not come."""
    keys = [f"advmix/here/{number}" for number in range(world)]
    store.set(keys[rank], "")
    try:
        store.wait(keys, JOINING)
    except RuntimeError:
        absent = [str(number) for number, key in enumerate(keys) if not store.check([key])]
        minutes = JOINING.total_seconds() / 60
        raise RuntimeError(f"after {minutes:g} minutes there is no rank {', '.join(absent)}") from None


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@dataclass(frozen=True)
class _End:
    """How the work of a rank has ended, in words that others understand."""

    message: str
    exit_code: int
    stopped: bool

    @classmethod
    def of(cls, error: BaseException) -> "_End":
        known = isinstance(error, AdvmixError | StoppedError)
        return cls(str(error), error.exit_code if known else 1, isinstance(error, StoppedError))

    def elsewhere(self) -> AdvmixError | StoppedError:
        """The same end of another rank, which says it."""
        if self.stopped:
            return StoppedError(self.message, self.exit_code)
        error = RanksError(self.message)
        error.exit_code, error.said = self.exit_code, True
        return error
