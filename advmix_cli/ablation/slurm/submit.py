"""Submits cells as one job array."""

import re
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

from advmix_cli.ablation.cells import Cell
from advmix_cli.ablation.slurm import scheduler
from advmix_cli.ablation.slurm.scheduler import Cluster, Task
from advmix_cli.ablation.slurm.submissions import DIRECTORY, Submission
from advmix_cli.ablation.slurm.task import Training
from advmix_cli.errors import SchedulerError, UsageError

NOTICE = 120
"""Seconds before the end of a task's time at which its training is told to stop and save."""
TIMES = 1000
"""How often a task whose time is up goes back into the queue."""


@dataclass(frozen=True)
class Request:
    """What a task asks of the cluster: `minutes` at a time, `gpus`, cores (`cpus`), memory (`mem`, as SLURM writes it:
    "16G"), and no more than `parallel` tasks at once. What is None is left to the cluster."""

    minutes: int
    gpus: int | None = None
    partition: str | None = None
    cpus: int | None = None
    mem: str | None = None
    account: str | None = None
    qos: str | None = None
    parallel: int | None = None


def check_installed() -> None:
    """UsageError if submitit is not."""
    if find_spec("submitit") is None:
        raise UsageError("--launcher slurm needs submitit: pip install 'advmix[slurm]'")


def job_name(table: Path) -> str:
    """Of the jobs of the table whose cells lie in `table`: what they are found by."""
    return f"advmix-{re.sub(r'[^A-Za-z0-9._-]', '-', table.name)}"


def submit(cells: Sequence[Cell], request: Request, training: Training, here: Cluster) -> Submission:
    """`training` of each cell as a task of one array. The cells are in one directory, each with its recipe.toml.
    SchedulerError if SLURM refuses; then there is no job. A Ctrl-C waits until it is known which job it is."""
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    table = cells[0].directory.parent.absolute()
    if "%" in str(table):
        raise UsageError(f"--out: SLURM replaces what follows a % in {table}; choose another directory")
    longest = here.longest_array
    if longest is not None and len(cells) > longest:
        raise UsageError(
            f"{len(cells):,} cells, and an array of this cluster has at most {longest:,} tasks (MaxArraySize): submit "
            "fewer at a time, with --rows or --seeds"
        )
    directory = table / DIRECTORY / datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S-%f")
    executor = SlurmExecutor(directory, max_num_timeout=TIMES)
    wanted = {
        "partition": request.partition, "gpus_per_node": request.gpus or None, "cpus_per_task": request.cpus,
        "mem": request.mem, "account": request.account, "qos": request.qos,
    }  # fmt: skip
    executor.update_parameters(
        job_name=job_name(table),
        time=request.minutes,
        array_parallelism=request.parallel or len(cells),
        signal_delay_s=min(NOTICE, request.minutes * 30),
        stderr_to_stdout=True,
        additional_parameters={"requeue": True},  # where JobRequeue=0 is the cluster's default
        # srun no longer takes it from sbatch (SLURM 22.05).
        srun_args=[f"--cpus-per-task={request.cpus}"] if request.cpus else [],
        **{name: value for name, value in wanted.items() if value is not None},
    )
    try:
        # What submitit raises it says, too.
        with redirect_stderr(StringIO()), _without_interrupts():
            jobs = executor.map_array(training, [str(cell.directory.absolute()) for cell in cells])
    except (FailedJobError, FailedSubmissionError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise SchedulerError(f"sbatch: {scheduler.one_line(str(error))}") from None
    tasks = {cell.directory.name: job.job_id for cell, job in zip(cells, jobs, strict=True)}
    done = Submission(directory, tasks, here.name)
    done.save()
    return done


def raise_if_stray(tasks: Mapping[str, Task], submitted: Sequence[Submission], table: Path) -> None:
    """SchedulerError if SLURM has tasks of this table that no submission knows."""
    known = {identity for submission in submitted for identity in submission.tasks.values()}
    place = f"{table.absolute() / DIRECTORY}/"
    strays = [task.identity for task in tasks.values() if task.script.startswith(place) and task.identity not in known]
    if jobs := " ".join(dict.fromkeys(stray.partition("_")[0] for stray in strays)):
        raise SchedulerError(
            f"job {jobs} was submitted from {table}, and no record of it is there: that was interrupted or deleted. "
            f"End it (scancel {jobs}), then give the same command again"
        )


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C, which a terminal sends to sbatch too, waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
