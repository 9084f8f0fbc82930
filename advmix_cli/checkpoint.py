"""A trained network in one safetensors file: plain parameter names, and the recipe in the header.

`safetensors.torch.load_file(path)` gives the state dict; the metadata hold `format = "pt"` and `advmix`, one value of
JSON with its own checksum and that of the tensors.
"""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from advmix_cli.errors import CheckpointError
from advmix_cli.files import write_atomically
from advmix_cli.machine import Machine, versions
from advmix_cli.recipe.schema import Recipe
from advmix_cli.rundir import LAST
from advmix_cli.seals import sealed, unsealed
from advmix_cli.tensors import digest, on_cpu, read

BEST = "best.safetensors"
AVERAGE = "average.safetensors"
AVERAGE_BEST = "average-best.safetensors"
NAMES = (LAST, BEST, AVERAGE, AVERAGE_BEST)
"""In a run directory."""
SCHEMA = 2


@dataclass(frozen=True)
class Best:
    """The epoch with the best `accuracy` on the validation images so far, and the digest of its weights."""

    accuracy: float
    epoch: int
    digest: str


@dataclass(frozen=True)
class Averaged:
    """The digest of the average at the last epoch, and that of the best epoch's, if there were images to choose it
    by."""

    last: str
    best: Best | None


@dataclass(frozen=True)
class Checkpoint:
    """`selection`: which epoch this is: "last", "best on validation" or "best on test", and "averaged" before it where
    it is the average. `epoch` counts from 1. `images` are the fingerprints of the dataset; `machines` trained it, in
    `seconds`. Of the last epoch's weights alone: `best`, the best one's accuracy, epoch and digest, if there were
    images to choose it by, `averaged`, what there is of the average, if the recipe has one, and the epochs that
    `collapsed`."""

    recipe: Recipe
    state: dict[str, Tensor]
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    images: dict[str, str]
    selection: str
    epoch: int
    machines: tuple[Machine, ...] = ()
    seconds: float = 0.0
    best: Best | None = None
    averaged: Averaged | None = None
    collapsed: tuple[int, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def weights(self) -> str:
        """The digest of `state`, by which results and findings know it."""
        return digest(on_cpu(self.state))

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        state = on_cpu(self.state)
        header = {
            "schema": SCHEMA,
            "recipe": self.recipe.resolved(),
            "digest": self.recipe.digest(),
            "tensors": self.weights,
            "versions": versions(),
            "classes": self.classes,
            "image_shape": self.image_shape,
            "images": self.images,
            "selection": self.selection,
            "epoch": self.epoch,
            "machines": self.machines,
            "seconds": self.seconds,
            "best": self.best and asdict(self.best),
            "averaged": self.averaged and asdict(self.averaged),
            "collapsed": self.collapsed,
            "metrics": self.metrics,
        }
        write_atomically(path, save(state, metadata={"format": "pt", "advmix": json.dumps(sealed(header))}))


def name_of(selection: str) -> str:
    """The file of a run directory that holds the weights chosen by `selection`."""
    match selection:
        case "last":
            return LAST
        case "averaged last":
            return AVERAGE
        case _:
            return AVERAGE_BEST if selection.startswith("averaged") else BEST


def find(place: Path) -> Path:
    """The checkpoint file of a run directory (its last epoch), or the file itself."""
    path = place / LAST if place.is_dir() else place
    if not path.is_file():
        best = f"; {place / BEST} is the best epoch so far" if (place / BEST).is_file() else ""
        if not place.is_dir():
            what = "no such file or directory"
        elif (place / "recipe.toml").is_file():
            what = f"has no {LAST}: the training did not end, or that file is gone{best}"
        else:
            what = "holds no run"
        raise CheckpointError(f"{place}: {what}")
    return path


def load(place: Path) -> Checkpoint:
    """Read a checkpoint; CheckpointError if it is truncated, changed, or was not written by advmix."""
    metadata, state = read_tensors(path := find(place))
    if "advmix" not in metadata:
        raise CheckpointError(
            f"{path}: a safetensors file, but not a checkpoint of advmix: it carries no recipe; "
            "--model says what network it is of"
        )
    try:
        header = json.loads(metadata["advmix"])
        if header["schema"] != SCHEMA:
            writer = header.get("versions", {}).get("advmix", "of another version")
            raise CheckpointError(f"{path}: written by advmix {writer}, in another format")
        header = unsealed(header)
        try:
            recipe = Recipe.model_validate(header["recipe"])
        except ValidationError as error:
            raise CheckpointError(f"{path}: its recipe is not valid in this version: {_first(error)}") from None
        fields = _Header.model_fields
        wanted = {name: header[name] for name in fields if name in header or fields[name].is_required()}
        known = _Header.model_validate_json(json.dumps(wanted), strict=True)
        found = Checkpoint(recipe=recipe, state=state, **dict(known))
        if header["tensors"] != found.weights:
            raise CheckpointError(f"{path}: the tensors are not those that were saved: the file was damaged or changed")
        return found
    except ValidationError as error:
        raise CheckpointError(f"{path}: its header is damaged: {_first(error)}") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its header is damaged: {error!r}") from None


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file; CheckpointError if it is none, or not whole, and from an OSError if
    the disk does not give it."""
    if path.suffix in (".pt", ".pth", ".pkl", ".pickle"):
        raise CheckpointError(
            f"{path} is a pickle, which can run code when it is read; `advmix import` takes the tensors out of it"
        )
    try:
        return read(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {error}") from None


class _Header(BaseModel):
    """What a checkpoint says beside its recipe, as it must be."""

    model_config = ConfigDict(allow_inf_nan=False)

    classes: tuple[str, ...]
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    images: dict[str, str]
    selection: Literal[
        "last", "best on validation", "best on test",
        "averaged last", "averaged best on validation", "averaged best on test",
    ]  # fmt: skip
    epoch: PositiveInt
    machines: tuple[Machine, ...]
    seconds: NonNegativeFloat
    best: Best | None
    averaged: Averaged | None = None
    """Not in the files of before there were averages."""
    collapsed: tuple[PositiveInt, ...] = ()
    """Likewise."""
    metrics: dict[str, Any]


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
