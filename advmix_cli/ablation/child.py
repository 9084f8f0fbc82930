"""One cell in a process of its own: the documented command, whose truth is in the cell's files."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from advmix_cli import tied
from advmix_cli.ablation.cells import Cell
from advmix_cli.ablation.slots import Slot
from advmix_cli.errors import printable
from advmix_cli.failures import Failure
from advmix_cli.files import appended
from advmix_cli.locks import is_held
from advmix_cli.report.tracking import Kind
from advmix_cli.rundir import LOG, RECIPE

Ending = Literal["done", "diverged", "stopped", "busy", "failed"]
TOLD = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""The signals that a training stops at with its state saved."""
ATTEMPTS = 2
"""At a cell that fails, before it is given up."""
WRONG = 2
"""Exit code of who has not started anything, because a recipe, a flag or a file is wrong."""
LAST_SAID = 4096
"""Bytes of the log that its last line is looked for in."""


@dataclass
class Child:
    """A cell that runs, since its log had `before` bytes."""

    cell: Cell
    slot: Slot
    process: subprocess.Popen[bytes]
    before: int

    def ask(self) -> None:
        """To save its state and end."""
        self.process.terminate()

    def kill(self) -> None:
        """It and all that it started, without waiting for it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def ending(self) -> Ending | None:
        """How it ended, or None if it has not."""
        code = self.process.poll()
        if code is None:
            return None
        known = self.cell.results() if code in (0, 3) else None
        if known and known.finished:
            return "done"
        if known and known.diverged:
            return "diverged"
        if stopped_by(code) is not None:
            return "stopped"
        return "busy" if is_busy(code, self.cell.directory, self.before) else "failed"

    def failure(self, attempts: int) -> Failure:
        """Of one that failed."""
        code = self.process.returncode
        return Failure(attempts, code, cause(code, self.cell.directory, self.before))


def stopped_by(code: int) -> int | None:
    """The signal that a training was stopped by, if that is what its exit code says: it has saved and said so, or was
    not yet, or no more, at work."""
    return next((number for number in TOLD if code in (128 + number, -number)), None)


def is_busy(code: int, directory: Path, before: int = 0) -> bool:
    """Whether it has left the cell to another process, which may have ended since."""
    return code == WRONG and (is_held(directory) or f"{directory} is in use: " in cause(code, directory, before))


def cause(code: int, directory: Path, before: int = 0) -> str:
    """What killed the process of a cell, or what it said last, since its log had `before` bytes."""
    if code < 0:
        name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
        hint = ", which is also what a system without memory sends" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    try:
        with (directory / LOG).open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(before, end - LAST_SAID))
            lines = log.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return f"{directory} is gone" if not directory.exists() else f"its {LOG} is gone"
    said = [line.strip() for line in lines if line.strip()]
    return printable(said[-1].removeprefix("error: ")) if said else "it said nothing"


def command(directory: Path, device: str, save_every: float, trackers: Sequence[Kind] = ()) -> list[str]:
    """What a person would type to go on with the cell in `directory`."""
    words = [sys.executable, "-m", "advmix_cli", "train", str(directory / RECIPE), "--out", str(directory)]
    words += ["--resume", "--device", device, "--save-every", f"{save_every:.3f}s"]
    return [*words, *(word for kind in trackers for word in ("--track", kind))]


def tied_to_us(program: Sequence[str]) -> list[str]:
    """The same command, told to stop if this process ends without a word."""
    return [sys.executable, "-I", tied.__file__, str(os.getpid()), *program]


def plain(environment: Mapping[str, str]) -> dict[str, str]:
    """Of a process that writes a log, which is no terminal, whatever ours is taken for."""
    return {name: value for name, value in environment.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}


def started(
    cell: Cell, slot: Slot, save_every: float, environment: Mapping[str, str], trackers: Sequence[Kind] = ()
) -> Child:
    """Start the cell, whose recipe.toml is there, or raise OSError. In a session of its own, so that a terminal's
    Ctrl-C comes to us alone."""
    with appended(cell.directory / LOG) as log:
        before = log.tell()
        process = subprocess.Popen(
            tied_to_us(command(cell.directory, slot.device, save_every, trackers)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**plain(environment), **slot.environment},
            start_new_session=True,
        )
    return Child(cell, slot, process, before)
