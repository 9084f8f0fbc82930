"""What torchrun says to the processes that it starts, and how one ends that it watches."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from advmix_cli.errors import UsageError

GIVEN_WAY = 2.0
"""Seconds in which the rank that says an error is not ended by torchrun, which ends all when the first one fails."""


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
