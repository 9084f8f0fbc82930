"""Results -> grids and records. Accuracies are shown in percent, intervals are Wilson's at 95%."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from advmix_cli.evaluation.outcome import Outcome
from advmix_cli.report.grid import Cell, Grid
from advmix_cli.report.results import Measured, Results


def percent(fraction: float) -> str:
    """With the decimals of the paper's tables."""
    return f"{100 * fraction:.1f}"


def interval(outcome: Outcome) -> str:
    """Low and high, in percent."""
    return f"{percent(outcome.interval[0])}–{percent(outcome.interval[1])}"


def seconds(count: float) -> str:
    """A duration for a person."""
    if count < 100:
        return f"{count:.1f} s"
    minutes, rest = divmod(round(count), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def outcome_grid(title: str, measured: Measured, machines: Sequence[dict[str, Any]] = ()) -> Grid:
    """What was found of one set of weights, an evaluator a line, with what each number depends on; `machines` are those
    that trained them."""
    warning = [TEST_SELECTED] if measured.selection == "best on test" else []
    if len(machines) > 1:
        warning.append(f"trained on {len(machines)} machines: {'; '.join(_moves(machines))}")
    return outcomes_grid(f"{title} · {measured.selection} epoch ({measured.epoch})", measured.outcomes, warning)


def outcomes_grid(title: str, outcomes: Sequence[Outcome], captions: Sequence[str]) -> Grid:
    """An evaluator a line; under `captions` what each number depends on."""
    rows = [
        (
            Cell(outcome.name),
            Cell(percent(outcome.accuracy)),
            Cell(interval(outcome)),
            Cell(f"{outcome.correct:,}"),
            Cell(f"{outcome.n:,}"),
            Cell(seconds(outcome.seconds)),
        )
        for outcome in outcomes
    ]
    stamps = [f"{outcome.name}: {stamp(outcome)}" for outcome in outcomes]
    return Grid(
        title, ("evaluator", "accuracy %", "95% interval", "correct", "n", "time"), tuple(rows), (*captions, *stamps)
    )


TEST_SELECTED = "TEST-SELECTED: this epoch was chosen on the test images, so its accuracy on them is too high."


def stamp(outcome: Outcome) -> str:
    """All the settings of an outcome, on one line: "split test, norm linf, epsilon 8/255, ..."."""
    return ", ".join(f"{key} {_setting(key, value)}" for key, value in outcome.settings.items())


def _setting(key: str, value: object) -> str:
    if isinstance(value, list):
        return "+".join(str(item) for item in value)
    if (
        key in ("epsilon", "step_size")
        and isinstance(value, float)
        and 0 <= value <= 1
        and round(value * 255) / 255 == value
    ):
        return f"{round(value * 255)}/255"
    return str(value)


@dataclass(frozen=True)
class Line:
    """A row of an ablation: what was found with each seed, and the published accuracy in percent by evaluator."""

    name: str
    runs: tuple[Results | None, ...]
    paper: dict[str, float]


def ablation_grid(title: str, columns: Sequence[str], lines: Sequence[Line], settings: Sequence[str] = ()) -> Grid:
    """A row a method, an evaluator a column: the accuracy in percent, its interval (one seed) or standard deviation
    (several), the paper's number and the difference. A row's best epoch, where it was measured, has a line of its own.
    `settings`: the edits that the table was run with.
    """
    rows: list[tuple[Cell, ...]] = []
    chosen_on_test = False
    for line in lines:
        rows.append((Cell(line.name), *(_ablation_cell(line, "last", column, line.paper) for column in columns)))
        bests = [entry for run in line.runs if run and (entry := run.of("best"))]
        if bests:
            chosen_on_test |= any(entry.selection == "best on test" for entry in bests)
            epochs = ", ".join(str(entry.epoch) for entry in bests)
            name = f"└ {bests[0].selection} ({epochs})"
            rows.append((Cell(name), *(_ablation_cell(line, "best", column, {}) for column in columns)))
    captions = [TEST_SELECTED] if chosen_on_test else []
    sizes = [(column, size) for column in columns if (size := _sizes(column, lines))]
    if sizes:
        captions.append(f"images: {', '.join(f'{column} {size}' for column, size in sizes)}")
    runs = [run for line in lines for run in line.runs if run]
    made = {_machine(machine) for run in runs for machine in run.machines}
    if len(made) > 1:
        captions.append(f"Not all was trained with the same device and versions: {'; '.join(sorted(made))}")
    if settings:
        captions.append(f"Edited with --set {' --set '.join(settings)}")
        if any(line.paper for line in lines):
            captions.append("The paper's numbers are those of the table as it is shipped, not of this edit.")
    return Grid(title, ("", *columns), tuple(rows), tuple(captions))


def _moves(machines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What each machine has that another one has not, and since when."""
    names = [name for name in machines[0] if not name.startswith("from_")]
    differ = [name for name in names if len({machine.get(name) for machine in machines}) > 1]
    for machine in machines:
        what = ", ".join(f"{name} {machine.get(name)}" for name in differ)
        yield f"{what} from epoch {machine['from_epoch']}"


def _machine(machine: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in machine.items() if not name.startswith("from_"))


def _sizes(column: str, lines: Sequence[Line]) -> str:
    """How many images the column was measured on."""
    runs = [run for line in lines for run in line.runs if run]
    found = {outcome.n for run in runs for entry in run.measured if (outcome := entry.outcome(column))}
    return " or ".join(f"{size:,}" for size in sorted(found))


def _ablation_cell(line: Line, selection: str, column: str, paper: dict[str, float]) -> Cell:
    diverged = sum(bool(run and run.diverged) for run in line.runs)
    entries = [run.of(selection) for run in line.runs if run]
    found = [outcome for entry in entries if entry and (outcome := entry.outcome(column))]
    published = (f"paper {paper[column]:.1f}",) if column in paper else ()
    if not found:
        return Cell("diverged" if diverged else "·", published)
    mean = statistics.fmean(outcome.accuracy for outcome in found)
    spread = f"{len(found)} seeds ± {percent(statistics.stdev(o.accuracy for o in found))}" if len(found) > 1 else ""
    difference = (f"paper {paper[column]:.1f}, {100 * mean - paper[column]:+.1f}",) if column in paper else ()
    lost = (f"{diverged} diverged",) if diverged else ()
    return Cell(percent(mean), (spread or interval(found[0]), *lost, *difference))


def ablation_records(columns: Sequence[str], lines: Sequence[Line]) -> list[dict[str, Any]]:
    """One record for each number of the table and seed, unrounded; one that says so for a run that diverged."""
    records: list[dict[str, Any]] = []
    for line in lines:
        for run in filter(None, line.runs):
            same = {"row": line.name, "seed": run.seed, "digest": run.digest}
            if run.diverged:
                records.append({**same, "diverged": run.diverged})
            for entry in run.measured:
                found = [outcome for column in columns if (outcome := entry.outcome(column))]
                records += [{**same, **_record(entry, outcome, line.paper)} for outcome in found]
    return records


def _record(entry: Measured, outcome: Outcome, paper: dict[str, float]) -> dict[str, Any]:
    published = paper.get(outcome.name) if entry.selection == "last" else None
    return {
        "selection": entry.selection,
        "epoch": entry.epoch,
        "evaluator": outcome.name,
        "n": outcome.n,
        "correct": outcome.correct,
        "accuracy": outcome.accuracy,
        "low": outcome.interval[0],
        "high": outcome.interval[1],
        "paper": None if published is None else published / 100,
        "seconds": outcome.seconds,
    }
