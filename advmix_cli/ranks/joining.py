"""How the ranks of a training find each other, and how long one waits for another.

Two groups of the same ranks. Within the one they are in step: the sums of an update, and a few bytes at the end of each
batch. Nobody is late there by more than another rank takes longer for a batch. Within the other one they agree, after
what the first rank does alone, or each at its own pace: validating, saving, downloading, compiling. What is small and
on the CPU travels by gloo, which makes the host wait and no GPU; the tensors of a GPU travel by NCCL, in step.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

from advmix_cli.errors import RanksError
from advmix_cli.ranks.farewell import leave_word, say_over, wait_until_over
from advmix_cli.ranks.team import ALONE, Team
from advmix_cli.ranks.torchrun import Launch

if TYPE_CHECKING:
    from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

JOINING = timedelta(minutes=10)
"""For all ranks to come: one that has failed before is noticed by nothing else on the other machines."""
IN_STEP = timedelta(minutes=10)
"""For another rank within a batch; torch's own for NCCL. By gloo a process that has ended is noticed at once; this is
for a machine that has fallen silent, and for what NCCL does not notice."""
ALONE_AT_WORK = timedelta(hours=2)
"""For a rank that may be validating, downloading or compiling."""


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
        # torchrun that starts all anew (--max-restarts) keeps the store, with words and addresses of those that ended.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt {attempt}", store)  # pyright: ignore[reportPrivateImportUsage]
        _wait_for_all(store, rank, world)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=IN_STEP)
        agreeing = dist.new_group(backend="gloo", timeout=ALONE_AT_WORK)
        assert isinstance(agreeing, dist.ProcessGroup)
    except (RuntimeError, ValueError) as error:
        raise RanksError(f"rank {launch.rank} of {launch.world} could not join the others: {error}") from None
    team = Team(**asdict(launch), store=store, agreeing=agreeing)
    try:
        yield team
    except BaseException as error:
        if not getattr(error, "said", False):
            leave_word(store, error, rank)
        raise
    if dist.is_initialized():
        team.leave()
    # Of each other machine one rank waits for the first to be done. torchrun gives up a machine whose ranks have all
    # ended after five minutes, and if it was that one which keeps the store, it ends the first rank's work.
    if team.first:
        say_over(store)
    elif team.local_rank == 0:
        wait_until_over(store)


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
