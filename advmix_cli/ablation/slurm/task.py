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

from advmix_cli.ablation.child import WRONG, cause, command, plain
from advmix_cli.ablation.slurm import scheduler
from advmix_cli.errors import AdvmixError, SchedulerError
from advmix_cli.failures import Failure
from advmix_cli.files import appended
from advmix_cli.locks import is_held
from advmix_cli.report.tracking import Kind
from advmix_cli.rundir import FAILURE, LOG

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

ATTEMPTS = 2
"""At a cell that fails, before it is given up."""
DIVERGED = 3
"""Exit code of who has said so in results.json."""
LOOK = 0.1
"""Seconds between two looks at a training."""
TOLD = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""The signals that a training stops at with its state saved."""
BY_SLURM = (signal.SIGTERM, signal.SIGUSR2)


@dataclass
class Training:
    """What submitit calls with the directory of a cell. `place` is where the command is given from, which relative
    paths of a recipe start from; `device`, `save_every` (in seconds) and `trackers` are the command's."""

    place: str
    device: str
    save_every: float
    trackers: tuple[Kind, ...] = ()
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def __call__(self, directory: str) -> None:
        """Until the cell is done, has diverged, was stopped, or has failed for good: AdvmixError, and failure.json."""
        cell = Path(directory)
        (cell / FAILURE).unlink(missing_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            code = self._attempt(cell)
            if code in (0, DIVERGED):
                return
            if stopped_by(code) is not None:
                _go_on_later(code)
                return
            if code == WRONG and is_held(cell):
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
        return DelayedSubmission(replace(self), directory)

    def _attempt(self, directory: Path) -> int:
        """Its exit code; of what ended by a signal, minus the number of that."""
        # As many threads as the task has cores; a recipe that has a number of its own keeps it.
        threads = os.environ.get("SLURM_CPUS_ON_NODE")
        environment = {**({"OMP_NUM_THREADS": threads} if threads else {}), **plain(os.environ)}
        with appended(directory / LOG) as log:
            self._child = subprocess.Popen(
                command(directory, self.device, self.save_every, self.trackers),
                cwd=self.place, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        _wait(self._child)
        return self._child.wait()


def stopped_by(code: int) -> int | None:
    """The signal that a training was stopped by, if that is what its exit code says: it has saved and said so, or was
    not yet, or no more, at work."""
    return next((number for number in TOLD if code in (128 + number, -number)), None)


def _wait(child: subprocess.Popen[bytes]) -> None:
    """Until it has ended, which is left for Popen to find: `Popen.wait` holds a lock, and this is called from the
    handler of a signal that may have interrupted it. By looking again and again: a signal that another thread of this
    process is given (numpy has some) interrupts nothing, and Python hears it between two looks."""
    with suppress(ChildProcessError):
        while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            time.sleep(LOOK)


def _go_on_later(code: int) -> None:
    """What SLURM stopped goes back into the queue, unless SLURM is at ending the task: then it has been cancelled, or
    is put back by SLURM itself. By the signal that submitit heeds, which does not return from here."""
    with suppress(SchedulerError):
        if stopped_by(code) in BY_SLURM and scheduler.state(os.environ["SLURM_JOB_ID"]) == scheduler.RUNNING:
            from submitit.core.job_environment import JobEnvironment

            signal.raise_signal(getattr(signal, f"SIG{JobEnvironment.USR_SIG}"))
