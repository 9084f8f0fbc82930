"""One recipe -> one run directory: train, measure, write.

recipe.toml         the resolved recipe
results.json        what the evaluators found
verdicts/           those of each evaluator, image by image
findings/           what an unfinished evaluator has found so far
.lock               who works in it

and those of the training (`training_files`).
"""

import json
import shlex
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import tomli_w
import torch

from advmix_cli import build, checkpoint, engine
from advmix_cli.checkpoint import AVERAGE, AVERAGE_BEST, BEST, Checkpoint
from advmix_cli.data.images import Dataset
from advmix_cli.errors import DivergedError, RecipeError, RunDirectoryError
from advmix_cli.evaluation import verdict_files
from advmix_cli.evaluation.outcome import Evaluated, Outcome
from advmix_cli.evaluation.verdict_files import Record
from advmix_cli.evaluation.worst import worst_case
from advmix_cli.files import is_utf8, write_atomically
from advmix_cli.fit import Keeping, fit
from advmix_cli.locks import LOCK, held
from advmix_cli.measure.evaluate import evaluate
from advmix_cli.measure.findings import Findings
from advmix_cli.measure.same_images import check_images, others
from advmix_cli.ranks.team import ALONE, Team
from advmix_cli.recipe import load
from advmix_cli.recipe.changes import changes, shown
from advmix_cli.recipe.schema import WORST, FolderData, Recipe
from advmix_cli.report.progress import Watcher
from advmix_cli.report.results import Measured, Results
from advmix_cli.rundir import FAILURE, FINDINGS, LAST, METRICS, RECIPE, RESULTS, STATE, VERDICTS


def execute(
    recipe: Recipe,
    directory: Path,
    place: torch.device,
    watch: Watcher,
    keeping: Keeping | None = None,
    team: Team = ALONE,
) -> Results:
    """Do what of `recipe` is not yet done in `directory`, and return all of its results. It is the first rank of `team`
    that does, while the others `assist`; what comes after the training it does alone.

    UsageErrors come before anything is written. DivergedError leaves results that say so, StoppedError all that was
    done: the next call goes on from there.
    """
    keeping = keeping or Keeping()
    with team.together():
        known = _known(recipe, directory, place, team)
    # A folder may have changed under the same path; what is downloaded has its checksums.
    done = known is not None and known.finished
    if team.from_first(done and not isinstance(recipe.data, FolderData)):
        watch.say(f"already done: {directory}")
        assert known
        return replace(known, title=recipe.title)
    images = _images(recipe, place, watch, team)
    with ExitStack() as stack:
        with team.together():
            if known and known.images != images.fingerprints():
                raise RunDirectoryError(
                    f"the {others(known.images, images)} have changed since {directory} was made; "
                    "train anew with another --out"
                )
            if not done:
                stack.enter_context(held(directory))
                known = _begun(recipe, images, directory)
        if team.from_first(done):
            watch.say(f"already done: {directory}")
            assert known
            return replace(known, title=recipe.title)
        assert known
        if team.from_first(not (directory / LAST).exists()):
            known.save(directory)
            try:
                fit(recipe, images, place, directory, watch, keeping, team)
            except DivergedError as error:
                replace(known, diverged=str(error)).save(directory)
                raise
        team.leave()  # a measurement may take longer than the others can wait
        return _measured(recipe, known, images, directory, place, watch, keeping)


def assist(recipe: Recipe, directory: Path, place: torch.device, watch: Watcher, keeping: Keeping, team: Team) -> None:
    """What every other rank does while the first one executes: train with it, if it trains, and leave. It comes to the
    same places, and has no directory."""
    with team.together():
        build.arithmetic(recipe)
    if team.from_first(False):
        return
    images = _images(recipe, place, watch, team)
    with team.together():
        pass  # the directory is the first rank's
    if not team.from_first(False) and team.from_first(False):
        fit(recipe, images, place, directory, watch, keeping, team)


def _known(recipe: Recipe, directory: Path, place: torch.device, team: Team) -> Results | None:
    """What is known, if nothing stands in the way of the rest."""
    check_directory(recipe, directory)
    known = _results(recipe, directory)
    if known and known.diverged:
        raise DivergedError(f"{known.diverged} (found earlier: {directory})")
    build.arithmetic(recipe)
    if known and known.finished:
        _check_weights(known, directory)
    elif not (directory / LAST).is_file():
        engine.check_place(recipe, place, team)
        build.share(recipe.schedule.batch_size, team.world)
    return known


