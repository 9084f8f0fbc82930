"""What SLURM's own commands say."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from advmix_cli.errors import SchedulerError, printable

PROGRAMS = ("sbatch", "srun", "squeue", "scontrol")
"""What has to be there to submit; submitit asks for srun too."""
LONGEST = 60
"""Seconds that the scheduler has to answer in."""
RUNNING = "RUNNING"


@dataclass(frozen=True)
class Cluster:
    """The one that answers here. `name` is its own, which job ids mean nothing without; `longest_array` how many tasks
    an array may have. None is what it does not say."""

    name: str | None = None
    longest_array: int | None = None


@dataclass(frozen=True)
class Task:
    """One of a job that is not over. `state` is SLURM's word (PENDING, RUNNING, COMPLETING, ...), `node` where it is,
    `reason` why it waits, `time` how long it has run, as [days-][[hours:]minutes:]seconds, `script` what it runs."""

    identity: str
    state: str
    node: str
    reason: str
    time: str
    script: str = ""


def check_programs() -> None:
    """SchedulerError if this machine is none from which jobs are submitted."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        raise SchedulerError(
            f"--launcher slurm: this machine has no {', '.join(absent)}; submit from a login node of the cluster"
        )


def tasks(name: str) -> dict[str, Task]:
    """Those of the jobs called `name` that are not over, by their identity ("12_0"); SchedulerError if SLURM does not
    say. One that is missing here is over, or the scheduler has forgotten it."""
    said = _ask("squeue", "--all", "--noheader", "--array", f"--name={name}", "--format=%i|%T|%N|%r|%M|%o")
    fields = (printable(line.strip()).split("|", 5) for line in said.splitlines() if line.count("|") >= 5)
    found = [
        Task(identity, state, node, "" if why == "None" else why, time, script)
        for identity, state, node, why, time, script in fields
    ]
    return {task.identity: task for task in found}


def state(identity: str) -> str:
    """Of one task, by its identity; SchedulerError if SLURM does not say."""
    return _ask("squeue", "--all", "--noheader", "--array", f"--jobs={identity}", "--format=%T").strip()


def cluster() -> Cluster:
    """The one that answers; SchedulerError if none does."""
    said = _ask("scontrol", "show", "config")
    name = re.search(r"^ClusterName\s*=\s*(\S+)", said, re.MULTILINE)
    # The largest index is one less than this, and ours count from 0.
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", said, re.MULTILINE)
    return Cluster(printable(name[1]) if name else None, int(size[1]) if size else None)


def one_line(said: str) -> str:
    """What a command of SLURM's complains of, without its name before each line."""
    lines = (re.sub(r"^\w+: (error|fatal): ", "", line.strip()) for line in said.splitlines())
    return printable("; ".join(line for line in lines if line)) or "no reason given"


def _ask(*words: str) -> str:
    # SQUEUE_USERS and its like would hide what is asked for, as without --all a partition that is hidden is.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        found = subprocess.run(
            words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=LONGEST, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise SchedulerError(f"this machine has no {words[0]}") from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{words[0]} has not answered for {LONGEST} seconds") from None
    if found.returncode:
        raise SchedulerError(f"{words[0]}: {one_line(found.stderr)}")
    return found.stdout
