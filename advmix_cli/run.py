"""One recipe -> one run directory: train, measure, write.

recipe.toml         the resolved recipe
metrics.jsonl       a line an epoch
model.safetensors   the last epoch
best.safetensors    the best epoch on the validation images
results.json        what the evaluators found
"""

import json
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w
import torch
from pydantic import ValidationError

from advmix_cli import build, checkpoint, engine, fitting
from advmix_cli.attacked import subject_of
from advmix_cli.checkpoint import BEST, LAST, Checkpoint
from advmix_cli.data.images import Dataset
from advmix_cli.errors import DivergedError, MemoryExhaustedError, RunDirectoryError
from advmix_cli.evaluation.predict import measured
from advmix_cli.evaluation.pristine import Pristine
from advmix_cli.files import write_atomically
from advmix_cli.measure import evaluate, share_correct
from advmix_cli.memory import is_out_of_memory, release
from advmix_cli.recipe.schema import FolderData, Recipe
from advmix_cli.report.progress import Watcher
from advmix_cli.report.results import Measured, Results
from advmix_cli.training.loop import Training

RECIPE = "recipe.toml"
METRICS = "metrics.jsonl"


def execute(recipe: Recipe, directory: Path, place: torch.device, watch: Watcher) -> Results:
    """Do what of `recipe` is not yet done in `directory`, and return all of its results.

    UsageErrors come before anything is written. DivergedError leaves results that say so.
    """
    check_directory(recipe, directory)
    known = Results.load(directory)
    if known and known.diverged:
        raise DivergedError(f"{known.diverged} (found earlier: {directory})")
    build.arithmetic(recipe)
    # A folder may have changed under the same path; what is downloaded has its checksums.
    changeable = isinstance(recipe.data, FolderData)
    if known and known.finished and not changeable:
        watch.say(f"already done: {directory}")
        return known
    images = build.dataset(recipe, place, watch.say)
    fingerprint = images.fingerprint()
    if known and known.images != fingerprint:
        raise RunDirectoryError(
            f"{directory} was made with other images than those there now; choose another with --out"
        )
    if known and known.finished:
        watch.say(f"already done: {directory}")
        return known
    trained = (directory / LAST).is_file()
    if not trained:
        engine.check_place(recipe, place)
    try:
        write_atomically(directory / RECIPE, tomli_w.dumps(recipe.resolved()))
    except OSError as error:
        raise RunDirectoryError(f"{directory} cannot be written: {error.strerror}") from None
    if known is None or not trained:
        known = Results(
            title=recipe.title,
            seed=recipe.seed,
            digest=recipe.digest(),
            device=build.device_name(place),
            versions=checkpoint.versions(),
            epochs=recipe.schedule.epochs,
            train_images=len(images.train),
            images=fingerprint,
            seconds=0.0,
        )
    if not trained:
        if (directory / METRICS).exists():
            watch.say(f"an earlier training in {directory} did not end: it starts again")
        started = time.perf_counter()
        try:
            _train(recipe, images, place, directory, watch)
        except DivergedError as error:
            replace(known, diverged=str(error)).save(directory)
            raise
        known = replace(known, seconds=round(time.perf_counter() - started, 3))
        known.save(directory)
    for file in _reported(recipe, directory):
        known = _measure(file, recipe, known, images, directory, place, watch)
    known = replace(known, finished=True)
    known.save(directory)
    return known


def check_directory(recipe: Recipe, directory: Path) -> None:
    """RunDirectoryError if `directory` holds something else than a run of this very recipe."""
    try:
        if not directory.exists():
            return
    except OSError as error:
        raise RunDirectoryError(f"{directory}: {error.strerror}; choose another directory with --out") from None
    if not directory.is_dir():
        raise RunDirectoryError(f"{directory} is not a directory")
    path = directory / RECIPE
    if not path.is_file():
        if any(directory.iterdir()):
            raise RunDirectoryError(f"{directory} is not empty and holds no run; choose another directory with --out")
        return
    try:
        other = Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError):
        raise RunDirectoryError(
            f"{path} is not a recipe of this version; choose another directory with --out"
        ) from None
    if other.digest() != recipe.digest():
        theirs, ours = flat(other.resolved()), flat(recipe.resolved())
        differ = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key) and key != "title"]
        shown = "; ".join(f"{key} is {theirs.get(key)!r} there, {ours.get(key)!r} here" for key in differ[:3])
        more = f"; and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise RunDirectoryError(f"{directory} holds another recipe: {shown}{more}; choose another directory with --out")


