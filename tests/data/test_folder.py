"""Images of one's own: decoding against PIL, what is refused and how it is named, and the cache."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advmix_cli.data.folder import folder
from advmix_cli.errors import DataError

RNG = np.random.default_rng(0)


def grey_levels(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


def save(path, image=None, **options):
    """An image, or an array, or a random 8x8 colour image, written where it says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = grey_levels(8, 8, 3) if image is None else image
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path):
    """Two classes with one training and one test image each, 8x8."""
    for part in ("train", "test"):
        for name in ("a", "b"):
            save(tmp_path / "images" / part / name / "0.png")
    return tmp_path / "images"


def load(root, size=None, channels=3):
    return folder(str(root), size=size, channels=channels, say=lambda _line: None)


def only(root, path, **options):
    """The pixels of the one image in test/a."""
    for other in (root / "test" / "a").iterdir():
        if other != path:
            other.unlink()
    raw = load(root, **options)
    (index,) = (raw.test.labels == 0).nonzero().flatten().tolist()
    return raw.test.pixels[index].numpy()


def refused(root, **options):
    with pytest.raises(DataError) as caught:
        load(root, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("name", "options"), [("x.png", {}), ("x.webp", {"lossless": True})])
def test_a_lossless_image_arrives_bit_for_bit(root, name, options):
    levels = grey_levels(8, 8, 3)
    path = save(root / "test" / "a" / name, levels, **options)
    assert np.array_equal(only(root, path), levels.transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["x.jpg", "x.jpeg", "x.JPG", "x.webp", "größe 1é漢.Png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format_is_what_pil_decodes(root, name, channels):
    path = save(root / "test" / "a" / name)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB" if channels == 3 else "L")).reshape(8, 8, channels)
    assert np.array_equal(only(root, path, channels=channels), expected.transpose(2, 0, 1))


def test_grey_images_become_three_equal_channels(root):
    levels = grey_levels(8, 8)
    pixels = only(root, save(root / "test" / "a" / "x.png", levels))
    assert all(np.array_equal(channel, levels) for channel in pixels)


def test_grey_images_stay_exact_in_one_channel(root):
    levels = grey_levels(8, 8)
    assert np.array_equal(only(root, save(root / "test" / "a" / "x.png", levels), channels=1), levels[None])


def test_an_image_is_turned_as_its_exif_says(root):
    levels = grey_levels(8, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    pixels = only(root, save(root / "test" / "a" / "x.png", levels, exif=exif))
    assert np.array_equal(pixels, np.rot90(levels, -1).transpose(2, 0, 1))


def test_a_palette_is_resolved(root):
    indices = RNG.integers(0, 4, (8, 8), np.uint8)
    colours = grey_levels(4, 3)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(colours.flatten().tolist())
    pixels = only(root, save(root / "test" / "a" / "x.png", image))
    assert np.array_equal(pixels, colours[indices].transpose(2, 0, 1))


def test_a_palette_with_transparency_is_resolved_without_a_warning(root):
    indices = RNG.integers(0, 4, (8, 8), np.uint8)
    colours = grey_levels(4, 3)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(colours.flatten().tolist())
    pixels = only(root, save(root / "test" / "a" / "x.png", image, transparency=bytes([255, 255, 255, 254])))
    assert np.array_equal(pixels[:, indices < 3], colours[indices].transpose(2, 0, 1)[:, indices < 3])


def test_an_opaque_alpha_channel_is_dropped(root):
    levels = grey_levels(8, 8, 4)
    levels[..., 3] = 255
    pixels = only(root, save(root / "test" / "a" / "x.png", levels))
    assert np.array_equal(pixels, levels[..., :3].transpose(2, 0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grey_image_of_16_bits_keeps_its_greys(root, channels):
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    pixels = only(root, save(root / "test" / "a" / "x.png", deep), channels=channels)
    assert np.abs(pixels - deep / 257).max() <= 1


@pytest.mark.parametrize(("mode", "kind"), [("I", "TIFF"), ("F", "TIFF"), ("L", "GIF")])
def test_another_format_behind_the_name_is_refused(root, mode, kind):
    """PIL clips 32 bits at 255, and a number between 0 and 1 is black to it."""
    path = root / "test" / "a" / "x.png"
    save(path, Image.new(mode, (8, 8)), format=kind)
    assert refused(root).startswith(f"{path} cannot be read as an image: cannot identify image file")


def test_size_scales_the_shorter_side_and_crops_the_centre(root):
    image = Image.fromarray(grey_levels(20, 40, 3))
    path = save(root / "test" / "a" / "x.png", image)
    expected = image.resize((10, 10), Image.Resampling.BICUBIC, box=(10, 0, 30, 20))
    assert np.array_equal(only(root, path, size=10), np.asarray(expected).transpose(2, 0, 1))


def test_size_makes_one_shape_of_all(root):
    save(root / "train" / "a" / "wide.png", grey_levels(9, 100, 3))
    save(root / "train" / "b" / "as wide.png", grey_levels(20, 12, 3))
    save(root / "test" / "b" / "small.png", grey_levels(3, 2, 3))
    save(root / "test" / "b" / "as high.png", grey_levels(12, 20, 3))
    raw = load(root, size=12)
    assert raw.train.pixels.shape == (4, 3, 12, 12)
    assert raw.test.pixels.shape == (4, 3, 12, 12)


def test_images_of_the_right_size_are_not_resampled(root):
    levels = grey_levels(8, 8, 3)
    assert np.array_equal(only(root, save(root / "test" / "a" / "x.png", levels), size=8), levels.transpose(2, 0, 1))


def test_types_and_classes(root):
    raw = load(root)
    for images in (raw.train, raw.test):
        assert (images.pixels.dtype, images.labels.dtype) == (torch.uint8, torch.int64)
        assert images.pixels.is_contiguous()
    assert raw.classes == ("a", "b")


def test_labels_follow_the_sorted_class_names(root):
    levels = {"Z": 10, "a": 20, "b": 30, "é": 40}
    for name, level in levels.items():
        for part in ("train", "test"):
            save(root / part / name / "0.png", np.full((8, 8, 3), level, np.uint8))
    raw = load(root)
    assert raw.classes == tuple(sorted(levels))
    for images in (raw.train, raw.test):
        assert {
            int(label): int(pixels[0, 0, 0]) for pixels, label in zip(images.pixels, images.labels, strict=True)
        } == {index: levels[name] for index, name in enumerate(raw.classes)}


def test_a_test_set_may_lack_a_class(root):
    (root / "test" / "a" / "0.png").unlink()
    (root / "test" / "a").rmdir()
    raw = load(root)
    assert raw.test.labels.tolist() == [1]
    assert raw.classes == ("a", "b")


def test_strays_are_ignored(root):
    (root / "train" / "notes.txt").write_text("not a class")
    (root / "train" / ".git").mkdir()
    (root / "train" / "a" / "Thumbs.db").write_bytes(b"\0")
    (root / "train" / "a" / ".hidden.png").write_bytes(b"\0")
    (root / "README").write_text("")
    raw = load(root)
    assert raw.classes == ("a", "b")
    assert len(raw.train) == 2


def test_the_first_images_are_of_several_classes_in_the_same_order_every_time(root, monkeypatch):
    for name, level in (("a", 50), ("b", 150)):
        for index in range(1, 21):
            save(root / "train" / name / f"{index}.png", np.full((8, 8, 3), level + index, np.uint8))
    first = load(root).train
    assert set(first.labels[:8].tolist()) == {0, 1}
    assert not torch.equal(first.labels, first.labels.sort().values)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "another"))
    assert torch.equal(load(root).train.pixels, first.pixels)


def test_the_order_is_what_it_always_was(root):
    """A limit takes the first of it, and verdicts are kept in it."""
    for index in range(10):
        save(root / "train" / "a" / f"{index}.png", np.full((8, 8, 3), index, np.uint8))
    (root / "train" / "b").rename(root / "elsewhere")
    (root / "test" / "b").rename(root / "elsewhere too")
    assert load(root).train.pixels[:, 0, 0, 0].tolist() == [5, 6, 1, 7, 4, 3, 0, 8, 9, 2]


def test_pixels_and_labels_stay_together(root):
    for name, level in (("a", 50), ("b", 150)):
        for index in range(20):
            save(root / "train" / name / f"{index}.png", np.full((8, 8, 3), level, np.uint8))
    train = load(root).train
    assert torch.equal(train.labels, (train.pixels[:, 0, 0, 0] == 150).long())


# ---- what is refused -----------------------------------------------------------------------------------------------


def truncated(path):
    save(path, grey_levels(64, 64, 3))
    path.write_bytes(path.read_bytes()[:700])


def truncated_jpeg(path):
    save(path.with_suffix(".jpg"), grey_levels(64, 64, 3))
    content = path.with_suffix(".jpg").read_bytes()
    path.with_suffix(".jpg").unlink()
    path.write_bytes(content[: len(content) // 2])


DAMAGE = [
    truncated,
    truncated_jpeg,
    lambda path: path.write_text("<!DOCTYPE html><html>404</html>"),
    lambda path: path.write_bytes(b""),
    lambda path: path.mkdir(),
    lambda path: path.symlink_to(path.parent / "gone.png"),
]


@pytest.mark.parametrize("damage", DAMAGE, ids=["truncated", "half a jpeg", "html", "empty", "directory", "dangling"])
def test_an_unreadable_image_is_named(root, damage):
    path = root / "train" / "b" / "broken.png"
    damage(path)
    assert str(path) in refused(root, size=8)


def test_a_damaged_chunk_is_named(root):
    path = save(root / "test" / "a" / "broken.png", grey_levels(16, 16, 3))
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 40] ^= 0xFF
    path.write_bytes(content)
    assert str(path) in refused(root, size=8)


@pytest.mark.parametrize("shape", [(9, 10), (8, 10), (10, 8)])
def test_mixed_sizes_name_the_file_and_the_remedy(root, shape):
    path = save(root / "train" / "b" / "z.png", grey_levels(*shape, 3))
    message = refused(root)
    assert f"{path} is {shape[1]}x{shape[0]}" in message
    assert "is 8x8" in message
    assert "data.size" in message


def test_a_test_set_of_another_size_is_refused(root):
    for path in (root / "test").rglob("*.png"):
        save(path, grey_levels(9, 10, 3))
    message = refused(root)
    assert "train/ has 8x8" in message
    assert "test/ 10x9" in message
    assert "data.size" in message


@pytest.mark.parametrize("shape", [(7, 8), (8, 7), (8, 65), (65, 8)])
def test_images_too_small_or_too_large_are_named(root, shape):
    path = save(root / "train" / "a" / "x.png", grey_levels(*shape, 3))
    (root / "train" / "a" / "0.png").unlink()
    message = refused(root)
    assert f"{path} is {shape[1]}x{shape[0]}; images are 8x8 to 64x64" in message
    assert "data.size" in message


def test_a_class_that_only_test_has_is_named(root):
    save(root / "test" / "zebra" / "0.png")
    message = refused(root)
    assert str(root / "test" / "zebra") in message
    assert "train" in message


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_without_images_is_named(root, part):
    (root / part / "b" / "0.png").unlink()
    (root / part / "b" / "notes.txt").write_text("")
    message = refused(root)
    assert str(root / part / "b") in message
    assert ".webp" in message


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_part_is_named(root, part):
    (root / part).rename(root / "elsewhere")
    assert str(root / part) in refused(root)


def test_a_missing_root_is_named(tmp_path):
    assert str(tmp_path / "gone") in refused(tmp_path / "gone")


def test_a_relative_root_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused("gone").startswith(f"{tmp_path}/gone is not a directory; ")


def test_a_file_s_name_may_be_no_text_and_a_class_s_may_not(root):
    """As archives have them that were packed elsewhere."""
    image = root / "train" / "a" / "0.png"
    image.rename(image.parent / os.fsdecode(b"\xff.png"))
    assert len(load(root).train.labels) == 2
    (root / "train" / "b").rename(root / "train" / os.fsdecode(b"b\xff"))
    assert refused(root).endswith("the name of a class, and not UTF-8")


def test_a_directory_that_cannot_be_read_is_named(root, monkeypatch):
    true = os.scandir

    def closed(place):
        if Path(place).name == "b":
            raise PermissionError(13, "Permission denied", str(place))
        return true(place)

    monkeypatch.setattr(os, "scandir", closed)
    assert refused(root) == f"{root / 'train' / 'b'} cannot be read: Permission denied"


def test_a_root_without_classes_is_named(root):
    for name in ("a", "b"):
        (root / "train" / name / "0.png").rename(root / "train" / f"{name}.png")
        (root / "train" / name).rmdir()
    assert str(root / "train") in refused(root)


# ---- the cache -----------------------------------------------------------------------------------------------------


def no_decoding(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", refuse)


def cached(root):
    return list((root.parent / "cache" / "advmix").rglob("*.safetensors"))


def test_the_second_load_decodes_nothing(root, monkeypatch):
    first = load(root)
    no_decoding(monkeypatch)
    second = load(root)
    assert torch.equal(first.train.pixels, second.train.pixels)
    assert torch.equal(first.test.labels, second.test.labels)


def test_decoding_is_announced_once(root):
    lines = []
    for _ in range(2):
        folder(str(root), size=None, channels=3, say=lines.append)
    assert len(lines) == 2  # train and test, the first time
    assert all("decoding 2 images" in line for line in lines)


def test_a_cache_that_cannot_be_written_is_said_and_costs_no_image(root, monkeypatch):
    expected = load(root)
    (root.parent / "in the way").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "in the way"))
    lines = []
    found = folder(str(root), size=None, channels=3, say=lines.append)
    assert torch.equal(found.train.pixels, expected.train.pixels)
    said = [line for line in lines if line.startswith("warning: ")]
    assert len(said) == 2  # train and test
    assert all(".safetensors: Not a directory; they will be decoded again the next time" in line for line in said)


@pytest.mark.parametrize("change", [{"size": 9}, {"channels": 1}])
def test_other_settings_are_cached_apart(root, change):
    before = load(root)
    other = load(root, **change)
    assert other.train.pixels.shape != before.train.pixels.shape
    assert torch.equal(load(root).train.pixels, before.train.pixels)


def test_a_changed_image_is_decoded_again(root):
    before = load(root)
    path = root / "train" / "a" / "0.png"
    status = path.stat()
    save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after = load(root)
    assert not torch.equal(before.train.pixels, after.train.pixels)
    assert torch.equal(before.test.pixels, after.test.pixels)


def test_an_image_that_is_overwritten_and_given_its_old_time_is_decoded_again(root):
    path = save(root / "train" / "a" / "0.png", np.full((8, 8, 3), 10, np.uint8), compress_level=0)
    before, status = load(root), path.stat()
    save(path, np.full((8, 8, 3), 200, np.uint8), compress_level=0)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    now = path.stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (status.st_size, status.st_mtime_ns, status.st_ino)
    assert not torch.equal(load(root).train.pixels, before.train.pixels)


@pytest.mark.parametrize("change", ["added", "removed", "renamed to another class"])
def test_another_set_of_files_is_decoded_again(root, change):
    save(root / "train" / "a" / "1.png")
    before = load(root)
    if change == "added":
        save(root / "train" / "b" / "1.png")
    elif change == "removed":
        (root / "train" / "a" / "1.png").unlink()
    else:
        (root / "train" / "a" / "1.png").rename(root / "train" / "b" / "1.png")
    counts = {"added": [2, 2], "removed": [1, 1], "renamed to another class": [1, 2]}[change]
    assert torch.bincount(before.train.labels).tolist() == [2, 1]
    assert torch.bincount(load(root).train.labels).tolist() == counts


@pytest.mark.parametrize("change", ["added", "removed"])
def test_labels_are_those_of_the_classes_that_are_there_now(root, change):
    """A class that has no test images changes the numbers of those that have."""
    more = root / "train" / "Z"  # before a and b
    if change == "removed":
        save(more / "0.png")
    before = load(root)
    if change == "removed":
        (more / "0.png").unlink()
        more.rmdir()
    else:
        save(more / "0.png")
    numbers = {"added": ([0, 1], [1, 2]), "removed": ([1, 2], [0, 1])}[change]
    assert (sorted(before.test.labels.tolist()), sorted(load(root).test.labels.tolist())) == numbers


def test_two_images_of_one_size_and_time_that_change_places_are_noticed(root):
    """As those of an archive are, that all have its time."""
    paths = [root / "test" / name / "0.png" for name in ("a", "b")]
    for path, level in zip(paths, (10, 200), strict=True):
        save(path, np.full((8, 8, 3), level, np.uint8), compress_level=0)
        os.utime(path, ns=(0, 0))
    assert len({(path.stat().st_size, path.stat().st_mtime_ns) for path in paths}) == 1

    def level_of_a():
        raw = load(root)
        return int(raw.test.pixels[raw.test.labels == 0].unique())

    assert level_of_a() == 10
    for before, after in (("a", "x"), ("b", "a"), ("x", "b")):
        (root / "test" / before).rename(root / "test" / after)
    assert level_of_a() == 200


def test_the_same_names_elsewhere_are_other_images(root, tmp_path):
    before = load(root)
    for path in root.rglob("*.png"):
        copy = save(tmp_path / "copy" / path.relative_to(root), np.zeros((8, 8, 3), np.uint8))
        os.utime(copy, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    assert not torch.equal(load(tmp_path / "copy").train.pixels, before.train.pixels)


@pytest.mark.parametrize(
    "damaged",
    [
        lambda _: b"",
        lambda _: b"not safetensors",
        lambda content: content[:-5],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content.replace(b"sha256", b"sha257"),
    ],
    ids=["empty", "foreign", "truncated", "one bit", "another checksum"],
)
def test_a_damaged_cache_is_rebuilt(root, monkeypatch, damaged):
    before = load(root)
    files = cached(root)
    assert len(files) == 2
    for file in files:
        file.write_bytes(damaged(file.read_bytes()))
    after = load(root)
    assert torch.equal(before.train.pixels, after.train.pixels)
    no_decoding(monkeypatch)
    assert torch.equal(load(root).train.pixels, before.train.pixels)


def test_nothing_is_cached_of_a_refused_folder(root):
    (root / "train" / "b" / "broken.png").write_bytes(b"")
    refused(root)
    assert cached(root) == []


def test_images_are_only_read(root):
    before = {path: path.stat().st_mtime_ns for path in Path(root).rglob("*")}
    load(root)
    assert {path: path.stat().st_mtime_ns for path in Path(root).rglob("*")} == before


def test_a_pipe_is_no_image_and_is_not_waited_for(root):
    os.mkfifo(root / "train" / "b" / "pipe.png")
    assert "cannot be read as an image: it is no file" in refused(root)


def test_after_a_broken_image_the_rest_is_not_decoded(root, monkeypatch):
    """Nor after a Ctrl-C, which could not end the program otherwise."""
    from advmix_cli.data import folder

    decoded = []

    def decode(path, *_):
        decoded.append(path)
        time.sleep(0.01)
        raise KeyboardInterrupt

    for number in range(500):
        save(root / "train" / "b" / f"more{number}.png", np.full((8, 8, 3), number % 256, np.uint8))
    monkeypatch.setattr(folder, "_decode", decode)
    with pytest.raises(KeyboardInterrupt):
        load(root)
    assert len(decoded) < 250
