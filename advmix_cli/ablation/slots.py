"""What of this machine each of several trainings at once gets: a GPU, or a share of the CPU's threads."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

VISIBLE, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Slot:
    """`device` is the child's --device, `environment` what is changed of ours for it, `name` what to call it."""

    name: str
    device: str
    environment: Mapping[str, str]


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus(visible: str | None, there: int) -> list[str]:
    """How each of the `there` GPUs that torch sees is called in CUDA_VISIBLE_DEVICES, which is now `visible`: by its
    number or its UUID. CUDA reads it until the first entry that names no GPU."""
    named = visible.split(",") if visible is not None else map(str, range(there))
    return [name.strip() for name in named][:there]


def threads(jobs: int, asked: str | None) -> int:
    """Each one's share of the cores; fewer if `asked`, OMP_NUM_THREADS as the user has set it, is less."""
    share = max(1, cores() // jobs)
    first = (asked or "").split(",")[0].strip()
    return min(share, int(first)) if first.isdecimal() and int(first) > 0 else share


def on_cpu(jobs: int, environment: Mapping[str, str]) -> list[Slot]:
    """So many shares of the CPU."""
    share = threads(jobs, environment.get(THREADS))
    name = "1 thread" if share == 1 else f"{share} threads"
    return [Slot(name, "cpu", {THREADS: str(share)}) for _ in range(jobs)]


def on_gpus(jobs: int, names: list[str], environment: Mapping[str, str]) -> list[Slot]:
    """So many, a GPU each, or, if there are more of them than GPUs, by turns."""
    share = str(threads(jobs, environment.get(THREADS)))
    chosen = [names[number % len(names)] for number in range(jobs)]
    return [Slot(f"GPU {name}", "cuda", {VISIBLE: name, THREADS: share}) for name in chosen]
