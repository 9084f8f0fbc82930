"""Weights from a file that torch has pickled: its tensors, and nothing that runs."""

import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from advmix_cli.errors import CheckpointError, printable, some
from advmix_cli.memory import at_most

DTYPES = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
}  # fmt: skip
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
"""Keys under which training code keeps a network's tensors beside other things."""


class Taken(NamedTuple):
    """The `tensors` of a file, by name; `key` is where in it they were, and `others` where there are more."""

    tensors: dict[str, Tensor]
    key: str | None
    others: tuple[str, ...]


def tensors(path: Path, key: str | None = None) -> Taken:
    """The network's tensors in a .pt or .pth file, by plain names ("module.", which DataParallel adds, is left out).

    torch reads it with `weights_only`, which builds tensors and containers and calls nothing else. CheckpointError for
    everything that is not a mapping of names to tensors, or keeps one under `key`, or else under one of WRAPPERS.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    if _is_packed(path):
        raise CheckpointError(
            f"{path}: a compressed archive, which torch writes none of and which can unpack to any size"
        )
    try:
        # What torch's reader calls for bytes takes a size of the file's own choosing.
        with warnings.catch_warnings(), at_most(3 * path.stat().st_size + 2**28):
            warnings.simplefilter("ignore")  # of older ways to pickle, which are tried all the same
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from None
    except MemoryError:
        raise CheckpointError(f"{path}: takes far more memory to read than its tensors have") from None
    except Exception:  # torch's reader raises what it happens to meet in damaged bytes, assertions among it
        with path.open("rb") as file:
            page = file.read(200).lstrip().startswith(b"<")
        reason = (
            "it looks like a web page"
            if page
            else ("it is damaged, or holds something else than tensors (of a whole network save its state_dict())")
        )
        raise CheckpointError(f"{path}: not a file of tensors that can be read safely: {reason}") from None
    entries = found.items() if isinstance(found, Mapping) else ()
    nested = {printable(str(name)): value for name, value in entries if _has_tensors(value)}
    keys = [name for name in WRAPPERS if name in nested] if key is None else [name for name in nested if name == key]
    if len(keys) > 1:
        raise CheckpointError(f"{path}: holds several networks: {some(keys)}; choose one with --key")
    if key is not None and not keys:
        there = f"; there are {some(list(nested))}" if nested else ""
        raise CheckpointError(f"{path}: holds no tensors under '{printable(key)}'{there}")
    if keys:
        found = nested[keys[0]]
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        there = f"; --key takes that under {some(list(nested))}" if nested else ""
        raise CheckpointError(
            f"{path}: holds no mapping of names to tensors, alone or under {', '.join(WRAPPERS)}{there}"
        )
    if others := [printable(str(name)) for name, value in found.items() if not _is_named_tensor(name, value)]:
        raise CheckpointError(
            f"{path}: among its tensors are entries that safetensors cannot hold: {some(others)} (tensors by their "
            f"names are looked for alone or under {', '.join(WRAPPERS)})"
        )
    size = sum(value.numel() * value.element_size() for value in found.values())
    if size > 4 * path.stat().st_size:
        raise CheckpointError(f"{path}: its tensors share their memory, and would need {size:,} bytes on their own")
    plain = {name.removeprefix("module."): value.detach().clone().contiguous() for name, value in found.items()}
    if len(plain) < len(found):
        raise CheckpointError(f"{path}: two tensors have the same name without 'module.'")
    return Taken(plain, keys[0] if keys else None, tuple(name for name in nested if name not in keys))


def _has_tensors(value: object) -> bool:
    """Under a name of its own: what an optimizer keeps of each parameter has none."""
    return isinstance(value, Mapping) and any(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    )


def _is_packed(path: Path) -> bool:
    """What is no archive, or a broken one, is torch's to refuse."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            return not stored or sum(member.file_size for member in members) > path.stat().st_size
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, struct.error):
        return False


def _is_named_tensor(name: Any, value: Any) -> bool:
    """Of a kind that safetensors holds, and no larger than what was read: an expanded tensor can claim any size."""
    return (
        isinstance(name, str)
        and printable(name) == name != "__metadata__"
        and isinstance(value, Tensor)
        and not value.is_nested
        and value.dtype in DTYPES
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )
