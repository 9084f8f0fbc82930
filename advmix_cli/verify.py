"""Adversarial images that were kept, looked at again: are they what the verdicts say?"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from advmix_cli import build, checkpoint
from advmix_cli.checkpoint import Checkpoint
from advmix_cli.data.images import Dataset, to_unit
from advmix_cli.errors import AdvmixError, CheckpointError, RunDirectoryError, UsageError
from advmix_cli.evaluation import verdict_files
from advmix_cli.evaluation.predict import Judgement, judge, measured
from advmix_cli.evaluation.verdict_files import Record
from advmix_cli.evaluation.verdicts import SLACK
from advmix_cli.measure.same_images import check_images
from advmix_cli.recipe.load import Document, Edit
from advmix_cli.recipe.positions import Position
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report.grid import Cell, Grid
from advmix_cli.report.tables import percent

ROUNDING, ULPS = 1e-4, 1e-6
"""Of a margin, as shares of how far the logits of an image lie apart, and of the largest: what another batch, machine
or version may change."""
BATCH = 500


class Verified(NamedTuple):
    """Of `n` images: the largest |δ|, and how many pixels, verdicts on the image as it is, verdicts on the kept image
    and margins are not what they must be; how many verdicts `undecided` by rounding differ; and the accuracy of the
    kept images in fp32, rounded to 8 bits, and in bf16."""

    path: Path
    evaluator: str
    n: int
    epsilon: float
    largest: float
    out_of_range: int
    clean_differ: int
    differ: int
    undecided: int
    margins_differ: int
    accuracy: float
    rounded: float
    bf16: float

    @property
    def is_right(self) -> bool:
        """Nothing is what it must not be, and rounding decides no more than one image in a hundred."""
        wrong = self.out_of_range + self.clean_differ + self.differ + self.margins_differ
        return self.largest <= self.epsilon + SLACK and not wrong and self.undecided <= max(1, self.n // 100)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {**self._asdict(), "path": str(self.path), "is_right": self.is_right}


class Unverified(NamedTuple):
    """A file that could not be looked at, and why."""

    path: Path
    why: str

    @property
    def is_right(self) -> bool:
        """What nobody can look at is not."""
        return False

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"path": str(self.path), "is_right": False, "why": self.why}


def kept(place: Path) -> list[Path]:
    """The files of verdicts that may have images: of a run directory, of a directory of them, or the file itself;
    UsageError if it is not there, or is a checkpoint."""
    if place.is_file():
        if place.name in checkpoint.NAMES:
            raise UsageError(f"{place}: it is a checkpoint; name its run directory, or a file of its images")
        return [place]
    if not place.is_dir():
        raise UsageError(f"{place}: no such file or directory")
    found, apart = sorted(place.glob("*.safetensors")), place / verdict_files.ADVERSARIAL
    if apart.is_dir():
        # Those beside that directory are looked at by their names alone: other files may be the user's.
        found = [*filter(verdict_files.is_named, found), *sorted(apart.glob("*.safetensors"))]
    return [path for path in found if path.name not in checkpoint.NAMES]


def verified(
    paths: list[Path], given: Path | None, data_root: str | None, place: torch.device, say: Callable[[str], None]
) -> Iterator[Verified | Unverified]:
    """Look at each file that has images again; what cannot be looked at is given last, with the reason. The checkpoint
    is `given`, or the one beside the file or a directory above it whose weights the verdicts are of. If none can be
    looked at though the files themselves are whole, the first one's error is raised."""
    images: dict[str, Dataset] = {}

    def looked_at(path: Path) -> Verified | None:
        record = verdict_files.load(path)
        if verdict_files.is_misnamed(path, record):
            raise RunDirectoryError(f"{path}: what it holds, by {record.found.outcome.name}, is not what its name says")
        if record.found.verdicts.images is None:
            return None
        saved = _checkpoint(path, record, given)
        recipe = saved.recipe if data_root is None else _elsewhere(saved.recipe, data_root)
        key = f"{recipe.data!r} {recipe.validation!r}"
        if key not in images:
            images[key] = build.dataset(recipe, place, say)
        check_images(saved, images[key])
        build.arithmetic(saved.recipe)
        return _verified(path, record, build.saved_network(saved, place), images[key])

    failed: list[tuple[Path, AdvmixError]] = []
    is_any = False
    for path in paths:
        try:
            found = looked_at(path)
        except AdvmixError as error:
            failed.append((path, error))
            continue
        if found:
            is_any = True
            yield found
    if failed and not is_any and not any(isinstance(error, RunDirectoryError) for _, error in failed):
        raise failed[0][1]
    yield from (Unverified(path, str(error).removeprefix(f"{path}: ")) for path, error in failed)


def _elsewhere(recipe: Recipe, root: str) -> Recipe:
    """Its data lie in another place."""
    edit = Edit(("data", "root"), root, Position("--data-root"))
    return Document(recipe.resolved(), {(): edit.where}).edited([edit]).recipe()