def _images(recipe: Recipe, place: torch.device, watch: Watcher, team: Team) -> Dataset:
    """The images, on all ranks. What has to be downloaded is so by the first rank, then on each other machine, whose
    disk may be another, and then it is there."""
    images = None
    for turn in (team.first, team.local_rank == 0, True):
        with team.together():
            if images is None and turn:
                images = build.dataset(recipe, place, watch.say)
                build.share(recipe.schedule.batch_size, team.world, len(images.train))
    assert images
    team.raise_if_different(json.dumps(images.fingerprints()), "images: give all the same files")
    return images


def _begun(recipe: Recipe, images: Dataset, directory: Path) -> Results:
    """Within the lock: what was seen before it may have changed."""
    check_directory(recipe, directory)
    for name in (RECIPE, METRICS, BEST, LAST, AVERAGE, AVERAGE_BEST, RESULTS):
        for cut_off in directory.glob(f".{name}.*"):
            cut_off.unlink(missing_ok=True)
    for cut_off in (directory / VERDICTS).glob(".*.safetensors.*"):
        cut_off.unlink(missing_ok=True)
    (directory / FAILURE).unlink(missing_ok=True)  # it is being tried again
    write_atomically(directory / RECIPE, tomli_w.dumps(recipe.resolved()))
    last = _last(recipe, directory)
    known = _results(recipe, directory)
    if known is None or not last:
        known = Results(
            title=recipe.title,
            seed=recipe.seed,
            digest=recipe.digest(),
            epochs=recipe.schedule.epochs,
            train_images=len(images.train),
            images=images.fingerprints(),
        )
    return replace(known, title=recipe.title)


def _measured(
    recipe: Recipe, known: Results, images: Dataset, directory: Path, place: torch.device, watch: Watcher,
    keeping: Keeping,
) -> Results:  # fmt: skip
    """After the training."""
    last = _last(recipe, directory)
    assert last
    shutil.rmtree(directory / STATE, ignore_errors=True)
    keeping.stop.check()
    known = replace(known, machines=last.machines, seconds=last.seconds, collapsed=last.collapsed)
    for saved in reported(recipe, last, directory):
        known = _measure(saved, recipe, known, images, directory, place, watch)
    shutil.rmtree(directory / FINDINGS, ignore_errors=True)
    known = replace(known, finished=True)
    known.save(directory)
    return known


def _last(recipe: Recipe, directory: Path) -> Checkpoint | None:
    """The network that the training ended with, if it has ended; RunDirectoryError for any other in its place. Only
    after this may the state be removed."""
    path = directory / LAST
    if not path.exists():
        return None
    saved = checkpoint.load(path)
    if saved.recipe.digest() != recipe.digest():
        raise RunDirectoryError(f"{path} is the checkpoint of another recipe")
    if (saved.selection, saved.epoch) != ("last", recipe.schedule.epochs):
        raise RunDirectoryError(f"{path} is not the last epoch's network: it is that of epoch {saved.epoch}")
    return saved


def _results(recipe: Recipe, directory: Path) -> Results | None:
    """What is known; RunDirectoryError if it is of another recipe."""
    known = Results.load(directory)
    if known and known.digest != recipe.digest():
        raise RunDirectoryError(
            f"{directory} holds the results of another recipe; delete results.json to measure again"
        )
    return known


def _check_weights(known: Results, directory: Path) -> None:
    """RunDirectoryError if a network that is there is not the one that was measured."""
    for entry in known.measured:
        path = directory / checkpoint.name_of(entry.selection)
        if path.is_file() and checkpoint.load(path).weights != entry.weights:
            raise RunDirectoryError(f"{path} is not the network that results.json is of; delete that to measure again")


def check_directory(recipe: Recipe, directory: Path) -> None:
    """RunDirectoryError if `directory` holds something else than a run of this very recipe, or cannot hold one."""
    if not is_utf8(directory):
        raise RunDirectoryError(f"{directory}: its name is not UTF-8; choose another directory with --out")
    try:
        if not directory.exists():
            return
    except OSError as error:
        raise RunDirectoryError(f"{directory}: {error.strerror}; choose another directory with --out") from None
    if not directory.is_dir():
        raise RunDirectoryError(f"{directory} is not a directory")
    for name in (STATE, VERDICTS, FINDINGS):
        if (directory / name).is_symlink():
            raise RunDirectoryError(f"{directory / name} is a link, and what it points to would be written and removed")
    path = directory / RECIPE
    if not path.is_file():
        ours = (LOCK, f".{RECIPE}.")  # and what a first write that was cut off leaves
        if not all(path.name.startswith(ours) for path in directory.iterdir()):
            raise RunDirectoryError(f"{directory} is not empty and holds no run; choose another directory with --out")
        return
    try:
        other = load.read(path).recipe()
    except RecipeError:
        raise RunDirectoryError(
            f"{path} is not a recipe of this version; choose another directory with --out"
        ) from None
    if other.digest() != recipe.digest():
        differ = [
            f"{key} is {shown(theirs)} there, {shown(ours)} here"
            for key, (theirs, ours) in changes(other, recipe).items()
        ]
        more = f"; and {len(differ) - 3} more" if len(differ) > 3 else ""
        again = ["advmix", "train", str(path), "--out", str(directory), "--resume"]
        raise RunDirectoryError(
            f"{directory} holds another recipe: {'; '.join(differ[:3])}{more}; choose another directory with --out, or "
            f"go on with what is there: {shlex.join(again)}"
        )


