"""Flips and translations, against one image at a time with numpy."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from advmix_cli.data.augment import Moves, augment, draw_moves


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_pixels(*shape):
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator(1))


def slowly(pixels, moves, translate):
    """Pad with black, crop at the shift, flip: an image at a time."""
    images = []
    for image, flip, (down, right) in zip(pixels.numpy(), moves.flip.tolist(), moves.shift.tolist(), strict=True):
        height, width = image.shape[1:]
        padded = np.pad(image, ((0, 0), (translate, translate), (translate, translate)))
        crop = padded[:, translate + down :, translate + right :][:, :height, :width]
        images.append(crop[:, :, ::-1] if flip else crop)
    return np.stack(images)


@given(
    size=st.integers(1, 6),
    channels=st.sampled_from([1, 3]),
    height=st.integers(8, 12),
    width=st.integers(8, 12),
    translate=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
def test_augment_is_pad_crop_flip_of_each_image(size, channels, height, width, translate, seed):
    pixels = random_pixels(size, channels, height, width)
    moves = draw_moves(size, flip=True, translate=translate, generator=generator(seed))
    found = augment(pixels, moves, translate)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), slowly(pixels, moves, translate))


def test_no_shift_and_no_flip_is_the_identity():
    pixels = random_pixels(4, 3, 9, 8)
    moves = draw_moves(4, flip=False, translate=0, generator=generator())
    assert torch.equal(augment(pixels, moves, 0), pixels)


def test_flip_alone_mirrors_the_columns():
    pixels = random_pixels(4, 3, 9, 8)
    moves = Moves(torch.tensor([True, False, True, False]), torch.zeros(4, 2, dtype=torch.int64))
    found = augment(pixels, moves, 4)
    assert torch.equal(found[0::2], pixels[0::2].flip(3))
    assert torch.equal(found[1::2], pixels[1::2])


def test_a_positive_shift_moves_up_and_left_and_lets_black_in():
    pixels = torch.full((1, 1, 8, 8), 200, dtype=torch.uint8)
    pixels[0, 0, 2, 1] = 7
    moved = augment(pixels, Moves(torch.tensor([False]), torch.tensor([[2, 1]])), 2)[0, 0]
    assert moved[0, 0] == 7
    assert (moved[-2:] == 0).all()
    assert (moved[:, -1] == 0).all()
    assert (moved[:-2, :-1] > 0).all()


def test_flips_and_shifts_are_uniform_and_independent():
    moves = draw_moves(20_000, flip=True, translate=2, generator=generator(5))
    cells = moves.flip * 25 + (moves.shift[:, 0] + 2) * 5 + moves.shift[:, 1] + 2
    counts = torch.bincount(cells, minlength=50)
    assert len(counts) == 50
    assert chisquare(counts.numpy()).pvalue > 0.01


def test_images_of_a_batch_move_differently():
    moves = draw_moves(64, flip=True, translate=4, generator=generator())
    assert moves.shift.unique(dim=0).shape[0] > 30
    assert 16 < moves.flip.sum() < 48


def test_no_image_is_flipped_unless_flips_are_wanted():
    assert not draw_moves(100, flip=False, translate=1, generator=generator()).flip.any()


def test_shifts_do_not_depend_on_whether_flips_are_wanted():
    with_flips, without = (draw_moves(50, flip=flip, translate=3, generator=generator(2)) for flip in (True, False))
    assert torch.equal(with_flips.shift, without.shift)
