"""Tensors in a safetensors file, whose header has a bound, and their digest."""

import errno
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from advmix_cli.files import is_utf8

LONGEST_HEADER = 4 * 2**20
"""Bytes. The state of a Wide ResNet-34-10 with Adam's moments has 0.1 million; the library itself takes 100 million,
and seconds and gigabytes for them."""


def read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors. ValueError, OSError or SafetensorError if it is no whole safetensors file."""
    if not is_utf8(path):
        raise OSError(errno.EILSEQ, "its name is not UTF-8", str(path))
    if not path.is_file():
        raise ValueError("there is no such file")  # a pipe may have no end
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > LONGEST_HEADER:
        raise ValueError(f"its header claims {header:,} bytes, and at most {LONGEST_HEADER:,} are read")
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no __iter__)


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As a file holds them: on the CPU, contiguous, bit for bit."""
    contiguous = torch.contiguous_format
    return {name: value.detach().to("cpu", memory_format=contiguous) for name, value in tensors.items()}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes; a file's own bytes depend on the order of its metadata."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
