"""A task of the array: one cell in a child process, which a preemption ends gently before SLURM queues the task again.

Two signals come. SIGUSR2, before the time is up or on preemption if the cluster is set so, is submitit's: its handler
calls `checkpoint` and puts the task back into the queue. SIGTERM is SLURM's own, before a kill; submitit does not heed
it, but the training does, since SLURM signals every process of a step. All that a cell has done is in its directory, so
that a task which starts again only has to start the same command again.
"""

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from advmix_cli.ablation.child import ATTEMPTS, WRONG, cause, command, is_busy, plain, stopped_by, tied_to_us
from advmix_cli.ablation.slurm import scheduler
from advmix_cli.errors import AdvmixError, SchedulerError
from advmix_cli.failures import Failure
from advmix_cli.files import appended
from advmix_cli.report.tracking import Kind
from advmix_cli.rundir import FAILURE, FINDINGS, LOG, METRICS, RECIPE, STATE, VERDICTS, reached

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

DIVERGED = 3
"""Exit code of who has said so in results.json."""
STUCK = 3
"""Times that a task may be stopped where it was stopped before."""
LOOK = 0.1
"""Seconds between two looks at a training."""
BY_SLURM = (signal.SIGTERM, signal.SIGUSR2)


@dataclass
class Training:
    """What submitit calls with the directory of a cell. `place` is where the command is given from, which relative
    paths of a recipe start from; `device`, `save_every` (in seconds) and `trackers` are the command's."""

    place: str
    device: str
    save_every: float
    trackers: tuple[Kind, ...] = ()
    at: str = ""
    stuck: int = 0
    """How often a task began at `at` of the cell, and was stopped there again."""
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def __call__(self, directory: str) -> None:
        """Until the cell is done, has diverged, was stopped, or has failed for good: AdvmixError, and failure.json."""
        cell = Path(directory)
        if not (cell / RECIPE).is_file():  # before a log would make it anew, without what it is of
            raise AdvmixError(f"{cell} is gone, or has lost its {RECIPE}")
        (cell / FAILURE).unlink(missing_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            code = self._attempt(cell)
            if code in (0, DIVERGED):
                return
            if stopped_by(code) is not None:
                _go_on_later(code)
                return
            if is_busy(code, cell):
                raise AdvmixError(f"{cell} is in use by another process")
            # Who has not even started would say the same again.
            if attempt == ATTEMPTS or code == WRONG:
                failure = Failure(attempt, code, cause(code, cell))
                failure.save(cell)
                raise AdvmixError(f"{cell}: {failure}")

    def checkpoint(self, directory: str) -> "DelayedSubmission":
        """Within the handler of SIGUSR2, wherever `__call__` is: end the training, and say what is to be called when
        the task starts again. The training may have heard the signal too, which does not matter; one that is being
        started at this very moment ends with the step, and has nothing to lose."""
        from submitit.core.utils import DelayedSubmission

        if self._child:
            self._child.send_signal(signal.SIGUSR2)
            _wait(self._child)
        cell = Path(directory)
        at = _progress(cell)
        stuck = self.stuck + 1 if at == self.at else 0
        if stuck == STUCK:
            said = f"stopped {STUCK + 1} times at the same place: a task needs more --time, or something stops it"
            Failure(stuck + 1, 0, said).save(cell)
            raise AdvmixError(f"{cell}: {said}")
        return DelayedSubmission(replace(self, at=at, stuck=stuck), directory)

    def _attempt(self, directory: Path) -> int:
        """Its exit code; of what ended by a signal, minus the number of that."""
        # As many threads as the task has cores; a recipe that has a number of its own keeps it.
        threads = os.environ.get("SLURM_CPUS_ON_NODE")
        environment = {**({"OMP_NUM_THREADS": threads} if threads else {}), **plain(os.environ)}
        with appended(directory / LOG) as log:
            self._child = subprocess.Popen(
                tied_to_us(command(directory, self.device, self.save_every, self.trackers)),
                cwd=self.place, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        _wait(self._child)
        return self._child.wait()


def _wait(child: subprocess.Popen[bytes]) -> None:
    """Until it has ended, which is left for Popen to find: `Popen.wait` holds a lock, and this is called from the
    handler of a signal that may have interrupted it. By looking again and again: a signal that another thread of this
    process is given (numpy has some) interrupts nothing, and Python hears it between two looks."""
    with suppress(ChildProcessError):
        while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            time.sleep(LOOK)


def _progress(cell: Path) -> str:
    """What changes when the cell gets on."""
    files = [cell / METRICS, *(path for part in (FINDINGS, VERDICTS) for path in sorted((cell / part).glob("*")))]
    sizes = [(path.name, path.stat().st_size) for path in files if path.is_file()]
    return f"{reached(cell / STATE)} {sizes}"


def _identity() -> str:
    """Of this task. The one of an array whose number is the array's own would be asked for as all of them."""
    own = [os.environ.get(name) for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")]
    return f"{own[0]}_{own[1]}" if all(own) else os.environ["SLURM_JOB_ID"]


def _go_on_later(code: int) -> None:
    """What SLURM stopped goes back into the queue, unless SLURM is at ending the task: then it has been cancelled, or
    is put back by SLURM itself. By the signal that submitit heeds, which does not return from here."""
    with suppress(SchedulerError):
        if stopped_by(code) in BY_SLURM and scheduler.state(_identity()) == scheduler.RUNNING:
            from submitit.core.job_environment import JobEnvironment

            signal.raise_signal(getattr(signal, f"SIG{JobEnvironment.USR_SIG}"))
