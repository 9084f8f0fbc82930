"""What an evaluator has found so far, batch by batch, so that one that was interrupted goes on where it was."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from advmix_cli import tensors
from advmix_cli.errors import RunDirectoryError
from advmix_cli.evaluation.predict import Judgement
from advmix_cli.evaluation.verdicts import Finding
from advmix_cli.files import write_atomically
from advmix_cli.seals import digest, sealed, unsealed


class Notebook(Protocol):
    """An evaluator is a function of what it finds in its batches: looked at again in the same order with the same
    findings, it is where it was."""

    @property
    def images(self) -> bool:
        """Whether the images that an attack ends with are kept."""
        ...

    @property
    def recalled(self) -> float:
        """The seconds that went into what was not looked at again."""
        ...

    def once(self, key: str, shape: Sequence[int], look: Callable[[], Finding]) -> Finding:
        """What `look` finds on images of `shape`, (B, C, H, W); it is not called if `key` has been looked at before."""
        ...


def named(batch: Tensor) -> str:
    """A batch by its images: (B,) indices -> a name. Which images stand in a batch follows from what was found before,
    and another machine may find something else."""
    return f"{len(batch)} images {digest(json.dumps(batch.tolist()))[:16]}"


class Blank:
    """Looks every time."""

    recalled = 0.0

    def __init__(self, *, images: bool = False) -> None:
        self.images = images

    def once(self, key: str, shape: Sequence[int], look: Callable[[], Finding]) -> Finding:  # noqa: ARG002
        return look()


def fail(error: OSError) -> None:
    """A disk that is full, or may not be written, ends the work."""
    raise error


class Written:
    """A directory with a file a finding, which says whose it is. One that is damaged, changed, or another's is as if it
    were not there."""

    def __init__(
        self,
        directory: Path,
        owner: str,
        device: torch.device,
        unwritable: Callable[[OSError], None] = fail,
        *,
        images: bool = False,
    ) -> None:
        """`unwritable` is told where a finding cannot be kept. RunDirectoryError for a link in place of the directory:
        what it points to would be written and removed."""
        if directory.is_symlink():
            raise RunDirectoryError(f"{directory} is a link, and what it points to would be written and removed")
        self._directory = directory
        self._owner = digest(owner)
        self._device = device
        self._unwritable = unwritable
        # Looked at again by the same process, as when its memory was too small, it has cost its time already.
        self._own: set[str] = set()
        self.images = images
        self.recalled = 0.0

    def once(self, key: str, shape: Sequence[int], look: Callable[[], Finding]) -> Finding:
        path = self._directory / f"{digest(key)[:32]}.safetensors"
        known = self._read(path, key, shape)
        if known is None:
            started = time.perf_counter()
            found = look()
            found = _to(torch.device("cpu"), found if self.images else found._replace(images=None))
            self._write(path, key, found, round(time.perf_counter() - started, 3))
            self._own.add(key)
        else:
            found, seconds = known
            self.recalled += 0.0 if key in self._own else seconds
        return _to(self._device, found)

    def discard(self) -> None:
        """Forget all of it."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _write(self, path: Path, key: str, found: Finding, seconds: float) -> None:
        # The file holds no memory twice, and an attack may go by the judge.
        values = {"stands": found.stands.clone(), **found.judgement._asdict()}
        values |= {} if found.images is None else {"images": found.images}
        about = sealed({"of": self._owner, "key": key, "seconds": seconds, "tensors": tensors.digest(values)})
        try:
            write_atomically(path, save(values, {"finding": json.dumps(about)}))
        except OSError as error:
            self._unwritable(error)

    def _read(self, path: Path, key: str, shape: Sequence[int]) -> tuple[Finding, float] | None:
        """A finding and its seconds."""
        try:
            metadata, values = tensors.read(path)
            about = unsealed(json.loads(metadata["finding"]))
            if (about["of"], about["key"], about["tensors"]) != (self._owner, key, tensors.digest(values)):
                return None
            return _finding(values, shape, images=self.images), _seconds(about["seconds"])
        except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def _finding(values: dict[str, Tensor], shape: Sequence[int], *, images: bool) -> Finding:
    """ValueError or KeyError for what is none of images of `shape`."""
    wanted = {"stands": torch.bool, "correct": torch.bool, "margin": torch.float32}
    for name, kind in wanted.items():
        if values[name].dtype != kind or values[name].shape != (shape[0],):
            raise ValueError(f"{name} is not one {kind} an image")
    if not values["margin"].isfinite().all():
        raise ValueError("a margin is not finite")
    found = values["images"] if images else None
    if found is not None and (found.dtype != torch.float32 or found.shape != tuple(shape)):
        raise ValueError("these are not the images")
    if found is not None and not bool(((found >= 0) & (found <= 1)).all()):
        raise ValueError("an image is outside [0, 1]")
    return Finding(values["stands"], Judgement(values["correct"], values["margin"]), found)


def _seconds(value: Any) -> float:
    if not isinstance(value, float) or not 0 <= value < 1e9:
        raise ValueError("no seconds")
    return value


def _to(device: torch.device, found: Finding) -> Finding:
    judgement = Judgement(*(value.to(device) for value in found.judgement))
    return Finding(found.stands.to(device), judgement, None if found.images is None else found.images.to(device))
