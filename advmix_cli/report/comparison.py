"""Two measurements, image by image: what the second gained and lost."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from advmix_cli import checkpoint
from advmix_cli.errors import UsageError
from advmix_cli.evaluation import verdict_files
from advmix_cli.evaluation.significance import Paired, holm
from advmix_cli.evaluation.verdict_files import Record
from advmix_cli.recipe.schema import WORST
from advmix_cli.report.differences import SIGNIFICANT, p_value
from advmix_cli.report.grid import Cell, Grid
from advmix_cli.report.metrics import collapsed_in
from advmix_cli.report.results import Results
from advmix_cli.report.tables import TEST_SELECTED, percent, setting, spanned
from advmix_cli.rundir import RECIPE, RESULTS, VERDICTS


class Compared(NamedTuple):
    """An evaluator's verdicts on two networks: over all images, and over those of each class."""

    evaluator: str
    correct: tuple[int, int]
    whole: Paired
    classes: dict[str, Paired]
    differ: list[str]
    """The settings that are not the same, each with both of its values."""
    selections: tuple[str, str]
    """How the weights of each were chosen."""

    def to_json(self, p_holm: Mapping[tuple[str, str], float]) -> dict[str, Any]:
        """For programs; `p_holm` is what `corrected` gives."""
        first, second = (count / self.whole.n for count in self.correct)
        return {
            "evaluator": self.evaluator,
            "a": first,
            "b": second,
            **_numbers(self.whole),
            "settings_that_differ": self.differ,
            "selections": self.selections,
            "test_selected": [one.endswith("best on test") for one in self.selections],
            "classes": {
                name: {**_numbers(paired), "p_holm": p_holm.get((self.evaluator, name))}
                for name, paired in self.classes.items()
            },
        }


def _numbers(paired: Paired) -> dict[str, Any]:
    return {
        "n": paired.n, "difference": paired.difference, "low": paired.interval.low, "high": paired.interval.high,
        "gained": paired.gained, "lost": paired.lost, "p": paired.p,
    }  # fmt: skip


def records(place: Path, selection: str | None) -> dict[str, Record]:
    """The verdicts in a file, in a directory of such files, or of a run, by evaluator: of a directory those of the
    weights that were chosen by `selection` (without it, all that were kept, and a run's last), or those that `place` is
    the checkpoint of. UsageError if there are none."""
    if place.is_file() and place.name in checkpoint.NAMES and (known := Results.load(place.parent)):
        saved = checkpoint.load(place)
        if (entry := known.of(saved.selection)) and entry.weights != saved.weights:
            raise UsageError(f"{place} is not the network that {RESULTS} is of: `advmix eval --save DIR` measures it")
        return _of_run(place.parent, known, saved.selection)
    if place.is_file():
        record = verdict_files.load(place)
        return {record.found.outcome.name: record}
    if not place.is_dir():
        raise UsageError(f"{place}: no such file or directory")
    known = Results.load(place)
    if known is None:
        if (place / RECIPE).is_file():
            raise UsageError(f"{place}: a run without {RESULTS}: nothing of it has been measured")
        kept = [verdict_files.load(path) for path in sorted(place.glob("*.safetensors"))]
        if not kept:
            raise UsageError(f"{place} holds neither {RESULTS} nor files of verdicts")
        # A network of others has no epochs to choose from.
        found = [record for record in kept if not record.selection or record.selection.startswith(selection or "")]
        if not found:
            there = ", ".join(dict.fromkeys(record.selection for record in kept))
            raise UsageError(f"{place}: none of its verdicts are of the {selection} epoch (there is: {there})")
        networks = {record.network for record in found} - {""}  # older files do not say it
        if len({record.weights for record in found}) > 1 or len(networks) > 1:
            how = "" if selection or not all(one.selection for one in found) else "choose with --selection, or "
            raise UsageError(f"{place} holds verdicts of several networks: {how}name one file")
        names = [record.found.outcome.name for record in found]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"{place} holds several files of {', '.join(twice)}: name one of them")
        return dict(zip(names, found, strict=True))
    return _of_run(place, known, selection or "last")


def _of_run(place: Path, known: Results, selection: str) -> dict[str, Record]:
    entry = known.of(selection)
    if entry is None:
        chosen = ", ".join(_with_option(one.selection) for one in known.measured) or "nothing"
        file = place / checkpoint.name_of(selection)
        after = f"; `advmix eval {file} --save DIR` measures it" if file.is_file() else ""
        raise UsageError(f"{place}: its {selection} epoch was not measured (there is: {chosen}){after}")
    directory = place / VERDICTS
    found: dict[str, Record] = {}
    for outcome in entry.outcomes:
        record = verdict_files.load(verdict_files.place(directory, outcome.name, entry.epoch, entry.weights))
        if record.found.outcome != outcome:
            raise UsageError(f"{directory}: its verdicts of {outcome.name} are not those that {RESULTS} is of")
        found[outcome.name] = replace(record, selection=entry.selection)
    return found


def collapsed(place: Path) -> tuple[int, ...]:
    """The epochs in which the training of a run, or of a checkpoint in one, collapsed; of other verdicts none."""
    directory = place.parent if place.name in checkpoint.NAMES else place
    known = Results.load(directory) if directory.is_dir() else None
    return known.collapsed if known else ()


