"""Submits cells as one job array."""

import re
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

from advmix_cli.ablation.cells import Cell
from advmix_cli.ablation.slurm import scheduler
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


def submit(cells: Sequence[Cell], request: Request, training: Training) -> Submission:
    """`training` of each cell as a task of one array. The cells are in one directory, each with its recipe.toml.
    SchedulerError if SLURM refuses; then there is no job."""
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    table = cells[0].directory.parent.absolute()
    if "%" in str(table):
        raise UsageError(f"--out: SLURM replaces what follows a % in {table}; choose another directory")
    longest = scheduler.longest_array()
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
        with redirect_stderr(StringIO()):  # where submitit repeats what it raises
            jobs = executor.map_array(training, [str(cell.directory.absolute()) for cell in cells])
    except (FailedJobError, FailedSubmissionError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise SchedulerError(f"sbatch: {scheduler.one_line(str(error))}") from None
    done = Submission(directory, {cell.directory.name: job.job_id for cell, job in zip(cells, jobs, strict=True)})
    done.save()
    return done
