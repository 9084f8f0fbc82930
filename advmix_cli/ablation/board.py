"""Runs at a glance: which one is where, when it will be done, and its last figures. Read from their files."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from advmix_cli.ablation.cells import Cell
from advmix_cli.ablation.eta import Eta, etas, total
from advmix_cli.ablation.standing import Found, Standing, standing
from advmix_cli.errors import RunDirectoryError, printable
from advmix_cli.recipe.schema import Recipe

LEAST = ("row", "seed", "", "eta", "PGD")
"""Columns that are always there; others where there is room for them beside a row's name, of which SHORTEST is left."""
SHORTEST = 12
AROUND = 7
"""Lines of a board that are no runs, and the line of a bar below it."""


@dataclass(frozen=True)
class Entry:
    """A run; without a recipe or a standing `problem` says what cannot be read."""

    name: str
    directory: Path
    recipe: Recipe | None
    standing: Standing | None
    problem: str | None = None

    @property
    def state(self) -> str:
        """That of its standing, or "damaged"."""
        return self.standing.state if self.standing else "damaged"

    @property
    def title(self) -> str:
        """A row with a seed."""
        return printable(f"{self.name}, seed {self.recipe.seed}" if self.recipe else self.name)


def entry(name: str, recipe: Recipe, directory: Path) -> Entry:
    """That of a run, as its files are now."""
    try:
        return Entry(name, directory, recipe, standing(recipe, directory))
    except (RunDirectoryError, OSError) as error:
        return Entry(name, directory, recipe, None, str(error))


def onlooker(runs: Sequence[tuple[str, Recipe, Path]]) -> Callable[[Collection[Path]], list[Entry]]:
    """Gives the entries of `runs` as they are when it is called, with the directories in which something was started;
    what has ended is not looked at again."""
    ended: dict[Path, Entry] = {}

    def look(started: Collection[Path] = ()) -> list[Entry]:
        found: list[Entry] = []
        for name, recipe, directory in runs:
            one = ended.get(directory) or entry(name, recipe, directory)
            if one.standing and one.standing.ended:
                ended[directory] = one
            elif one.standing and directory in started:
                # It has not come to lock it yet.
                one = replace(one, standing=replace(one.standing, state="running"))
            found.append(one)
        return found

    return look


class LiveBoard:
    """The board of cells that are run here, as they were when they were last looked at; it fits the terminal as that
    is."""

    def __init__(self, title: str, cells: Sequence[Cell], jobs: int) -> None:
        self._title, self._jobs = title, jobs
        self._look = onlooker([(cell.row.name, cell.row.recipe, cell.directory) for cell in cells])
        self._entries: list[Entry] = []
        self._drawn: tuple[list[Entry], tuple[int, int], Group] | None = None
        self.started: frozenset[Path] = frozenset()
        """Directories in which this process has started something."""

    def look(self) -> None:
        """At all that has not ended."""
        self._entries = self._look(self.started)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Drawn again only where it is another one: it is shown several times a second, and by a thread of rich's, which
        # must not take what it draws for what has been looked at meanwhile.
        entries, size, drawn = self._entries, (options.max_width, options.size.height), self._drawn
        if drawn is None or drawn[0] is not entries or drawn[1] != size:
            drawn = self._drawn = entries, size, board(self._title, entries, self._jobs, *size)
        yield drawn[2]


def runs_of(entries: Sequence[Entry]) -> list[tuple[Recipe, Standing]]:
    """Those that can be read."""
    return [(one.recipe, one.standing) for one in entries if one.recipe and one.standing]