def _with_option(selection: str) -> str:
    """With what asks for it, where that has another name."""
    option = selection.removesuffix(" on validation").removesuffix(" on test")
    return selection if option == "last" else f"{selection}: --selection '{option}'"


def compared(first: Mapping[str, Record], second: Mapping[str, Record]) -> list[Compared]:
    """Evaluator by evaluator, those that both have; two single ones whatever their names. Where one looked at more
    images, on the images that both looked at. UsageError if none is left, or if they looked at different images."""
    if len(first) == len(second) == 1:
        second = dict(zip(first, second.values(), strict=True))
    pairs = [(name, first[name], second[name]) for name in first if name in second]
    if not pairs:
        sides = (", ".join(side) or "none" for side in (first, second))
        raise UsageError(f"no evaluator has measured both: {'; '.join(sides)}")
    for name, one, other in pairs:
        if one.images != other.images:
            raise UsageError(f"{name}: the two were measured on different images")
    return [_compared(*pair) for pair in pairs]


def _compared(name: str, one: Record, other: Record) -> Compared:
    n = min(one.found.outcome.n, other.found.outcome.n)
    first, second = (record.found.verdicts.robust[:n].numpy() for record in (one, other))
    labels = one.found.labels[:n].numpy()
    classes = {
        label: Paired.of(first[labels == number], second[labels == number])
        for number, label in enumerate(one.classes)
        if bool(np.any(labels == number))
    }
    ours, theirs = one.found.outcome.settings, other.found.outcome.settings
    differ = [
        f"{key}: A {setting(key, ours.get(key))}, B {setting(key, theirs.get(key))}"
        for key in ours | theirs
        if ours.get(key) != theirs.get(key)
    ]
    return Compared(
        name,
        (int(first.sum()), int(second.sum())),
        Paired.of(first, second),
        classes,
        differ,
        (one.selection, other.selection),
    )


def _by_class(found: Sequence[Compared]) -> Sequence[Compared]:
    """Whose classes are looked at one by one: those of the worst case are made of the others'."""
    return [one for one in found if one.evaluator != WORST] or found


def corrected(found: Sequence[Compared]) -> dict[tuple[str, str], float]:
    """The p of each evaluator and class, corrected for how many there are."""
    tests = {(one.evaluator, name): paired.p for one in _by_class(found) for name, paired in one.classes.items()}
    return dict(zip(tests, holm(list(tests.values())), strict=True))


def comparison_grids(
    found: list[Compared],
    names: tuple[str, str],
    alone: Sequence[str] = (),
    fallen: tuple[Sequence[int], Sequence[int]] = ((), ()),
) -> list[Grid]:
    """An evaluator a line; then a class a line, but for the worst case. `alone`: the evaluators that only one has;
    `fallen`: the epochs in which each one's training collapsed."""
    rows = [
        (
            Cell(one.evaluator),
            *(Cell(percent(count / one.whole.n)) for count in one.correct),
            Cell(f"{100 * one.whole.difference:+.1f}", (spanned(one.whole.interval),)),
            Cell(f"{one.whole.gained:,}"),
            Cell(f"{one.whole.lost:,}"),
            Cell(p_value(one.whole.p), ("noise",) if one.whole.p >= SIGNIFICANT else ()),
            Cell(f"{one.whole.n:,}"),
        )
        for one in found
    ]
    captions: list[str] = []
    for side, name, chosen, epochs in zip("AB", names, found[0].selections, fallen, strict=True):
        captions.append(f"{side}: {name}{f', {chosen} epoch' if chosen else ''}")
        captions += [f"{side} is {TEST_SELECTED}"] if chosen.endswith("best on test") else []
        captions += [f"{side} COLLAPSED: {collapsed_in(epochs)}"] if epochs else []
    captions += [f"measured of one alone: {', '.join(alone)}"] if alone else []
    captions += [f"{one.evaluator}: NOT the same settings: {'; '.join(one.differ)}" for one in found if one.differ]
    captions.append(
        "B - A with the bootstrap's 95% interval over images; p by McNemar's exact test, which decides what is noise, "
        "also where few images differ and the interval leaves 0 out: of these two networks, not of two methods"
    )
    whole = Grid(
        "B against A, on the same images",
        ("evaluator", "A %", "B %", "B - A", "gained", "lost", "p", "n"),
        tuple(rows),
        tuple(captions),
    )
    by_class, p = _by_class(found), corrected(found)
    names_of_classes = list(dict.fromkeys(name for one in by_class for name in one.classes))
    lines = tuple(
        (Cell(name), *(_class_cell(one.classes.get(name), p.get((one.evaluator, name), 1.0)) for one in by_class))
        for name in names_of_classes
    )
    chance = f"p by McNemar's exact test, corrected for the {len(p)} tests of this table by Holm's method"
    return [whole, Grid("B - A by class", ("class", *(one.evaluator for one in by_class)), lines, (chance,))]


def _class_cell(paired: Paired | None, p: float) -> Cell:
    if paired is None:
        return Cell("·")
    counts = f"+{paired.gained:,} -{paired.lost:,} of {paired.n:,}, p {p_value(p)}"
    return Cell(f"{100 * paired.difference:+.1f}", (counts,))
