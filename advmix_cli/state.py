"""The state of a training that has not ended: all that the rest of it depends on.

state/EEEEEE-BBBBBB.safetensors   the tensors, after so many batches of that epoch
state/EEEEEE-BBBBBB.json          the rest, the SHA-256 of the tensors, and its own: written last, so that a state
                                  without it is none
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from advmix_cli.checkpoint import Best
from advmix_cli.errors import RunDirectoryError
from advmix_cli.files import read_text, write_atomically
from advmix_cli.machine import Machine
from advmix_cli.rundir import LONGEST_MANIFEST, STEM, manifests
from advmix_cli.seals import sealed, unsealed
from advmix_cli.tensors import digest, read

LEFT = 2
"""States in a directory: the one before the newest is there until another one is complete."""


@dataclass(frozen=True)
class State:
    """`recipe` and `images` are their digests, and so is `metrics` of the lines of the epochs before; `epoch`, `done`
    and `names` are those of the training's progress; `best` and `averaged_best` are those of the weights and of their
    average so far; `seconds` went into the training until now; `machines` are those that trained, each from an epoch
    and a number of batches on: what the bits depend on beside the recipe."""

    recipe: str
    images: dict[str, str]
    epoch: int
    done: int
    names: tuple[str, ...]
    best: Best | None
    metrics: str
    seconds: float
    machines: tuple[Machine, ...]
    tensors: dict[str, Tensor] = field(repr=False)
    averaged_best: Best | None = None

    @property
    def stem(self) -> str:
        """Of its files."""
        return f"{self.epoch:06}-{self.done:06}"

    def save(self, directory: Path) -> None:
        """Write it beside the older ones, and leave the last two."""
        stem = directory / self.stem
        write_atomically(stem.with_suffix(".safetensors"), save(self.tensors))
        rest = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "tensors"}
        for name in ("best", "averaged_best"):
            rest[name] = rest[name] and asdict(rest[name])
        manifest = sealed({**rest, "tensors": digest(self.tensors)})
        write_atomically(stem.with_suffix(".json"), json.dumps(manifest, indent=2))
        _remove(directory, {manifest.stem for manifest in manifests(directory)[:LEFT]})


class _Manifest(BaseModel):
    """What of a state is no tensor, as it must be."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    recipe: str
    images: dict[str, str]
    epoch: Annotated[int, Field(ge=1)]
    done: Annotated[int, Field(ge=0)]
    names: tuple[str, ...]
    best: Best | None
    metrics: str
    seconds: Annotated[float, Field(ge=0)]
    machines: Annotated[tuple[Machine, ...], Field(min_length=1)]
    averaged_best: Best | None = None
    """Not in the states of before there were averages."""


def newest(directory: Path, say: Callable[[str], None]) -> State | None:
    """The newest state in `directory` that is whole, or None if there is none at all; `say` is told of one that is not.
    RunDirectoryError if none is whole; OSError if the disk does not give one: neither is a reason to start again."""
    found = manifests(directory)
    for manifest in found:
        try:
            return _read(manifest)
        except (
            FileNotFoundError,
            SafetensorError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
        ) as e:
            say(f"warning: the state {manifest.with_suffix('')} is damaged: {e!s:.200}")
    if found:
        raise RunDirectoryError(f"{directory} holds no whole state; delete it to start this training again at epoch 1")
    return None


def leave_only(wanted: State | None, directory: Path) -> None:
    """Remove every other state, and what saves that were cut off have left. A damaged one with a later name would
    otherwise pass for the newest."""
    if directory.is_dir():
        _remove(directory, {wanted.stem} if wanted else set())


def _remove(directory: Path, wanted: set[str]) -> None:
    """The states but those with the stems `wanted`, and cut-off files; nothing that has another name."""
    for path in directory.iterdir():
        ours = re.fullmatch(rf"({STEM})\.(json|safetensors)|\.{STEM}\.(json|safetensors)\..+", path.name)
        if ours and ours[1] not in wanted and path.is_file():
            path.unlink()


def _read(manifest: Path) -> State:
    rest = unsealed(json.loads(read_text(manifest, LONGEST_MANIFEST)))
    _, tensors = read(manifest.with_suffix(".safetensors"))
    if rest.pop("tensors") != digest(tensors):
        raise ValueError("its tensors are not those that were saved")
    known = _Manifest.model_validate_json(json.dumps(rest), strict=True)
    found = State(**{name: getattr(known, name) for name in _Manifest.model_fields}, tensors=tensors)
    if found.stem != manifest.stem:
        raise ValueError(f"it is the state {found.stem}")
    return found
