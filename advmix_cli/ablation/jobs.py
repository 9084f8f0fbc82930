"""Runs the cells of a table in processes of their own, some at once; what is done is not done again."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from advmix_cli import build
from advmix_cli.ablation.cells import Cell
from advmix_cli.ablation.child import ATTEMPTS, WRONG, Child, started
from advmix_cli.ablation.queue import outcome
from advmix_cli.ablation.slots import Slot
from advmix_cli.ablation.unfinished import Unfinished
from advmix_cli.fit import Keeping
from advmix_cli.locks import is_held
from advmix_cli.recipe.schema import DigitsData
from advmix_cli.report.progress import Watcher
from advmix_cli.report.tracking import Kind
from advmix_cli.rundir import LAST, RECIPE, STATE, reached

LOOK = 0.1
"""Seconds between two looks at the processes."""


def run_jobs(
    cells: Sequence[Cell],
    slots: Sequence[Slot],
    watch: Watcher,
    looked: Callable[[frozenset[Path]], None],
    keeping: Keeping,
    trackers: Sequence[Kind] = (),
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Run what is unfinished of `cells`, which are prepared, in as many processes as there are slots; `looked` is
    called, several times a second, with the directories in which something runs. A cell that fails is tried once more,
    from its state, and then marked. That does not stop the others, nor does one that diverges or that another process
    works in: CellsFailedError or InUseError at the end.

    Asked to stop, it asks the processes, and waits until they have saved: StoppedError. On a KeyboardInterrupt they are
    killed. None outlives this call. DataError before anything starts.
    """
    pool = _Pool(cells, watch, keeping, trackers, environment, list(slots))
    _look_at_data(pool.waiting, watch.say)
    try:
        with keeping.stop.heard_at_checks():
            while pool.work():
                looked(frozenset(child.cell.directory for child in pool.running))
                time.sleep(LOOK)
    except KeyboardInterrupt:
        pool.kill()
        raise
    except BaseException:
        pool.ask()
        try:
            pool.wait()
        except BaseException:
            pool.kill()
            raise
        raise
    keeping.stop.check()
    pool.unfinished.tell()


def _look_at_data(cells: Iterable[Cell], say: Callable[[str], None]) -> None:
    """DataError before anything starts; and what has to be downloaded or decoded first is so once, not by many."""
    distinct = {(recipe.data, recipe.validation.held_out): recipe for recipe in (cell.row.recipe for cell in cells)}
    for recipe in distinct.values():
        if not isinstance(recipe.data, DigitsData):
            build.dataset(recipe, torch.device("cpu"), say)


@dataclass
class _Pool:
    cells: Sequence[Cell]
    watch: Watcher
    keeping: Keeping
    trackers: Sequence[Kind]
    environment: Mapping[str, str]
    free: list[Slot]
    running: list[Child] = field(default_factory=list)
    attempts: dict[Path, int] = field(default_factory=dict)
    waiting: deque[Cell] = field(default_factory=deque)
    unfinished: Unfinished = field(init=False)
    asked: bool = False

    def __post_init__(self) -> None:
        self.unfinished = Unfinished(len(self.cells))
        self.waiting.extend(cell for cell in self.cells if not cell.ended())

    def work(self) -> bool:
        """Look at what has ended, start what there is room for; whether anything is left to wait for."""
        for child in [child for child in self.running if child.process.poll() is not None]:
            self.running.remove(child)
            self.free.append(child.slot)
            self._end(child)
        if self.keeping.stop.asked:
            if self.running and not self.asked:
                self.watch.say(f"{len(self.running)} trainings are told to save their state and end")
            self.ask()
            return bool(self.running)
        while self.free and self.waiting:
            self._start(self.waiting.popleft())
        return bool(self.running)

    def _start(self, cell: Cell) -> None:
        if is_held(cell.directory):
            self._say(cell, "left to another process, which works in it")
            self.unfinished.busy.append(cell)
            return
        slot = self.free.pop(0)
        self.attempts[cell.directory] = self.attempts.get(cell.directory, 0) + 1
        try:
            child = started(cell, slot, self.keeping.every, self.environment, self.trackers)
        except OSError as error:
            self.free.append(slot)
            self._say(cell, f"failed: {error.filename or 'its process'}: {error.strerror or error}")
            self.unfinished.failed.append(cell)
            return
        self.running.append(child)
        self._say(cell, f"started ({slot.name})")

    def _end(self, child: Child) -> None:
        cell = child.cell
        match child.ending():
            case "done" | "diverged":
                self._say(cell, outcome(cell))
            case "busy":
                self._say(cell, "left to another process, which works in it")
                self.unfinished.busy.append(cell)
            case "stopped":
                begun = reached(cell.directory / STATE) or (cell.directory / LAST).exists()
                self._say(cell, f"stopped, {'its state is saved' if begun else 'nothing was trained yet'}")
                self.unfinished.stopped.append(cell)
            case _:
                self._fail(child)

    def _fail(self, child: Child) -> None:
        cell = child.cell
        failure = child.failure(self.attempts[cell.directory])
        # Who has not even started would say the same again.
        again = failure.attempts < ATTEMPTS and child.process.returncode != WRONG
        if again:
            self._say(cell, f"failed, and is tried again: {failure.error}")
            self.waiting.appendleft(cell)
        else:
            self._say(cell, f"failed: {failure}")
            # A full disk is no reason to end the others, and what was taken away stays away.
            with suppress(OSError):
                if (cell.directory / RECIPE).exists():
                    failure.save(cell.directory)
            self.unfinished.failed.append(cell)

    def ask(self) -> None:
        """All that run to save their state and end, once."""
        if not self.asked:
            self.asked = True
            for child in self.running:
                child.ask()

    def wait(self) -> None:
        """Until all have ended."""
        for child in self.running:
            child.process.wait()

    def kill(self) -> None:
        """All that run."""
        for child in self.running:
            child.kill()
        self.wait()

    def _say(self, cell: Cell, what: str) -> None:
        self.watch.say(f"[{self.cells.index(cell) + 1}/{len(self.cells)}] {cell.name}: {what}")
