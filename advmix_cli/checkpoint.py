"""A trained network in one safetensors file: plain parameter names, and the recipe in the header.

`safetensors.torch.load_file(path)` gives the state dict; the metadata hold `format = "pt"` and `advmix`, one value of
JSON.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from advmix_cli import __version__
from advmix_cli.errors import CheckpointError
from advmix_cli.files import write_atomically
from advmix_cli.recipe.schema import Recipe

LAST = "model.safetensors"
BEST = "best.safetensors"
SCHEMA = 1


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    return {
        "advmix": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
    }


@dataclass(frozen=True)
class Checkpoint:
    """`selection`: which epoch this is: "last", "best on validation" or "best on test". `epoch` counts from 1."""

    recipe: Recipe
    state: dict[str, Tensor]
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    selection: str
    epoch: int
    metrics: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        state = {
            name: value.detach().to("cpu", memory_format=torch.contiguous_format) for name, value in self.state.items()
        }
        header = {
            "schema": SCHEMA,
            "recipe": self.recipe.resolved(),
            "digest": self.recipe.digest(),
            "tensors": digest(state),
            "versions": versions(),
            "classes": self.classes,
            "image_shape": self.image_shape,
            "selection": self.selection,
            "epoch": self.epoch,
            "metrics": self.metrics,
        }
        write_atomically(path, save(state, metadata={"format": "pt", "advmix": json.dumps(header)}))


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes; the file's own bytes depend on the order of its metadata."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def find(place: Path) -> Path:
    """The checkpoint file of a run directory (its last epoch), or the file itself."""
    path = place / LAST if place.is_dir() else place
    if not path.is_file():
        what = "has no model.safetensors: the training did not end" if place.is_dir() else "no such file or directory"
        raise CheckpointError(f"{place}: {what}")
    return path


def load(place: Path) -> Checkpoint:
    """Read a checkpoint; CheckpointError if it is truncated, changed, or was not written by advmix."""
    path = find(place)
    if path.suffix in (".pt", ".pth", ".pkl", ".pickle"):
        raise CheckpointError(
            f"{path} is a pickle, which can run code when it is read; `advmix import` takes the tensors out of it"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it has no __iter__)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {error}") from None
    if "advmix" not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint of advmix: it carries no recipe")
    try:
        header = json.loads(metadata["advmix"])
        if header["schema"] != SCHEMA:
            writer = header.get("versions", {}).get("advmix", "of another version")
            raise CheckpointError(f"{path}: written by advmix {writer}, in another format")
        if header["tensors"] != digest(state):
            raise CheckpointError(f"{path}: the tensors are not those that were saved: the file was damaged or changed")
        return Checkpoint(
            recipe=Recipe.model_validate(header["recipe"]),
            state=state,
            classes=tuple(header["classes"]),
            image_shape=(header["image_shape"][0], header["image_shape"][1], header["image_shape"][2]),
            selection=header["selection"],
            epoch=header["epoch"],
            metrics=header["metrics"],
        )
    except ValidationError as error:
        first = error.errors()[0]
        place_in = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"{path}: its recipe is not valid in this version: {place_in}: {first['msg']}") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its header is damaged: {error!r}") from None
