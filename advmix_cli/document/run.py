"""A run directory -> its document."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from advmix_cli.diagnosis.diagnose import diagnosis_grids
from advmix_cli.diagnosis.figure import draw as draw_diagnosis
from advmix_cli.diagnosis.kept import Kept
from advmix_cli.document.parts import Document, Drawing, Listing, Part, Photograph, Section, Text
from advmix_cli.errors import RecipeError, RunDirectoryError
from advmix_cli.failures import Failure, failure
from advmix_cli.files import read_bytes, read_text
from advmix_cli.recipe import load
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report import metrics
from advmix_cli.report.curves import training_curves
from advmix_cli.report.differences import damaged, gaps
from advmix_cli.report.figures import written
from advmix_cli.report.grid import Cell, Grid
from advmix_cli.report.metrics import Epochs, collapsed_in
from advmix_cli.report.results import Results
from advmix_cli.report.tables import TEST_SELECTED, gap_line, outcome_grid, seconds
from advmix_cli.rundir import METRICS, RECIPE

_FROM_PROBE = {
    "pairs": "Images x_i and x_j, their perturbations, and what is trained on, with λ before and after the ascent "
    "(advmix probe)",
    "mixing-ratio": "λ of each pair of the batch after the ascent, over λ before it (advmix probe)",
    "loss-path": "The adversary's objective step by step, for every algorithm (advmix probe)",
}
"""Figures that another command draws, and what they show."""
LARGEST_PICTURE = 8 * 2**20
"""Bytes."""


class Found(NamedTuple):
    """What of a run directory can be read; `damage` has a message for each file that cannot."""

    directory: Path
    recipe: Recipe | None
    text: str
    """Of recipe.toml."""
    results: Results | None
    epochs: Epochs
    diagnosis: Kept | None
    failure: Failure | None
    damage: tuple[str, ...]


def look(directory: Path) -> Found:
    """Read all of it that is there."""
    damage: list[str] = []
    recipe, text, results, kept, given_up = None, "", None, None, None
    try:
        recipe = load.read(directory / RECIPE).recipe()
        text = read_text(directory / RECIPE, load.LARGEST)
    except (RecipeError, OSError, ValueError) as error:
        damage.append(str(error).partition("\n")[0])
    try:
        results = Results.load(directory)
    except RunDirectoryError as error:
        damage.append(str(error))
    if recipe and results and results.digest != recipe.digest():
        damage.append(f"{directory / RECIPE} is not the recipe that results.json is of")
        results = None
    damage += damaged(results, directory) if results else []
    epochs, torn = metrics.read(directory / METRICS)
    if torn:
        damage.append(torn)
    try:
        kept = Kept.load(directory)
    except RunDirectoryError as error:
        damage.append(str(error))
    try:
        given_up = failure(directory)
    except RunDirectoryError as error:
        damage.append(str(error))
    return Found(directory, recipe, text, results, epochs, kept, given_up, tuple(damage))


def document(found: Found, figures: Path | None) -> Document:
    """Draw its figures into the directory `figures`, and put all together; without a directory there are none but those
    that another command has drawn."""
    results, name = found.results, found.directory.name or str(found.directory)
    title = (results and results.title) or (found.recipe and found.recipe.title) or name
    sections = [
        Section("Results", tuple(_results(found, title))),
        Section("Training", tuple(_training(found, title, figures))),
        Section("Diagnosis", tuple(_diagnosis(found, title, figures))),
        Section("One batch", tuple(_probed(found.directory / "figures"))),
        Section("Recipe", (Listing(found.text, "toml"),) if found.text else ()),
        Section("Environment", tuple(environment([results] if results else []))),
        Section("Again", (Listing(again(found), "sh"),)),
    ]
    return Document(
        title=title,
        about=f"Run directory {found.directory}{_size(results)}",
        stamps=tuple(stamps(found)),
        damage=found.damage,
        sections=tuple(section for section in sections if section.parts),
    )


def _size(results: Results | None) -> str:
    return f", seed {results.seed}, {results.epochs:,} epochs of {results.train_images:,} images" if results else ""


def stamps(found: Found) -> list[str]:
    """What has to be known of its numbers."""
    results, said = found.results, list[str]()
    planned = found.recipe.schedule.epochs if found.recipe else results.epochs if results else None
    if found.failure:
        said.append(f"FAILED: {found.failure}")
    if results and results.diverged:
        said.append(f"DIVERGED: {results.diverged}; nothing was measured")
    elif not results or not results.finished:
        of = f" of {planned:,}" if planned else ""
        said.append(f"UNFINISHED: {len(found.epochs):,}{of} epochs are trained, and not all is measured")
    collapsed = results.collapsed if results and results.finished else metrics.collapsed(found.epochs)
    if collapsed:
        said.append(f"COLLAPSED: {collapsed_in(collapsed)}")
    if results and any(entry.test_selected for entry in results.measured):
        said.append(TEST_SELECTED)
    if results and len(results.machines) > 1:
        said.append(f"MACHINES: trained on {len(results.machines)} of them, so not bit for bit what one would give")
    if kept := found.diagnosis:
        failed = [check.name for check in kept.diagnosis.checks if check.passed is False]
        if failed:
            said.append(f"DIAGNOSIS: its accuracies under attack cannot be believed: {'; '.join(failed)}")
        if results and results.measured and kept.weights not in [entry.weights for entry in results.measured]:
            said.append("DIAGNOSIS: it is of other weights than those that were measured")
    return said


def _results(found: Found, title: str) -> list[Part]:
    known = found.results
    if not known:
        return [Text("There are no results yet.")]
    measured = [entry for entry in known.measured if entry.outcomes]
    parts: list[Part] = [outcome_grid(title, entry, known.machines, known.collapsed) for entry in measured]
    if gap := gaps(known, found.directory):
        parts.append(Text(gap_line(gap)))
    return parts or [Text("Nothing was measured yet.")]


def _training(found: Found, title: str, figures: Path | None) -> list[Part]:
    if not found.epochs:
        return [Text("No epoch has ended yet.")]
    if not figures:
        return []
    planned = found.recipe.schedule.epochs if found.recipe else None
    on = f"{found.recipe.validation.on} images" if found.recipe else "images that it was validated on"
    on = on.replace("held-out", "validation")
    drawn = written({"training-curves": lambda: training_curves(title, found.epochs, planned, on)}, figures)
    judged = f", accuracy on the {on}" if metrics.curve(found.epochs, metrics.ROBUST)[0] else ""
    says = f"Loss{judged} and learning rate by epoch"
    if metrics.drops(found.epochs):
        says += "; dotted: where the learning rate falls"
    gap = metrics.gap(found.epochs, metrics.ROBUST)
    if gap:
        says += (
            f". The ring is the best epoch by the accuracy under PGD, epoch {gap.best}; the bar at the right is the "
            f"gap, which is of the {_validated_on(found)}: some of it is chance, as the best of many epochs is"
        )
    return [Drawing(drawn[0], f"{says}.")]


def _validated_on(found: Found) -> str:
    on_test = found.recipe and found.recipe.validation.on == "test"
    return "test images, on which epochs were validated" if on_test else "validation images"


def _diagnosis(found: Found, title: str, figures: Path | None) -> list[Part]:
    if not found.diagnosis:
        return []
    kept = found.diagnosis.diagnosis
    says = "Accuracy under PGD20 against ε, with 95% intervals"
    drawn = draw_diagnosis(title, kept, figures) if figures else []
    return [*diagnosis_grids(title, kept), *(Drawing(path, says) for path in drawn if path.suffix == ".png")]


def _probed(figures: Path) -> list[Part]:
    """What is there, and a PNG of a size that a page can hold."""
    parts: list[Part] = []
    for name, says in _FROM_PROBE.items():
        path = figures / f"{name}.png"
        try:
            if read_bytes(path, LARGEST_PICTURE).startswith(b"\x89PNG\r\n\x1a\n"):
                parts.append(Photograph(path, says))
        except (OSError, ValueError):
            continue
    return parts


def environment(runs: Sequence[Results]) -> list[Part]:
    """Machines and images, as far as they differ."""
    trained: list[Mapping[str, str | int]] = [machine for run in runs for machine in run.machines]
    measured: list[Mapping[str, str | int]] = [
        one.machine for run in runs for entry in run.measured for one in entry.outcomes
    ]
    parts: list[Part] = [*_machines("What trained it", trained), *_machines("What measured it", measured)]
    images = list(dict.fromkeys((part, digest) for run in runs for part, digest in run.images.items()))
    if images:
        rows = tuple((Cell(part), Cell(digest)) for part, digest in images)
        parts.append(Grid("Images", ("part", "SHA-256"), rows, _time(runs), words=(1,)))
    return parts


def _machines(title: str, machines: Sequence[Mapping[str, str | int]]) -> list[Part]:
    """Each once."""
    different = list({_described(machine): machine for machine in machines}.values())
    names = list(dict.fromkeys(name for machine in different for name in machine if not name.startswith("from_")))
    if not names:
        return []
    count = len(different)
    heads = tuple(f"machine {number}" for number in range(1, count + 1)) if count > 1 else ("",)
    rows = tuple((Cell(name), *(Cell(str(machine.get(name, "·"))) for machine in different)) for name in names)
    return [Grid(title, ("", *heads), rows, words=tuple(range(1, count + 1)))]


def _described(machine: Mapping[str, str | int]) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in machine.items() if not name.startswith("from_"))


def _time(runs: Sequence[Results]) -> tuple[str, ...]:
    """Of those that have ended: of the others it is not known."""
    ended = [run.seconds for run in runs if run.seconds]
    count = "" if len(runs) == 1 else f" of {len(ended)} training{'s' if len(ended) > 1 else ''}"
    return (f"{seconds(sum(ended))}{count}, with their validation",) if ended else ()


def again(found: Found) -> str:
    """The commands that give it once more, for a shell."""
    directory = shlex.quote(str(found.directory))
    recipe = shlex.quote(str(found.directory / RECIPE))
    lines = [f"advmix train {recipe} --out NEW_DIRECTORY", f"advmix report {directory}"]
    if found.results and not found.results.ended:
        lines.insert(0, f"advmix train {recipe} --out {directory} --resume  # goes on with this one")
    if found.recipe:
        lines.insert(0, f"# digest of the recipe: {found.recipe.digest()}")
    return "\n".join(lines)