def _checkpoint(path: Path, record: Record, given: Path | None) -> Checkpoint:
    if given is not None:
        saved = checkpoint.load(given)
        if saved.weights != record.weights:
            raise CheckpointError(f"{path}: {given} is not the network that it is of")
        return saved
    damaged: CheckpointError | None = None
    for file in (directory / name for directory in (path.parent, path.parent.parent) for name in checkpoint.NAMES):
        try:
            if file.is_file() and (saved := checkpoint.load(file)).weights == record.weights:
                return saved
        except CheckpointError as error:  # another one can be it
            damaged = damaged or error
    if damaged is None and not record.selection:
        raise UsageError(f"{path}: it is of a network of others, which only `advmix eval --model` can make")
    raise damaged or UsageError(f"{path}: its checkpoint is not beside it: name it with --checkpoint")


def _verified(path: Path, record: Record, network: nn.Module, images: Dataset) -> Verified:
    outcome, verdicts = record.found.outcome, record.found.verdicts
    settings: Mapping[str, Any] = outcome.settings
    part = images.part(settings["split"]).first(outcome.n)
    if len(part) != outcome.n or verdicts.images is None or verdicts.images.shape[1:] != part.pixels.shape[1:]:
        raise RunDirectoryError(f"{path}: these are not the images of its data")
    if record.images != images.part(settings["split"]).fingerprint() or not part.labels.cpu().equal(
        record.found.labels
    ):
        raise RunDirectoryError(f"{path}: its images or their labels are not those of its data")
    device = part.pixels.device
    largest, counts = 0.0, Counter[str]()
    with measured(network):
        for indices in torch.arange(outcome.n).split(BATCH):
            there = indices.to(device)
            x, labels = to_unit(part.pixels[there]), part.labels[there]
            found = verdicts.images[indices].to(device)
            clean, robust = verdicts.clean[indices].to(device), verdicts.robust[indices].to(device)
            largest = max(largest, (found - x).abs().max().item())
            outside = (~((found >= 0) & (found <= 1))).sum()
            inside = found.nan_to_num(0).clamp(0, 1)
            judged, as_it_is = judge(network, inside, labels), judge(network, x, labels)
            scale = _rounding(network, inside)
            clean_differ = (as_it_is.correct != clean) & (as_it_is.margin.abs() > _rounding(network, x))
            differ = judged.correct != robust
            margins_differ = ~((judged.margin - verdicts.margin[indices].to(device)).abs() <= 10 * scale)
            decided = differ & (judged.margin.abs() > scale)
            levels = (inside * 255).round() / 255
            now = {
                "outside": outside,
                "clean": clean_differ.sum(),
                "differ": decided.sum(),
                "undecided": (differ & ~decided).sum(),
                "margins": margins_differ.sum(),
                "right": (judged.correct & clean).sum(),
                "rounded": (judge(network, levels, labels).correct & clean).sum(),
                "bf16": (_in_bf16(network, inside, labels).correct & clean).sum(),
            }
            counts.update({name: int(count) for name, count in now.items()})
    return Verified(
        path=path,
        evaluator=outcome.name,
        n=outcome.n,
        epsilon=float(settings["epsilon"]),
        largest=largest,
        out_of_range=counts["outside"],
        clean_differ=counts["clean"],
        differ=counts["differ"],
        undecided=counts["undecided"],
        margins_differ=counts["margins"],
        accuracy=counts["right"] / outcome.n,
        rounded=counts["rounded"] / outcome.n,
        bf16=counts["bf16"] / outcome.n,
    )


@torch.no_grad()
def _rounding(network: nn.Module, x: Tensor) -> Tensor:
    """(B,) below which a margin of each image says nothing."""
    logits = network(x)
    apart = logits.amax(dim=1) - logits.amin(dim=1)
    return ROUNDING * apart + ULPS * logits.abs().amax(dim=1)


def _in_bf16(network: nn.Module, x: Tensor, labels: Tensor) -> Judgement:
    with torch.autocast(x.device.type, torch.bfloat16):
        return judge(network, x, labels)


def verified_grid(found: list[Verified], failed: list[Unverified]) -> Grid:
    """A file a line, and under the lines what could not be looked at."""
    rows = [
        (
            Cell(one.evaluator),
            Cell("right" if one.is_right else "WRONG"),
            Cell(f"{255 * one.largest:.3f}", (f"ε {255 * one.epsilon:.6g}",)),
            _wrong(one),
            Cell(percent(one.accuracy), (f"8 bits {percent(one.rounded)}", f"bf16 {percent(one.bf16)}")),
            Cell(f"{one.n:,}"),
        )
        for one in found
    ]
    captions = (
        "wrong: pixels out of [0, 1]; verdicts on the images as they are (clean) and on the kept ones (attacked), and "
        "margins, that are not what the file says; rounding: verdicts that it decides",
        "accuracy: on the kept images as they are, rounded to 8 bits, and with bf16 arithmetic",
        *(str(one.path) for one in found),
        *(f"NOT looked at: {one.path}: {one.why}" for one in failed),
    )
    columns = ("evaluator", "", "255·max |δ|", "wrong", "accuracy %", "n")
    return Grid("Adversarial images, looked at again", columns, tuple(rows), captions)


def _wrong(one: Verified) -> Cell:
    """How many in all, and of what."""
    wrong = {
        "pixels": one.out_of_range, "clean": one.clean_differ, "attacked": one.differ, "margins": one.margins_differ,
    }  # fmt: skip
    named = wrong | {"rounding": one.undecided}
    return Cell(f"{sum(wrong.values()):,}", tuple(f"{name} {count:,}" for name, count in named.items() if count))
