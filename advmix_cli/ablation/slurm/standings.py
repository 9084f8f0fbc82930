"""How the cells of a table stand: what their files say, and SLURM's word on those that it has been given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advmix_cli.ablation.cells import Cell
from advmix_cli.ablation.slurm.scheduler import RUNNING, Task
from advmix_cli.ablation.slurm.submissions import Submission
from advmix_cli.ablation.standing import Standing, standing
from advmix_cli.report.grid import Cell as Text
from advmix_cli.report.grid import Grid

PENDING = "PENDING"


@dataclass(frozen=True)
class Place:
    """`task` is SLURM's, if the cell has one that is not over; `submission` the last one that it was in. Where that is
    `elsewhere`, another cluster's, nothing here knows whether its task is over."""

    cell: Cell
    files: Standing
    task: Task | None = None
    submission: Submission | None = None
    elsewhere: bool = False

    @property
    def log(self) -> Path | None:
        """What its last task wrote."""
        return self.submission and self.submission.log(self.cell.directory.name)

    @property
    def held(self) -> Submission | None:
        """Of another cluster, that may still run the cell. A failure is written by the task that ends with it."""
        return self.submission if self.elsewhere and not self.files.ended and self.files.state != "failed" else None

    @property
    def state(self) -> str:
        """What holds: of what is not done, SLURM knows better whether it waits or has started."""
        if self.task is None or self.files.ended:
            return self.files.state
        if self.task.state == PENDING:
            return "waiting"
        return "running" if self.task.state == RUNNING else self.files.state

    @property
    def to_submit(self) -> bool:
        """Whether nobody has done it, does it, or is going to do it."""
        return self.task is None and self.held is None and self.files.state in ("waiting", "stopped", "failed")


def places(
    cells: Sequence[Cell], submitted: Sequence[Submission], tasks: Mapping[str, Task], here: str | None
) -> list[Place]:
    """Of each cell; `tasks` are those that SLURM knows, and `here` the name of its cluster."""
    found: list[Place] = []
    for cell in cells:
        name = cell.directory.name
        own = [submission for submission in submitted if name in submission.tasks]
        asked = [one.tasks[name] for one in own if not one.elsewhere(here)]
        task = next((tasks[identity] for identity in asked if identity in tasks), None)
        last = own[-1] if own else None
        elsewhere = task is None and last is not None and last.elsewhere(here)
        found.append(Place(cell, standing(cell.row.recipe, cell.directory), task, last, elsewhere))
    return found


def held_elsewhere(found: Sequence[Place], here: str | None) -> list[str]:
    """What is to be known of each submission of another cluster that may still run cells, a line each."""
    held = [place.held for place in found if place.held]
    return [
        f"{held.count(one)} of {len(found)} cells are in job {one.jobs} of cluster {one.cluster}, and this is cluster "
        f"{here}: see there how they stand; to run them here, end them there (scancel {one.jobs}), and delete "
        f"{one.directory}"
        for one in {one.directory: one for one in held}.values()
    ]


def places_records(found: Sequence[Place]) -> list[dict[str, Any]]:
    """A record a cell."""
    return [
        {
            "row": place.cell.row.name,
            "seed": place.cell.row.recipe.seed,
            "state": place.state,
            "epoch": place.files.epoch,
            "epochs": place.files.epochs,
            "error": place.files.error,
            "collapsed": list(place.files.collapsed),
            "cluster": place.submission and place.submission.cluster,
            "task": place.task and place.task.identity,
            "slurm": place.task and place.task.state,
            "node": place.task and place.task.node,
            "reason": place.task and place.task.reason,
            "time": place.task and place.task.time,
            "directory": str(place.cell.directory),
            "log": place.log and str(place.log),
        }
        for place in found
    ]


def places_grid(title: str, found: Sequence[Place], captions: Sequence[str]) -> Grid:
    """The same for a person."""
    given = any(place.log for place in found)
    columns = ("row", "seed", "state", "epoch", *(("task", "SLURM") if given else ()))
    rows: list[tuple[Text, ...]] = []
    for place in found:
        error = (place.files.error,) if place.files.error and place.state in ("failed", "diverged") else ()
        name = Text(place.cell.row.name, (place.cell.directory.name, *error))
        epoch = f"{place.files.epoch}/{place.files.epochs}"
        row = [str(place.cell.row.recipe.seed), place.state, epoch, *(_said(place) if given else ())]
        rows.append((name, *map(Text, row)))
    states = [place.state for place in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    warnings = [
        f"{place.cell.row.name}, seed {place.cell.row.recipe.seed}: {warning}"
        for place in found
        if (warning := place.files.warning(place.cell.row.recipe))
    ]
    last = (f"{counts}; in {found[0].cell.directory.parent}", *warnings, *captions)
    return Grid(title, columns, tuple(rows), last)


def _said(place: Place) -> tuple[str, str]:
    task = place.task
    if task is None:
        held = place.held
        return (held.tasks[place.cell.directory.name], f"on cluster {held.cluster}") if held else ("", "")
    about = f" on {task.node}, {task.time}" if task.state != PENDING else f", {task.reason}" if task.reason else ""
    return task.identity, task.state + about
