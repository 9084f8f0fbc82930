"""The runs of a table -> its grid and its records. Every difference is one on the same images."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advmix_cli.evaluation.outcome import Outcome
from advmix_cli.report.differences import Difference, Right, difference, pooled_interval, right
from advmix_cli.report.grid import Cell, Grid
from advmix_cli.report.metrics import collapsed_in
from advmix_cli.report.results import Measured, Results
from advmix_cli.report.tables import (
    TEST_SELECTED,
    beside_published,
    chosen_on,
    interval,
    percent,
    short_steps,
    shown,
    spanned,
)

SELECTIONS = ("last", "best", "averaged last", "averaged best")
FEW = 5
"""Seeds, below which the variance between them is hardly known."""


@dataclass(frozen=True)
class Line:
    """A row of an ablation: what was found with each seed, in which run directory, the published accuracy in percent by
    evaluator, why seeds were given up ("seed 1: ..."), and the seed that it begins with: rows are paired from there."""

    name: str
    runs: tuple[Results | None, ...]
    directories: tuple[Path, ...]
    paper: dict[str, float]
    failed: tuple[str, ...] = ()
    first_seed: int = 0

    def outcomes(self, selection: str, column: str) -> list[Outcome]:
        """Those of an evaluator, of the seeds that have it."""
        entries = [run.of(selection) for run in self.runs if run]
        return [outcome for entry in entries if entry and (outcome := entry.outcome(column))]

    def right(self, selection: str, column: str) -> dict[int, Right]:
        """What an evaluator found on each image, by the seed's number."""
        pairs = [(run, directory) for run, directory in zip(self.runs, self.directories, strict=True) if run]
        found = {run.seed - self.first_seed: right(run, directory, selection, column) for run, directory in pairs}
        return {number: one for number, one in found.items() if one}


def ablation_grid(title: str, columns: Sequence[str], lines: Sequence[Line], settings: Sequence[str] = ()) -> Grid:
    """A row a method, an evaluator a column: the accuracy in percent, its interval and n, with several seeds the
    standard deviation and the pooled interval; the difference to the first row; the paper's number and the difference
    to that. A row's best epoch and its averaged weights, where they were measured, have a line of their own, with the
    difference to the last epoch.
    `settings`: the edits that the table was run with.
    """
    rows: list[tuple[Cell, ...]] = []
    chosen_on_test = False
    seeds = _seeds(lines)
    for line in lines:
        rows.append((Cell(line.name), *(_cell(line, "last", column, lines[0], seeds) for column in columns)))
        for selection in SELECTIONS[1:]:
            found = [entry for run in line.runs if run and (entry := run.of(selection))]
            if found:
                chosen_on_test |= any(entry.test_selected for entry in found)
                epochs = ", ".join(str(entry.epoch) for entry in found)
                name = f"└ {found[0].selection} (epoch {epochs})"
                rows.append((Cell(name), *(_cell(line, selection, column, line, seeds) for column in columns)))
    captions = [_units(columns, lines), *([TEST_SELECTED] if chosen_on_test else [])]
    captions += _biased(columns, lines)
    said = [note for row in rows for cell in row for note in cell.notes]
    notes = {note.split(" ")[0] for note in said}
    captions += _other_settings(columns, lines)
    meanings = {
        "Δ": f"Δ: against the row {lines[0].name}",
        "gap": "gap: to the row's own last epoch, as it was trained",
    }
    if compared := [meaning for name, meaning in meanings.items() if name in notes]:
        captions.append(f"{'; '.join(compared)}{', ' if len(compared) == 1 else '; both '}{_test(lines)}")
    if any(" with 1 seed" in note for note in said):
        captions.append("with 1 seed: p by McNemar's exact test, of two networks, and not of two methods")
    if "pooled" in notes:
        captions.append(
            "±: the standard deviation of the seeds; pooled: the 95% interval of the mean over other seeds and other "
            f"images.{_few(columns, lines)}"
        )
    captions += _without_verdicts(columns, lines)
    captions += [f"FAILED: {line.name}, {why}" for line in lines for why in line.failed]
    captions += [_collapsed(line.name, run) for line in lines for run in line.runs if run and run.collapsed]
    runs = [run for line in lines for run in line.runs if run]
    made = {_machine(machine) for run in runs for machine in run.machines}
    if len(made) > 1:
        captions.append(f"Not all was trained with the same device and versions: {'; '.join(sorted(made))}")
    planned, ended = sum(len(line.runs) for line in lines), sum(run.ended for run in runs)
    if ended < planned:
        captions.append(f"UNFINISHED: {ended:,} of {planned:,} cells have ended")
    if settings:
        captions.append(f"Edited with --set {' --set '.join(settings)}")
        if any(column in line.paper for line in lines for column in columns):
            captions.append("The paper's numbers are those of the table as it is shipped, not of this edit.")
    return Grid(title, ("", *columns), tuple(rows), tuple(captions))


