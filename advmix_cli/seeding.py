"""Every random number of a run follows from (seed, purpose, indices) alone.

No generator lives longer than the thing it draws for, so there is no generator state to save, and the draws of batch
b of epoch e are the same whether or not the batches before it were run.
"""

import hashlib

import torch


def derive(seed: int, purpose: str, *indices: int) -> int:
    """A 63-bit seed for `purpose` ("order", "noise", ...) at `indices` (epoch, batch, ...).

    A CPU generator uses its low 32 bits.
    """
    text = "/".join([str(seed), purpose, *map(str, indices)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(device: torch.device | str, seed: int, purpose: str, *indices: int) -> torch.Generator:
    """A fresh generator on `device`, seeded by `derive`."""
    return torch.Generator(device).manual_seed(derive(seed, purpose, *indices))