def reported(recipe: Recipe, last: Checkpoint, directory: Path) -> list[Checkpoint]:
    """The checkpoints that the recipe wants measured, those of the average after the others; without validation images
    there is no best one."""
    report, averaged = recipe.validation.report, last.averaged
    lasts, bests = report != "best" or last.best is None, report != "last"
    found = [last] if lasts else []
    if bests and last.best:
        found.append(_beside(directory / BEST, last.best.digest, f"epoch {last.best.epoch}, the best one"))
    if lasts and averaged:
        found.append(_beside(directory / AVERAGE, averaged.last, f"epoch {last.epoch}, the last one"))
    if bests and averaged and averaged.best:
        best = averaged.best
        found.append(_beside(directory / AVERAGE_BEST, best.digest, f"epoch {best.epoch}, the best one"))
    return found


def _beside(path: Path, digest: str, what: str) -> Checkpoint:
    """A checkpoint of weights that the last one knows; RunDirectoryError if it is of others."""
    saved = checkpoint.load(path)
    if saved.weights != digest:
        raise RunDirectoryError(f"{path} is not the network of {what}")
    return saved


def _measure(
    saved: Checkpoint, recipe: Recipe, known: Results, images: Dataset, directory: Path, place: torch.device,
    watch: Watcher,
) -> Results:  # fmt: skip
    """Measure a checkpoint by what of the recipe's evaluators is not yet in `known`, saving after each."""
    check_images(saved, images)
    network = build.saved_network(saved, place)
    entry = known.of(saved.selection)
    if entry is None or (entry.epoch, entry.weights) != (saved.epoch, saved.weights):
        entry = Measured(saved.selection, saved.epoch, saved.weights)
    # The best epoch may be the last one: the same weights need not be measured twice.
    twin = next((other for other in known.measured if other.weights == saved.weights), entry)
    found: dict[str, Evaluated] = {}
    for chosen in recipe.evaluators:
        outcome = entry.outcome(chosen.name) or twin.outcome(chosen.name)
        if outcome and (record := recorded(outcome, saved, directory)):
            found[chosen.name] = record.found
    left = [chosen for chosen in recipe.evaluators if chosen.name not in found]
    findings = Findings(directory / FINDINGS, saved, recipe, place)
    for chosen, one in zip(left, evaluate(left, recipe, network, images, watch, findings.of), strict=True):
        _keep(one, saved, directory)
        found[chosen.name] = one
        known = known.with_measured(replace(entry, outcomes=tuple(other.outcome for other in found.values())))
        known.save(directory)
    in_order = [found[chosen.name] for chosen in recipe.evaluators]
    worst = worst_case(WORST, in_order, recipe.threat.epsilon)
    if worst:
        _keep(worst, saved, directory)
    outcomes = tuple(one.outcome for one in [*in_order, *([worst] if worst else [])])
    return known.with_measured(replace(entry, outcomes=outcomes))


def _keep(one: Evaluated, saved: Checkpoint, directory: Path) -> None:
    split = one.outcome.settings["split"]
    record = Record(one, saved.weights, saved.images[split], saved.classes, saved.selection)
    record.save(file_of(one.outcome, saved, directory))


def file_of(outcome: Outcome, saved: Checkpoint, directory: Path) -> Path:
    return verdict_files.place(directory / VERDICTS, outcome.name, saved.epoch, saved.weights)


def recorded(outcome: Outcome, saved: Checkpoint, directory: Path) -> Record | None:
    """The verdicts behind an outcome; without them it has to be found again."""
    path = file_of(outcome, saved, directory)
    if not path.exists():
        return None
    try:
        record = verdict_files.load(path)
    except RunDirectoryError as error:
        after = "" if isinstance(error.__cause__, OSError) else "; delete it to measure again"
        raise RunDirectoryError(f"{error}{after}") from None
    return record if (record.weights, record.found.outcome) == (saved.weights, outcome) else None