def _other_settings(columns: Sequence[str], lines: Sequence[Line]) -> list[str]:
    """Columns whose rows were not measured alike, so that they cannot be compared."""
    found: list[str] = []
    for column in columns:
        settings = [outcome.settings for line in lines for outcome in line.outcomes("last", column)]
        keys = dict.fromkeys(key for one in settings for key in one)
        differ = [key for key in keys if any(one.get(key) != settings[0].get(key) for one in settings)]
        if differ:
            found.append(f"{column}: not measured with the same {', '.join(differ)} in all rows, so some have no Δ")
        known = [one for line in lines for one in line.right("last", column).values()]
        if len({(one.images, len(one.verdicts)) for one in known}) > 1:
            found.append(f"{column}: not measured on the same images in all rows, so some have no Δ")
    return found


def _units(columns: Sequence[str], lines: Sequence[Line]) -> str:
    has_paper = any(column in line.paper for line in lines for column in columns)
    paper = "; paper: the published number, and ours minus it, untested" if has_paper else ""
    return f"Accuracy in %, differences in points{paper}."


def _biased(columns: Sequence[str], lines: Sequence[Line]) -> list[str]:
    """What of each column makes its accuracies too high."""
    entries = [entry for line in lines for run in line.runs if run for entry in run.measured]
    pairs = [(entry, outcome) for entry in entries for column in columns if (outcome := entry.outcome(column))]
    said = [one for entry, outcome in pairs for one in (*chosen_on(entry, outcome), *short_steps(outcome))]
    return list(dict.fromkeys(said))


def _without_verdicts(columns: Sequence[str], lines: Sequence[Line]) -> list[str]:
    """Rows that were measured, but whose files of verdicts are not there any more, or are those of something else."""
    found: list[str] = []
    for line in lines:
        measured = sum(len(line.outcomes("last", column)) for column in columns)
        there = sum(len(line.right("last", column)) for column in columns)
        if there < measured:
            found.append(f"{line.name}: without its verdicts on each image some Δ and pooled intervals cannot be given")
    return found


def _collapsed(name: str, run: Results) -> str:
    return f"COLLAPSED: {name}, seed {run.seed}: {collapsed_in(run.collapsed)}"


def _seeds(lines: Sequence[Line]) -> int:
    """That each row is to have."""
    return max(len(line.runs) for line in lines)


def _test(lines: Sequence[Line]) -> str:
    if _seeds(lines) > 1:
        return (
            "seed by seed on the same images, not corrected for how many there are; in brackets its pooled 95% "
            "interval; noise: that holds 0."
        )
    return (
        "on the same images, p by McNemar's exact test, not corrected for how many there are; noise: p is 0.05 or "
        "more, which does not say that there is no difference (CSV and JSON have its interval). With one seed each it "
        "is of two networks, and not of two methods."
    )


def _few(columns: Sequence[str], lines: Sequence[Line]) -> str:
    """Of how many seeds the pooled intervals are that are of few, those of differences among them."""
    counts: set[int] = set()
    for line in lines:
        for selection in SELECTIONS:
            for column in columns:
                own = line.right(selection, column)
                against = (lines[0] if selection == "last" else line).right("last", column)
                counts |= {len(own), len(own.keys() & against.keys())}
    few = sorted(count for count in counts if 1 < count < FEW)
    return f" Of {' or '.join(map(str, few))} seeds such an interval is too short where these lie apart." if few else ""


def _machine(machine: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in machine.items() if not name.startswith("from_"))


