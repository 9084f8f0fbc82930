"""Digits as scikit-learn has them; torchvision's datasets found in torchvision's layout, or an error that helps."""

import hashlib
import pickle
import urllib.error

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

from advmix_cli.data import sources
from advmix_cli.errors import DataError


def rows(images):
    return sorted((int(label), *pixels.flatten().tolist()) for pixels, label in zip(*images, strict=True))


def test_digits_are_all_of_scikit_learns_split_in_two():
    raw = sources.digits()
    assert raw.train.pixels.shape == (1500, 1, 8, 8)
    assert raw.test.pixels.shape == (297, 1, 8, 8)
    levels, labels = load_digits(return_X_y=True)
    exact = [round(level * 255 / 16) for level in range(17)]
    expected = sorted((int(y), *(exact[int(level)] for level in x)) for x, y in zip(levels, labels, strict=True))
    ours = rows((raw.train.pixels, raw.train.labels)) + rows((raw.test.pixels, raw.test.labels))
    assert sorted(ours) == expected


def test_digits_have_the_types_of_images():
    raw = sources.digits()
    for images in (raw.train, raw.test):
        assert (images.pixels.dtype, images.labels.dtype) == (torch.uint8, torch.int64)
        assert images.pixels.is_contiguous()
    assert raw.classes == tuple("0123456789")


def test_digits_test_set_is_stratified():
    raw = sources.digits()
    test, train = (torch.bincount(images.labels, minlength=10).double() for images in (raw.test, raw.train))
    assert ((test - (test + train) * 297 / 1797).abs() < 1).all()


def test_digits_are_split_the_same_every_time():
    np.random.seed(3)
    first = sources.digits()
    np.random.seed(4)
    second = sources.digits()
    assert torch.equal(first.train.pixels, second.train.pixels)
    assert torch.equal(first.test.labels, second.test.labels)


@pytest.fixture
def offline(monkeypatch):
    """Every download fails as it does without a network; returns the addresses that were asked for."""
    asked = []

    def refuse(request, *_args, **_kwargs):
        asked.append(getattr(request, "full_url", request))
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return asked


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


def fake_cifar(root, kind, monkeypatch):
    """Random images in the layout of the download, with checksums that fit; (pixels, labels) of train and test."""
    rng = np.random.default_rng(0)
    place = root / kind.base_folder
    key, count = ("labels", 10) if kind is CIFAR10 else ("fine_labels", 100)
    parts = {}
    for part, names in (("train_list", kind.train_list), ("test_list", kind.test_list)):
        batches = [(rng.integers(0, 256, (4, 3072), np.uint8), rng.integers(0, count, 4).tolist()) for _ in names]
        sums = [
            write_pickle(place / name, {"data": pixels, key: labels})
            for (name, _), (pixels, labels) in zip(names, batches, strict=True)
        ]
        monkeypatch.setattr(kind, part, sums)
        parts[part] = (np.concatenate([p for p, _ in batches]), [label for _, own in batches for label in own])
    names = [f"class {index}" for index in range(count)]
    name, md5 = write_pickle(place / kind.meta["filename"], {kind.meta["key"]: names})
    monkeypatch.setattr(kind, "meta", {"filename": name, "key": kind.meta["key"], "md5": md5})
    return parts


CIFARS = [(CIFAR10, sources.cifar10, 10), (CIFAR100, sources.cifar100, 100)]


@pytest.mark.parametrize(("kind", "load", "classes"), CIFARS)
def test_a_cifar_that_is_there_is_read_without_a_download(tmp_path, monkeypatch, offline, kind, load, classes):
    parts = fake_cifar(tmp_path, kind, monkeypatch)
    raw = load(str(tmp_path))
    for images, part in ((raw.train, "train_list"), (raw.test, "test_list")):
        pixels, labels = parts[part]
        # The file holds an image as its red, then its green, then its blue plane.
        assert np.array_equal(images.pixels.numpy(), pixels.reshape(-1, 3, 32, 32))
        assert images.pixels.is_contiguous()
        assert images.labels.tolist() == labels
        assert images.labels.dtype == torch.int64
    assert raw.classes == tuple(f"class {index}" for index in range(classes))
    assert offline == []


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def fake_fashion_mnist(root):
    rng = np.random.default_rng(1)
    place = root / "FashionMNIST" / "raw"
    place.mkdir(parents=True)
    parts = {}
    for name, count in (("train", 6), ("t10k", 3)):
        parts[name] = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        (place / f"{name}-images-idx3-ubyte").write_bytes(idx(parts[name][0]))
        (place / f"{name}-labels-idx1-ubyte").write_bytes(idx(parts[name][1]))
    return parts


def test_fashion_mnist_that_is_there_is_read_without_a_download(tmp_path, offline):
    parts = fake_fashion_mnist(tmp_path)
    raw = sources.fashion_mnist(str(tmp_path))
    for images, name in ((raw.train, "train"), (raw.test, "t10k")):
        assert np.array_equal(images.pixels.numpy(), parts[name][0][:, None])
        assert images.labels.tolist() == parts[name][1].tolist()
        assert images.labels.dtype == torch.int64
    assert raw.classes == tuple(FashionMNIST.classes)
    assert offline == []


def helpful(error, name, place, reason):
    """One line that says what, where and why, and one that says what to do."""
    first, second = str(error).splitlines()
    assert f"dataset {name} " in first
    assert str(place) in first
    assert reason in first
    assert "--set 'data.root=" in second
    return True


LOADERS = [("cifar10", sources.cifar10), ("cifar100", sources.cifar100), ("fashion-mnist", sources.fashion_mnist)]


@pytest.mark.parametrize(("name", "load"), LOADERS)
def test_a_missing_dataset_without_a_network_says_where_and_what_to_do(tmp_path, offline, capsys, name, load):
    with pytest.raises(DataError) as caught:
        load(str(tmp_path / "nowhere"))
    assert helpful(caught.value, name, tmp_path / "nowhere", "no network here")
    assert caught.value.exit_code == 2
    assert offline
    assert capsys.readouterr().out == ""  # --json promises one document and nothing else


def test_without_a_root_the_users_data_directory_is_meant(tmp_path, offline):
    with pytest.raises(DataError, match="datasets") as caught:
        sources.cifar10(None)
    assert str(tmp_path / "share" / "advmix" / "datasets") in str(caught.value)
    assert offline


@pytest.mark.parametrize(("kind", "load", "_classes"), CIFARS)
@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_damaged_cifar_is_refused(tmp_path, monkeypatch, offline, kind, load, _classes, damage):
    fake_cifar(tmp_path, kind, monkeypatch)
    file = tmp_path / kind.base_folder / kind.train_list[-1][0]
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[:5000])
    elif damage == "changed":
        content[6000] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    with pytest.raises(DataError) as caught:
        load(str(tmp_path))
    name = "cifar10" if kind is CIFAR10 else "cifar100"
    assert helpful(caught.value, name, tmp_path, "no network here")
    assert offline


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("length", [0, 6, -1])
def test_a_half_written_fashion_mnist_is_refused(tmp_path, file, length):
    fake_fashion_mnist(tmp_path)
    path = tmp_path / "FashionMNIST" / "raw" / file
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError) as caught:
        sources.fashion_mnist(str(tmp_path))
    assert helpful(caught.value, "fashion-mnist", tmp_path, "")


@pytest.mark.usefixtures("offline")
def test_a_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file"):
        sources.cifar10(str(tmp_path / "file"))
