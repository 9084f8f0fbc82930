"""What an evaluator has found so far, batch by batch, so that one that was interrupted goes on where it was."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from advmix_cli.files import append_line, read_text, write_atomically
from advmix_cli.seals import digest, sealed, unsealed

LONGEST = 2**28
"""Bytes; a batch of 500 images has 800."""


class Notebook(Protocol):
    """An evaluator is a function of what it finds in its batches: looked at again in the same order with the same
    findings, it is where it was."""

    def once(self, key: str, look: Callable[[], Tensor]) -> Tensor:
        """What `look` finds, bool of any shape; it is not called if `key` has been looked at before."""
        ...

    @property
    def recalled(self) -> float:
        """The seconds that went into what was not looked at again."""
        ...


def named(batch: Tensor) -> str:
    """A batch by its images: (B,) indices -> a name. Which images stand in a batch follows from what was found before,
    and another machine may find something else."""
    return f"{len(batch)} images {digest(json.dumps(batch.tolist()))[:16]}"


class Blank:
    """Keeps nothing."""

    recalled = 0.0

    def once(self, key: str, look: Callable[[], Tensor]) -> Tensor:  # noqa: ARG002
        return look()


def fail(error: OSError) -> None:
    """A disk that is full, or may not be written, ends the work."""
    raise error


class Kept:
    """A file with a line a finding, each with its own checksum, under a first line that says whose they are. A line
    that is torn, changed, or another's is as if it were not there, and so is what follows it."""

    def __init__(
        self, path: Path, owner: str, device: torch.device, unwritable: Callable[[OSError], None] = fail
    ) -> None:
        """`unwritable` is told where the file cannot be written."""
        self._path = path
        self._device = device
        self._unwritable = unwritable
        self._found: dict[str, tuple[Tensor, float]] = {}
        self.recalled = 0.0
        self._lines = self._read(owner) or [json.dumps({"of": owner})]

    def once(self, key: str, look: Callable[[], Tensor]) -> Tensor:
        if key in self._found:
            found, seconds = self._found[key]
            self.recalled += seconds
        else:
            started = time.perf_counter()
            found = look().cpu()
            seconds = round(time.perf_counter() - started, 3)
            bits = "".join("1" if bit else "0" for bit in found.flatten().tolist())
            line = json.dumps(sealed({"key": key, "shape": list(found.shape), "bits": bits, "seconds": seconds}))
            self._keep(lambda: self._add(line))
            # Looked at again by the same process, as when its memory was too small, it has cost its time already.
            self._found[key] = found, 0.0
        return found.to(self._device)

    def discard(self) -> None:
        """Forget all of it."""
        self._keep(lambda: self._path.unlink(missing_ok=True))

    def _add(self, line: str) -> None:
        if self._lines:
            # What was not whole is left out of the file, too, before anything follows it.
            write_atomically(self._path, "".join(f"{known}\n" for known in self._lines))
            self._lines = []
        append_line(self._path, line)

    def _keep(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except OSError as error:
            self._unwritable(error)

    def _read(self, owner: str) -> list[str]:
        """The lines that are whole."""
        try:
            text = read_text(self._path, LONGEST)
        except (OSError, ValueError):
            return []
        whole: list[str] = []
        for line in text.split("\n")[:-1]:
            try:
                content = json.loads(line)
                if whole:
                    content = unsealed(content)
                    bits = torch.tensor([bit == "1" for bit in content["bits"]], dtype=torch.bool)
                    seconds = content["seconds"]
                    if not isinstance(seconds, float) or seconds < 0:
                        raise ValueError("no seconds")
                    self._found[content["key"]] = bits.reshape(content["shape"]), seconds
                elif content != {"of": owner}:
                    return []
            except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, RecursionError):
                break
            whole.append(line)
        return whole
