"""The state of a training that has not ended: all that the rest of it depends on.

state/EEEEEE-BBBBBB.safetensors   the tensors, after so many batches of that epoch
state/EEEEEE-BBBBBB.json          the rest, and the SHA-256 of the tensors: written last, so that a state without it
                                  is none
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from advmix_cli.checkpoint import digest
from advmix_cli.files import write_atomically

KEPT = 2
"""States in a directory: the one before the newest is there until another one is complete."""


@dataclass(frozen=True)
class State:
    """`recipe` and `images` are their digests; `epoch`, `done` and `names` those of the training's progress; `best` is
    the best validation accuracy so far; `seconds` went into the training until now; `machine` is what its bits depend
    on beside the recipe."""

    recipe: str
    images: str
    epoch: int
    done: int
    names: tuple[str, ...]
    best: float
    seconds: float
    machine: dict[str, str]
    tensors: dict[str, Tensor] = field(repr=False)

    @property
    def stem(self) -> str:
        """Of its files."""
        return f"{self.epoch:06}-{self.done:06}"

    def save(self, directory: Path) -> None:
        """Write it beside the older ones, and leave the last two."""
        stem = directory / self.stem
        write_atomically(stem.with_suffix(".safetensors"), save(self.tensors))
        rest: dict[str, Any] = {name: value for name, value in asdict(self).items() if name != "tensors"}
        write_atomically(stem.with_suffix(".json"), json.dumps({**rest, "sha256": digest(self.tensors)}, indent=2))
        for manifest in _manifests(directory)[KEPT:]:
            manifest.unlink()
        wanted = {manifest.stem for manifest in _manifests(directory)}
        for tensors in directory.glob("*.safetensors"):
            if tensors.stem not in wanted:
                tensors.unlink()


def newest(directory: Path, say: Callable[[str], None]) -> State | None:
    """The newest state in `directory` that is whole, or None; `say` is told of one that is not."""
    for manifest in _manifests(directory):
        try:
            return _read(manifest)
        except (OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
            say(f"{manifest} is damaged ({error!r:.200}); looking for an older state")
    return None


def leave_only(wanted: State | None, directory: Path) -> None:
    """Remove every other state, and what saves that were cut off have left. A damaged one with a later name would
    otherwise pass for the newest."""
    if directory.is_dir():
        for path in directory.iterdir():
            if wanted is None or path.stem != wanted.stem:
                path.unlink()


def _manifests(directory: Path) -> list[Path]:
    """The newest first."""
    return sorted(directory.glob("*.json"), reverse=True)


def _read(manifest: Path) -> State:
    rest = json.loads(manifest.read_text(encoding="utf-8"))
    tensors = load(manifest.with_suffix(".safetensors").read_bytes())
    if rest.pop("sha256") != digest(tensors):
        raise ValueError("its tensors are not those that were saved")
    return State(**{**rest, "names": tuple(rest["names"])}, tensors=tensors)