def flat(table: object, prefix: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} -> {"a.b": 1}; the items of arrays by their numbers."""
    items = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else None
    if items is None:
        return {prefix.removesuffix("."): table}
    return {key: value for name, inner in items for key, value in flat(inner, f"{prefix}{name}.").items()}


def _train(recipe: Recipe, images: Dataset, place: torch.device, directory: Path, watch: Watcher) -> None:
    """Train, and say what to do if a batch does not fit."""
    try:
        _prepared_epochs(recipe, images, place, directory, watch)
        return
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    # Here nothing refers to the network any more: the search has the memory that the training had.
    release()
    raise MemoryExhaustedError(fitting.advice(recipe, images, place))


def _prepared_epochs(recipe: Recipe, images: Dataset, place: torch.device, directory: Path, watch: Watcher) -> None:
    network = build.new_network(recipe, images, place)
    prepared = engine.prepare(recipe, images, network, place)
    watch.say(str(prepared))
    _epochs(recipe, prepared.training, images, directory, watch)


def _epochs(recipe: Recipe, training: Training, images: Dataset, directory: Path, watch: Watcher) -> None:
    """Write metrics.jsonl and the checkpoints of the last and of the best epoch."""
    network = training.network
    judges = {"validation_accuracy": Pristine(batch_size=500), "validation_pgd_accuracy": build.validator(recipe)}
    on_test = recipe.validation.on == "test"
    judged = (images.test if on_test else images.validation).first(recipe.validation.limit)
    with measured(network):
        passes = sum(judge.passes(len(images.classes)) for judge in judges.values()) * len(judged) * training.epochs
        subject = subject_of(recipe, network, judged.first(500), passes, watch.say)

    def save(name: str, selection: str, line: dict[str, Any]) -> None:
        Checkpoint(
            recipe=recipe,
            state=network.state_dict(),
            classes=images.classes,
            image_shape=images.image_shape,
            selection=selection,
            epoch=line["epoch"],
            metrics=line,
        ).save(directory / name)

    best = -1.0
    line: dict[str, Any] = {}
    watch.begin(recipe.title or "training", training.epochs * training.batches)
    with (directory / METRICS).open("w", encoding="utf-8") as metrics:
        for epoch in training.run(lambda: watch.advance(1)):
            line = epoch.to_json()
            if len(judged):
                with measured(network):
                    line |= {name: share_correct(judge, subject, judged) for name, judge in judges.items()}
            metrics.write(json.dumps(line) + "\n")
            metrics.flush()
            watch.epoch(_epoch_line(line, training.epochs))
            if line.get("validation_pgd_accuracy", -1.0) > best:
                best = line["validation_pgd_accuracy"]
                save(BEST, "best on test" if on_test else "best on validation", line)
    save(LAST, "last", line)


def _epoch_line(line: dict[str, Any], epochs: int) -> str:
    parts = [f"loss {line['loss']:.4f}"]
    if "inner_loss_before" in line:
        parts.append(f"inner {line['inner_loss_before']:.4f} -> {line['inner_loss_after']:.4f}")
    parts.append(f"λ {line['ratio']:.3f}")
    if "validation_accuracy" in line:
        pristine, robust = (100 * line[name] for name in ("validation_accuracy", "validation_pgd_accuracy"))
        parts.append(f"validation {pristine:.1f} %, under PGD {robust:.1f} %")
    parts += [f"lr {line['lr']:.3g}", f"{line['images_per_second']:,.0f} images/s"]
    return f"epoch {line['epoch']}/{epochs}: {' · '.join(parts)}"


def _reported(recipe: Recipe, directory: Path) -> list[Path]:
    """The checkpoints that the recipe wants measured; without validation images there is no best one."""
    names = {"last": [LAST], "best": [BEST], "both": [LAST, BEST]}[recipe.validation.report]
    there = [directory / name for name in names if (directory / name).is_file()]
    return there or [directory / LAST]


def _measure(
    file: Path, recipe: Recipe, known: Results, images: Dataset, directory: Path, place: torch.device, watch: Watcher
) -> Results:
    """Measure a checkpoint by what of the recipe's evaluators is not yet in `known`, saving after each."""
    saved = checkpoint.load(file)
    if saved.recipe.digest() != recipe.digest():
        raise RunDirectoryError(f"{file} is the checkpoint of another recipe")
    network = build.saved_network(saved, place)
    entry = known.of(saved.selection) or Measured(saved.selection, saved.epoch)
    # The best epoch may be the last one: the same weights need not be measured twice.
    twin = next((other for other in known.measured if other.epoch == saved.epoch), entry)
    missing = [chosen for chosen in recipe.evaluators if entry.outcome(chosen.name) is None]
    for outcome in filter(None, (twin.outcome(chosen.name) for chosen in missing)):
        entry = replace(entry, outcomes=(*entry.outcomes, outcome))
    left = [chosen for chosen in missing if entry.outcome(chosen.name) is None]
    for outcome in evaluate(left, recipe, network, images, watch):
        entry = replace(entry, outcomes=(*entry.outcomes, outcome))
        known = known.with_measured(entry)
        known.save(directory)
    return known.with_measured(entry)
