"""Differences between measurements of the same images: only these say more than two intervals that overlap."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from advmix_cli.errors import RunDirectoryError
from advmix_cli.evaluation import verdict_files
from advmix_cli.evaluation.significance import Interval, Paired, pooled, pooled_accuracy
from advmix_cli.evaluation.verdict_files import Record
from advmix_cli.report.results import Results
from advmix_cli.rundir import VERDICTS

SIGNIFICANT = 0.05


def p_value(p: float) -> str:
    """In two digits, on the side of SIGNIFICANT where it is."""
    text = f"{p:.2g}"
    return f"<{SIGNIFICANT}" if p < SIGNIFICANT <= float(text) else text


class Right(NamedTuple):
    """`verdicts` (n,) bool, on the first images of the split whose fingerprint is `images`, by an evaluator of these
    `settings`."""

    verdicts: NDArray[np.bool_]
    images: str
    settings: Mapping[str, Any]


class Difference(NamedTuple):
    """The second's accuracy minus the first's, over `seeds` pairs of runs; `paired`: the counts of a single pair."""

    value: float
    interval: Interval
    seeds: int
    paired: Paired | None

    @property
    def is_noise(self) -> bool:
        """A single pair's by McNemar's test, several pairs' by the pooled interval. Where nothing varies there is no
        interval: that is no certainty."""
        if self.paired:
            return self.paired.p >= SIGNIFICANT
        low, high = self.interval
        return low <= 0 <= high or low == high

    def to_json(self) -> dict[str, Any]:
        """For programs: fractions, and the counts of a single pair."""
        counts = {"gained": self.paired and self.paired.gained, "lost": self.paired and self.paired.lost}
        interval = {"low": self.interval.low, "high": self.interval.high}
        return {"difference": self.value, **interval, **counts, "p": self.paired and self.paired.p}


def right(known: Results, directory: Path, selection: str, evaluator: str) -> Right | None:
    """What an evaluator found on each image in a run, if it has been measured and the verdicts are there."""
    entry = known.of(selection)
    outcome = entry and entry.outcome(evaluator)
    if not entry or not outcome:
        return None
    path = verdict_files.place(directory / VERDICTS, evaluator, entry.epoch, entry.weights)
    try:
        record = _load(path, outcome.verdicts)
    except RunDirectoryError:
        return None
    return Right(record.found.verdicts.robust.numpy(), record.images, outcome.settings)


def damaged(known: Results, directory: Path) -> list[str]:
    """A message for each file of verdicts of a run that is there, and not what it must be."""
    found: list[str] = []
    for entry in known.measured:
        for outcome in entry.outcomes:
            path = verdict_files.place(directory / VERDICTS, outcome.name, entry.epoch, entry.weights)
            try:
                if path.exists():
                    _load(path, outcome.verdicts)
            except RunDirectoryError as error:
                found.append(str(error))
            except OSError as error:
                found.append(f"{directory / VERDICTS} cannot be read: {error.strerror}")
    return list(dict.fromkeys(found))  # the best epoch may be the last one


@lru_cache(maxsize=1000)
def _load(path: Path, verdicts: str) -> Record:
    """A table is drawn again and again; its files are known by what they must hold."""
    record = verdict_files.load(path)
    if record.found.outcome.verdicts != verdicts:
        raise RunDirectoryError(f"{path} holds the verdicts of another measurement")
    return record


def difference(first: Sequence[Right | None], second: Sequence[Right | None]) -> Difference | None:
    """Of the pairs in which both have been found, on the same images with the same settings; None if there is none."""
    found = [
        (one, other)
        for one, other in zip(first, second, strict=False)
        if one
        and other
        and (one.images, len(one.verdicts), one.settings) == (other.images, len(other.verdicts), other.settings)
    ]
    if not found or len({(one.images, len(one.verdicts)) for one, _ in found}) > 1:
        return None
    pairs = [(one.verdicts, other.verdicts) for one, other in found]
    if len(pairs) == 1:
        paired = Paired.of(*pairs[0])
        return Difference(paired.difference, paired.interval, 1, paired)
    values = np.array([other.astype(float) - one for one, other in pairs])
    return Difference(float(values.mean()), pooled(values), len(pairs), None)


def gaps(known: Results, directory: Path) -> dict[str, Difference]:
    """The robust-overfitting gap of a run, by evaluator: its best epoch minus its last one, on the same images; nothing
    where one of them was not measured."""
    last = known.of("last")
    found: dict[str, Difference] = {}
    for outcome in last.outcomes if last else ():
        one, other = (right(known, directory, selection, outcome.name) for selection in ("last", "best"))
        if gap := difference([one], [other]):
            found[outcome.name] = gap
    return found


def pooled_interval(found: Sequence[Right]) -> Interval | None:
    """Of the mean accuracy over seeds, if there are several on the same images."""
    if len(found) < 2 or len({(one.images, len(one.verdicts)) for one in found}) > 1:
        return None
    return pooled_accuracy(np.array([one.verdicts for one in found], dtype=float))
