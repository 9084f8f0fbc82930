"""Where images come from: scikit-learn's digits, and torchvision's datasets in torchvision's own layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from platformdirs import user_data_path

from advmix_cli.data.images import Images, Raw
from advmix_cli.errors import DataError

DIGITS_TEST = 297
DIGITS_SEED = 0


def digits() -> Raw:
    """scikit-learn's 1,797 real 8x8 images of digits with 17 grey levels, of which 297, stratified, are for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    levels = (pixels.reshape(-1, 1, 8, 8) * 255 / 16).round().astype(np.uint8)
    parts = train_test_split(levels, labels, test_size=DIGITS_TEST, random_state=DIGITS_SEED, stratify=labels)
    train_pixels, test_pixels, train_labels, test_labels = (torch.from_numpy(np.ascontiguousarray(p)) for p in parts)
    return Raw(
        Images(train_pixels, train_labels.long()),
        Images(test_pixels, test_labels.long()),
        tuple(str(digit) for digit in range(10)),
    )


def cifar10(root: str | None) -> Raw:
    """CIFAR-10: ROOT/cifar-10-batches-py."""
    from torchvision.datasets import CIFAR10

    return _torchvision(CIFAR10, root, "cifar10")


def cifar100(root: str | None) -> Raw:
    """CIFAR-100: ROOT/cifar-100-python."""
    from torchvision.datasets import CIFAR100

    return _torchvision(CIFAR100, root, "cifar100")


def fashion_mnist(root: str | None) -> Raw:
    """Fashion-MNIST: ROOT/FashionMNIST/raw."""
    from torchvision.datasets import FashionMNIST

    return _torchvision(FashionMNIST, root, "fashion-mnist")


class _Loaded(Protocol):
    data: Any
    targets: Any
    classes: list[str]


def _torchvision(dataset: Callable[..., _Loaded], root: str | None, name: str) -> Raw:
    """torchvision downloads what is missing and checks the checksums of what it downloads and of CIFAR's files."""
    place = Path(root).expanduser() if root else user_data_path("advmix") / "datasets"
    try:
        place.mkdir(parents=True, exist_ok=True)
        parts = [dataset(str(place), train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError, EOFError, ValueError, TypeError, LookupError, AssertionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"the dataset {name} is not whole in {place}, and it could not be downloaded there: {reason}\n"
            f"download it where there is a network, or name its directory: --set 'data.root=\"DIR\"'"
        ) from None
    images = [Images(_channels_first(part.data), torch.as_tensor(part.targets).long()) for part in parts]
    return Raw(images[0], images[1], tuple(str(label) for label in parts[0].classes))


def _channels_first(data: Any) -> torch.Tensor:
    """numpy (N, H, W, C) or torch (N, H, W), uint8 -> (N, C, H, W)."""
    pixels = torch.as_tensor(data)
    return pixels.unsqueeze(1) if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2).contiguous()