def _cell(line: Line, selection: str, column: str, against: Line, seeds: int) -> Cell:
    """`against`: the row that this one's last epoch is compared with; its own last epoch is for its best one. A
    difference is of the seeds that both have: where they are not all the `seeds`, it need not be that of the means."""
    is_last = selection == "last"
    diverged = sum(bool(run and run.diverged) for run in line.runs)
    found = line.outcomes(selection, column)
    paper = line.paper if is_last else {}
    if not found:
        return Cell(
            "diverged" if diverged else "failed" if line.failed else "·",
            (f"paper {float(paper[column])}",) if column in paper else (),
        )
    mean = statistics.fmean(outcome.accuracy for outcome in found)
    notes = _spread(found, list(line.right(selection, column).values()))
    if diverged:
        notes.append(f"{diverged} diverged")
    if line.failed and is_last:
        notes.append(f"{len(line.failed)} failed")
    if not is_last or against is not line:
        known = _by_seed(against.right("last", column), line.right(selection, column))
        notes += [shown("Δ" if is_last else "gap", known, partial=known.seeds < seeds)] if known else []
    if column in paper:
        notes.append(beside_published(mean, paper[column]))
    return Cell(percent(mean), tuple(notes))


def _by_seed(first: Mapping[int, Right], second: Mapping[int, Right]) -> Difference | None:
    """Of the seeds that both have."""
    both = [number for number in first if number in second]
    return difference([first[number] for number in both], [second[number] for number in both])


def _spread(found: Sequence[Outcome], verdicts: Sequence[Right]) -> list[str]:
    sizes = " or ".join(f"{size:,}" for size in sorted({outcome.n for outcome in found}))
    if len(found) == 1:
        return [f"{interval(found[0])}, n {sizes}"]
    deviation = percent(statistics.stdev(outcome.accuracy for outcome in found))
    seeds = f"{len(found)} seeds ± {deviation}, n {sizes}"
    together = pooled_interval(verdicts)
    of = "" if len(verdicts) == len(found) else f" of {len(verdicts)} seeds"
    return [seeds, f"pooled {spanned(together)}{of}"] if together else [seeds]


def ablation_records(columns: Sequence[str], lines: Sequence[Line]) -> list[dict[str, Any]]:
    """One record for each number of the table and seed, unrounded, with that seed's difference to the first row, the
    pooled interval of all seeds, and the pooled difference of those that both rows have; one that says so for a run
    that diverged."""
    records: list[dict[str, Any]] = []
    for line in lines:
        for run in line.runs:
            if not run:
                continue
            same = {"row": line.name, "seed": run.seed, "digest": run.digest, "collapsed": list(run.collapsed)}
            if run.diverged:
                records.append({**same, "diverged": run.diverged})
            for entry in run.measured:
                for column in columns:
                    if outcome := entry.outcome(column):
                        more = _compared(line, run.seed - line.first_seed, entry, column, lines[0])
                        records.append({**same, **_record(entry, outcome, line.paper), **more})
    return records


def _record(entry: Measured, outcome: Outcome, paper: dict[str, float]) -> dict[str, Any]:
    theirs = paper.get(outcome.name) if entry.selection == "last" else None
    return {
        "selection": entry.selection,
        "test_selected": entry.test_selected,
        "epoch": entry.epoch,
        "evaluator": outcome.name,
        "n": outcome.n,
        "correct": outcome.correct,
        "accuracy": outcome.accuracy,
        "low": outcome.interval.low,
        "high": outcome.interval.high,
        "paper": None if theirs is None else theirs / 100,
        "seconds": outcome.seconds,
    }


def _compared(line: Line, number: int, entry: Measured, column: str, first: Line) -> dict[str, Any]:
    """What of a record is of other runs, too: a last epoch against the first row's, a best one against its own last."""
    own = line.right(entry.selection, column)
    against = (first if entry.selection == "last" else line).right("last", column)
    is_first = entry.selection == "last" and line is first
    known = None if is_first else difference([against.get(number)], [own.get(number)])
    together = pooled_interval(list(own.values()))
    pooled = None if is_first or len(line.runs) == 1 else _by_seed(against, own)
    return {
        "pooled_low": together and together.low,
        "pooled_high": together and together.high,
        "pooled_interval_seeds": together and len(own),
        "against": None if is_first else f"{first.name if entry.selection == 'last' else line.name}, last",
        "gained": known and known.paired and known.paired.gained,
        "lost": known and known.paired and known.paired.lost,
        "p": known and known.paired and known.paired.p,
        "difference": known and known.value,
        "difference_low": known and known.interval.low,
        "difference_high": known and known.interval.high,
        "pooled_difference": pooled and pooled.value,
        "pooled_difference_low": pooled and pooled.interval.low,
        "pooled_difference_high": pooled and pooled.interval.high,
        "pooled_seeds": pooled and pooled.seeds,
    }
