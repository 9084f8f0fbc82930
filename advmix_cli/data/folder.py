"""Images of one's own: ROOT/train/CLASS/* and ROOT/test/CLASS/*. Decoded once; the pixels are cached."""

import hashlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import save

from advmix_cli.data.images import Images, Raw
from advmix_cli.errors import DataError
from advmix_cli.files import is_utf8, write_atomically
from advmix_cli.seeding import generator
from advmix_cli.tensors import digest, read

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
"""What a file of such a name may hold. Others have pixels that are no grey levels, of which PIL makes nonsense."""
MOST_PIXELS = 64_000_000
"""Of an image that is decoded; a file of a hundred kilobytes can hold more."""


def folder(root: str, *, size: int | None, channels: Literal[1, 3], say: Callable[[str], None]) -> Raw:
    """Every image below `root`, as `channels` channels; scaled and cropped to `size`, or all of one size already.

    The images stand in a fixed shuffled order, so that the first n of them are of all classes. DataError names the
    directory or the image at fault.
    """
    try:
        place = Path(root).expanduser()
    except RuntimeError:
        raise DataError(f"data.root = '{root}': there is no such user's home directory") from None
    if not place.is_dir():
        raise DataError(f"{place.absolute()} is not a directory; data.root holds train/CLASS/* and test/CLASS/*")
    classes = _subdirectories(place / "train")
    unknown = sorted(set(_subdirectories(place / "test")) - set(classes))
    if unknown:
        raise DataError(f"{place / 'test' / unknown[0]}: the class '{unknown[0]}' is in test/ but not in train/")
    train, test = (_images(place / part, classes, size, channels, say) for part in ("train", "test"))
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        shapes = [f"{images.pixels.shape[3]}x{images.pixels.shape[2]}" for images in (train, test)]
        raise DataError(f"{place}: train/ has {shapes[0]} images, test/ {shapes[1]}; set data.size to scale them")
    return Raw(train, test, tuple(classes))


def _subdirectories(place: Path) -> list[str]:
    if not place.is_dir():
        raise DataError(f"{place} is not a directory; data.root holds train/CLASS/* and test/CLASS/*")
    names = [entry.name for entry in _entries(place) if entry.is_dir()]
    if not names:
        raise DataError(f"{place} has no class directories; images lie in {place}/CLASS/")
    for name in names:
        if not is_utf8(name):
            raise DataError(f"{place / name}: the name of a class, and not UTF-8")
    return names


def _entries(place: Path) -> "list[os.DirEntry[str]]":
    """By their names, but for hidden ones."""
    try:
        found = [entry for entry in os.scandir(place) if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror}") from None
    return sorted(found, key=lambda entry: entry.name)


def _images(place: Path, classes: list[str], size: int | None, channels: int, say: Callable[[str], None]) -> Images:
    files: list[tuple[str, int]] = []
    # With the classes, since labels are their numbers: a class can come that has no images here.
    key = hashlib.sha256(os.fsencode(f"advmix folder 2 {place.resolve()} {size} {channels} {classes}"))
    for label, name in enumerate(classes):
        entries = _entries(place / name) if (place / name).is_dir() else []
        found = [entry for entry in entries if entry.name.lower().endswith(SUFFIXES)]
        if (place / name).is_dir() and not found:
            raise DataError(f"{place / name} has no images ({', '.join(SUFFIXES)})")
        for entry in found:
            try:
                status = entry.stat()
            except OSError as error:
                raise DataError(f"{entry.path} cannot be read as an image: {error.strerror}") from None
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{entry.path} cannot be read as an image: it is no file")  # a pipe would never end
            files.append((entry.path, label))
            # Two files of one size and time that change places are told apart by their inodes.
            stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
            key.update(os.fsencode(f"{name}/{entry.name} {stamp}\n"))
    cache = user_cache_path("advmix") / "folders" / f"{key.hexdigest()}.safetensors"
    try:
        metadata, cached = read(cache)
        if metadata.get("sha256") == digest(cached):
            return Images(**cached)
    except (OSError, SafetensorError, ValueError, TypeError):
        pass  # not cached yet, or not whole
    say(f"decoding {len(files):,} images of {place}")
    pool = ThreadPoolExecutor()
    try:
        decoded = list(pool.map(lambda file: _decode(file[0], size, channels), files))
    finally:
        pool.shutdown(cancel_futures=True)  # after a Ctrl-C, or a broken image, the rest is not waited for
    for (path, _), pixels in zip(files, decoded, strict=True):
        if pixels.shape != decoded[0].shape:
            here, first = (f"{p.shape[1]}x{p.shape[0]}" for p in (pixels, decoded[0]))
            raise DataError(
                f"{path} is {here}, {files[0][0]} is {first}; set data.size to scale all images to one size"
            )
    order = torch.randperm(len(files), generator=generator("cpu", 0, "folder"))
    stacked = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2)
    labels = torch.tensor([label for _, label in files])
    images = Images(stacked[order].contiguous(), labels[order])
    tensors = {"pixels": images.pixels, "labels": images.labels}
    try:
        write_atomically(cache, save(tensors, metadata={"sha256": digest(tensors)}))
    except OSError as error:
        say(f"warning: {error.filename}: {error.strerror}; they will be decoded again the next time")
    return images


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """What PIL's own conversion gets wrong: it clips 16 bits at 255, and warns of a transparent palette."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")
    return image


def _decode(path: str, size: int | None, channels: int) -> np.ndarray:
    """A file -> (H, W, channels) uint8."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(f"{path} is {image.width}x{image.height}: above {MOST_PIXELS:,} pixels")
            upright = _to_eight_bits(ImageOps.exif_transpose(image)).convert("RGB" if channels == 3 else "L")
    except DataError:
        raise
    except Exception as error:  # PIL raises what it happens to meet in damaged bytes
        raise DataError(f"{path} cannot be read as an image: {error}") from None
    if size is not None and upright.size != (size, size):
        upright = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
    if not 8 <= min(upright.size) <= max(upright.size) <= 64:
        raise DataError(f"{path} is {upright.width}x{upright.height}; images are 8x8 to 64x64: set data.size")
    return np.asarray(upright).reshape(upright.height, upright.width, channels)
