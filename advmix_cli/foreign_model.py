"""A network of others on the road of our own: made, given its weights, looked at, and ready to be measured."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from advmix_cli import build, checkpoint, factories, seals
from advmix_cli.data.images import Dataset, Images, to_unit
from advmix_cli.errors import DataError, EvaluationError, ForeignModelError, first_line, some
from advmix_cli.evaluation.predict import check_finite, measured
from advmix_cli.evaluation.suspicions import LOOKED_AT, of_the_accuracy, suspicions
from advmix_cli.measure.findings import Known
from advmix_cli.networks.normalize import on_pixels
from advmix_cli.recipe import schema
from advmix_cli.recipe.measurement import ForeignModel, Measurement
from advmix_cli.report.progress import Watcher
from advmix_cli.tensors import digest, on_cpu

GUESSED_AT = 200
"""Images whose accuracy tells whether the network is given what it takes."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Foreign:
    """`weights` is the digest of the module's own state; `suspicions` are sentences."""

    network: nn.Module
    images: Dataset
    weights: str
    suspicions: tuple[str, ...]
    computes: str
    """The digest of its code's files and of what it finds in the first images."""

    def described(self, chosen: Measurement) -> str:
        """The digest of what `chosen` says of it: two networks can have the same weights."""
        model = chosen.model
        place, _, name = model.factory.rpartition(":")
        code = str(Path(place).resolve()) if place.endswith(".py") else place
        return seals.digest(json.dumps({**model.model_dump(mode="json"), "factory": f"{code}:{name}"}))

    def known(self) -> Known:
        """By its weights and by what it computes: its code can change where its weights do not."""
        return Known(seals.digest(json.dumps([self.weights, self.computes])), self.images.fingerprints())


def prepared(chosen: Measurement, file: Path | None, place: torch.device, watch: Watcher) -> Foreign:
    """The network of `chosen` with the weights in `file` (or those that its factory gives it), and its images, on
    `place`. ForeignModelError if what would be measured is not what it seems."""
    model = chosen.model
    made = factories.make(model.factory, model.args)
    if lazy := [name for name, value in made.module.named_parameters() if is_lazy(value)]:
        raise ForeignModelError(
            f"{model.factory}: parameters without a shape before the first image ({some(lazy)}): let the factory show "
            "it one"
        )
    module, types = made.module, _other_types(made.module.state_dict())
    if file is not None:
        _, state = checkpoint.read_tensors(path := checkpoint.find(file))
        factories.load(module, state, str(path))
        types |= _other_types(state)
    weights = digest(on_cpu(module.state_dict()))
    said = [f"its parameters are {' and '.join(sorted(types))}; it is measured in float32"] if types else []

    build.arithmetic(chosen)
    images = build.dataset(chosen, place, watch.say)
    _raise_if_other_channels(model, images)
    try:
        network = build.foreign_network(chosen, module.float(), place)
    except Exception as error:
        raise ForeignModelError(f"{model.factory}: cannot be moved to {place}: {first_line(error)}") from error
    seen = images.part(chosen.evaluators[0].split)
    try:
        check_finite(module.state_dict())  # by the names that it has for them
        with measured(network):
            said += _looked_at(chosen, network, module, seen, images)
            computes = _digest_of_logits(network, seen)
    except (ForeignModelError, EvaluationError) as error:
        raise ForeignModelError(f"{model.factory}: {error}") from error
    return Foreign(network, images, weights, tuple(said), seals.digest(json.dumps([made.source, computes])))


def _looked_at(chosen: Measurement, network: nn.Module, module: nn.Module, seen: Images, images: Dataset) -> list[str]:
    attackers = [one for one in chosen.evaluators if not isinstance(one, schema.PristineEvaluator)]
    averaged = all(isinstance(one, schema.AutoAttackEvaluator) and one.version == "rand" for one in attackers)
    classes = images.classes
    said = suspicions(network, module, seen, len(classes), attacked=bool(attackers), averaged=averaged)
    others = {
        flags: on_pixels(module, *convention).to(seen.pixels.device).eval()
        for flags, convention in _conventions(images).items()
    }
    return [*said, *of_the_accuracy(network, others, seen.first(GUESSED_AT), classes)]


Convention = tuple[tuple[float, float], tuple[tuple[float, ...], tuple[float, ...]] | None]
"""What black and white are, then mean and standard deviation."""


def _conventions(images: Dataset) -> dict[str, Convention]:
    """What the field's networks take, each by its flags."""
    mean, std = (tuple(round(value, 4) for value in values) for values in (images.mean, images.std))
    found: dict[str, Convention] = {
        "neither --input-range nor --normalize": ((0.0, 1.0), None),
        "--input-range=-1,1 alone": ((-1.0, 1.0), None),
        "--input-range 0,255 alone": ((0.0, 255.0), None),
    }
    for statistics in [(mean, std), *([IMAGENET] if len(mean) == 3 else [])]:
        flag = "/".join(",".join(map(str, of)) for of in statistics)
        found[f"--normalize {flag} alone"] = ((0.0, 1.0), statistics)
    return found


def _raise_if_other_channels(model: ForeignModel, images: Dataset) -> None:
    channels = images.image_shape[0]
    if model.normalize and len(model.normalize.mean) not in (1, channels):
        raise DataError(f"--normalize has {len(model.normalize.mean)} channels, and the images have {channels}")


def _other_types(state: dict[str, Tensor]) -> set[str]:
    """Of what is not float32, though it is floating-point."""
    types = {value.dtype for value in state.values() if value.is_floating_point()}
    return {str(one).removeprefix("torch.") for one in types - {torch.float32}}


@torch.no_grad()
def _digest_of_logits(network: nn.Module, seen: Images) -> str:
    return digest(on_cpu({"logits": network(to_unit(seen.pixels[:LOOKED_AT]))}))
