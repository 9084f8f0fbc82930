"""Verdicts in a safetensors file: `clean` and `broken_by`, `margin` and `labels` of each image, and what they are of.

The metadata's `advmix` is one value of JSON with its own checksum and those of the tensors.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from advmix_cli import tensors
from advmix_cli.data.images import PARTS, to_unit
from advmix_cli.errors import RunDirectoryError
from advmix_cli.evaluation.outcome import Evaluated, Outcome
from advmix_cli.evaluation.verdicts import NOTHING, Verdicts
from advmix_cli.files import write_atomically
from advmix_cli.seals import sealed, unsealed

ADVERSARIAL = "adversarial"
"""Beside a checkpoint: what `advmix eval --save-adversarial` keeps."""
SCHEMA = 1


@dataclass(frozen=True)
class Record:
    """`found`, of the network whose `weights` have this digest, on the first images of a split whose fingerprint is
    `images`, which has these `classes`."""

    found: Evaluated
    weights: str
    images: str
    classes: tuple[str, ...]
    selection: str = ""
    """How the weights were chosen: "last", "best on test", ...; nothing is known of those of others."""
    network: str = ""
    """Of a network of others the digest of what was said of it: two can have the same weights."""

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all. Adversarial images are stored as uint8 where that changes no bit of
        them, and as float32 otherwise."""
        verdicts = self.found.verdicts
        values = self.found.tensors()
        more = {} if verdicts.images is None else {"images": _smallest(verdicts.images)}
        about = {
            "schema": SCHEMA,
            "weights": self.weights,
            "images": self.images,
            "classes": list(self.classes),
            "selection": self.selection,
            "network": self.network,
            "attacks": list(verdicts.attacks),
            "outcome": self.found.outcome.to_json(),
            "adversarial": tensors.digest(more),
        }
        write_atomically(path, save(values | more, {"format": "pt", "advmix": json.dumps(sealed(about))}))


def place(directory: Path, evaluator: str, epoch: int | None, weights: str) -> Path:
    """The file of an evaluator's verdicts on the weights with this digest, of `epoch` if that is known."""
    of_epoch = "" if epoch is None else f"epoch {epoch} "
    return directory / f"{evaluator} {of_epoch}{weights[:8]}.safetensors"


def is_named(path: Path) -> bool:
    """It has a name as `place` gives them."""
    return bool(re.search(r" [0-9a-f]{8}$", path.stem))


def is_misnamed(path: Path, record: Record) -> bool:
    """It has a name as `place` gives them, and that of another evaluator or of other weights: files were exchanged."""
    return is_named(path) and not (
        path.name.startswith(f"{record.found.outcome.name} ") and path.stem.endswith(f" {record.weights[:8]}")
    )


def load(path: Path) -> Record:
    """RunDirectoryError for what is no whole file of verdicts, from an OSError if the disk does not give it."""
    try:
        metadata, values = tensors.read(path)
        about = unsealed(json.loads(metadata["advmix"]))
        if "recipe" in about:
            raise ValueError("it is a checkpoint; name its run directory, or what `advmix eval --save` kept")
        if type(about["schema"]) is not int or about["schema"] != SCHEMA:
            raise ValueError(f"it has schema {about['schema']!r}, and this version reads {SCHEMA}")
        images = {name: values.pop(name) for name in ("images",) if name in values}
        if tensors.digest(images) != about["adversarial"]:
            raise ValueError("its images are not those that were written")
        outcome = Outcome.from_json(about["outcome"])
        _check_settings(outcome.settings, attacked=bool(images))
        if not all(isinstance(about[name], list) for name in ("attacks", "classes")):
            raise ValueError("its attacks and classes are no lists")
        return Record(
            _measurement(outcome, tuple(map(str, about["attacks"])), values, images.get("images")),
            str(about["weights"]),
            str(about["images"]),
            tuple(map(str, about["classes"])),
            str(about.get("selection", "")),
            str(about.get("network", "")),
        )
    except OSError as error:
        raise RunDirectoryError(f"{path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RunDirectoryError(f"{path}: not a whole file of verdicts: {error!s:.200}") from None


def _check_settings(settings: Mapping[str, Any], *, attacked: bool) -> None:
    """ValueError for those that no evaluator has; one whose images were `attacked` has an epsilon."""
    if settings.get("split") not in PARTS:
        raise ValueError("it is of no split of a dataset")
    epsilon = settings.get("epsilon", None if attacked else 0.0)
    if not isinstance(epsilon, float) or not 0 <= epsilon <= 1:
        raise ValueError("its epsilon is not in [0, 1]")


def _measurement(
    outcome: Outcome, attacks: tuple[str, ...], values: dict[str, Tensor], images: Tensor | None
) -> Evaluated:
    kinds = {"clean": torch.bool, "broken_by": torch.int8, "margin": torch.float32, "labels": torch.int64}
    if {name: (value.dtype, tuple(value.shape)) for name, value in values.items()} != {
        name: (kind, (outcome.n,)) for name, kind in kinds.items()
    }:
        raise ValueError(f"it does not hold {', '.join(kinds)} of {outcome.n} images")
    if not bool(((values["broken_by"] >= NOTHING) & (values["broken_by"] < len(attacks))).all()):
        raise ValueError("an image was broken by no attack that is named")
    if images is not None:
        if images.dim() != 4 or len(images) != outcome.n or images.dtype not in (torch.uint8, torch.float32):
            raise ValueError("its images are not one for each verdict")
        images = to_unit(images) if images.dtype == torch.uint8 else images
    labels = values.pop("labels")
    found = Evaluated(outcome, Verdicts(attacks, **values, images=images), labels)
    if tensors.digest(found.tensors()) != outcome.verdicts or found.verdicts.broken() != outcome.broken:
        raise ValueError("its verdicts are not those that were written")
    return found


def _smallest(images: Tensor) -> Tensor:
    rounded = (images * 255).round().clamp(0, 255).to(torch.uint8)
    return rounded if torch.equal(to_unit(rounded), images) else images