def board(title: str, entries: Sequence[Entry], jobs: int, width: int, height: int | None = None) -> Group:
    """For a terminal of `width` columns and `height` lines, of which it takes AROUND less than there are: what does not
    fit is counted. `jobs` of them run at a time."""
    room = len(entries) if height is None else max(1, height - AROUND)
    shown = _most_telling(entries, room)
    known = [one for one in entries if one.standing]
    left = dict(zip((one.directory for one in known), etas(runs_of(known)), strict=True))
    rows = {one.directory: _cells(one, left.get(one.directory)) for one in shown}
    columns = ["row", "seed", "", "eta", "loss", "valid", "PGD"]
    if any(cells["measured"] for cells in rows.values()):
        columns.append("measured")
    widths = {name: max(len(name), *(cell_len(cells[name]) for cells in rows.values())) for name in columns}

    def needed() -> int:
        """Columns of a terminal, with a row's name that is cut: nothing else ever is."""
        return sum(widths[name] for name in columns[1:]) + GAP * (len(columns) - 1) + min(widths["row"], SHORTEST)

    captions = [summary(entries, jobs)] if len(entries) > 1 else []
    if "measured" in columns and (wanted := needed()) > width:
        columns.remove("measured")
        if height is None:
            captions.append(f"not shown: measured (needs {wanted} columns, or --json)")
    if needed() > width:
        columns = list(LEAST)
    widths["row"] = max(
        1, min(widths["row"], width - GAP * (len(columns) - 1) - sum(widths[name] for name in columns[1:]))
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in columns:
        side = "left" if name in ("row", "", "measured") else "right"
        table.add_column(name, justify=side, no_wrap=True, overflow="ellipsis", width=widths[name])
    for one in shown:
        style = _STYLES.get(one.state, "")
        table.add_row(*(Text(rows[one.directory][name], style) for name in columns))
    hidden = Counter(one.state for one in entries if one.directory not in rows)
    if hidden:
        captions.append("not shown: " + ", ".join(f"{count} {state}" for state, count in hidden.items()))
    return Group(
        Text(printable(title), "bold", no_wrap=True, overflow="ellipsis"), Text(""), table,
        *(Text(line, "dim", no_wrap=True, overflow="ellipsis") for line in captions),
    )  # fmt: skip


GAP = 3
"""Columns of a terminal between two columns of the board."""
NEXT = 3
"""Runs that wait and are shown before those that are done."""
_STYLES = {"running": "bold", "waiting": "dim", "failed": "red", "diverged": "red", "damaged": "red"}


def summary(entries: Sequence[Entry], jobs: int) -> str:
    """How many are done, and when all will be."""
    counted = Counter(one.state for one in entries)
    parts = [f"{counted['done']} of {len(entries)} runs done"]
    eta = total(runs_of(entries), jobs)
    if eta and eta.seconds:
        parts.append(f"eta {eta}")
    return " · ".join([*parts, *(f"{counted[state]} {state}" for state in counted if state != "done")])


def problems(entries: Sequence[Entry]) -> list[str]:
    """A line for each run that needs a person."""
    return [f"{one.title}: {why}" for one in entries for why in _problems(one)]


def _problems(one: Entry) -> Iterator[str]:
    if one.problem:
        yield one.problem
    if one.standing and one.state in ("failed", "diverged"):
        yield f"{one.state}: {one.standing.error}"
    if one.standing and one.recipe and (warning := one.standing.warning(one.recipe)):
        yield warning


def _most_telling(entries: Sequence[Entry], room: int) -> list[Entry]:
    """As many as there is room for, in their order: first what runs, what has failed, what comes next, and then what is
    done, the last ones first."""
    of = {state: [one for one in entries if one.state == state] for state in {one.state for one in entries}}
    waiting = of.pop("waiting", [])
    first = [*of.pop("running", []), *of.pop("failed", []), *of.pop("damaged", []), *of.pop("diverged", [])]
    by_worth = [*first, *waiting[:NEXT], *of.pop("stopped", []), *reversed(of.pop("done", [])), *waiting[NEXT:]]
    chosen = {one.directory for one in by_worth[:room]}
    return [one for one in entries if one.directory in chosen]


def _cells(one: Entry, left: Eta | None) -> dict[str, str]:
    """By the names of the columns."""
    found = one.standing
    line = found.line if found else {}
    loss = line.get("loss")
    return {
        "row": printable(one.name or one.directory.name),
        "seed": _seed(one),
        "": _now(found) if found else "damaged",
        "eta": str(left) if found and left and found.state == "running" else "",
        "loss": f"{loss:.4f}" if isinstance(loss, float) else "",
        "valid": _percent(line.get("validation_accuracy")),
        "PGD": _percent(line.get("validation_pgd_accuracy")),
        "measured": _measured(found.found) if found else "",
    }


def _measured(found: Sequence[Found]) -> str:
    """By the evaluators, of each set of weights."""
    by_weights: dict[str, list[str]] = {}
    for one in found:
        by_weights.setdefault(one.selection, []).append(f"{one.evaluator} {100 * one.accuracy:.1f}")
    alone = list(by_weights) == ["last"]
    return "; ".join(("" if alone else f"{name}: ") + ", ".join(parts) for name, parts in by_weights.items())


def _seed(one: Entry) -> str:
    return str(one.recipe.seed) if one.recipe else ""


def _now(found: Standing) -> str:
    where = f"{len(found.found)}/{found.wanted}" if found.trained else f"{found.epoch}/{found.epochs}"
    match found.state:
        case "running":
            return f"{'measuring' if found.trained else 'epoch'} {where}"
        case "stopped":
            return f"stopped {where}"
        case other:
            return other


def _percent(fraction: Any) -> str:
    return f"{100 * fraction:.1f}" if isinstance(fraction, float) else ""


def record(one: Entry, left: Eta | None) -> dict[str, Any]:
    """The same for a program; `left` is None where nothing is known."""
    found = one.standing
    same = {
        "row": one.name,
        "seed": one.recipe and one.recipe.seed,
        "directory": str(one.directory),
        "state": one.state,
    }
    if found is None:
        return {**same, "error": one.problem}
    return {
        **same,
        "error": found.error,
        "epoch": found.epoch,
        "epochs": found.epochs,
        "trained": found.trained,
        "collapsed": list(found.collapsed),
        "eta_seconds": left and left.seconds,
        "eta_at_least": left and left.at_least,
        "seconds_per_epoch": found.pace,
        "seconds_since_last_line": found.since,
        "last": found.line,
        "measured": [{"selection": f.selection, "evaluator": f.evaluator, "accuracy": f.accuracy} for f in found.found],
        "to_measure": found.wanted,
    }
