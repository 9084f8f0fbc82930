"""Random flip and translation, an image at a time, all images at once."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class Moves(NamedTuple):
    """For each image: `flip` (B,) bool, and `shift` (B, 2) int64, the rows and columns that it moves up and left."""

    flip: Tensor
    shift: Tensor


def draw_moves(size: int, *, flip: bool, translate: int, generator: torch.Generator) -> Moves:
    """Flips with probability 1/2, if wanted at all, and shifts uniform in -translate .. translate."""
    device = generator.device
    coins = torch.randint(2, (size,), generator=generator, device=device).bool()
    shift = torch.randint(-translate, translate + 1, (size, 2), generator=generator, device=device)
    return Moves(coins if flip else torch.zeros_like(coins), shift)


def augment(pixels: Tensor, moves: Moves, translate: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W), as a random crop of the image padded with `translate` black pixels, then a flip."""
    size, channels, height, width = pixels.shape
    device = pixels.device
    columns = torch.arange(width, device=device).expand(size, width)
    columns = torch.where(moves.flip[:, None], columns.flip(1), columns) + moves.shift[:, 1:] + translate
    rows = torch.arange(height, device=device) + moves.shift[:, :1] + translate
    image = torch.arange(size, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    padded = pad(pixels, (translate, translate, translate, translate))
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
