"""Networks: a new one, that of a checkpoint, one of others."""

from typing import assert_never

import torch
from torch import nn

from advmix_cli import checkpoint
from advmix_cli.data.images import Dataset
from advmix_cli.errors import CheckpointError
from advmix_cli.networks.batch_norm import shared_batch_norm
from advmix_cli.networks.normalize import Normalize, on_pixels
from advmix_cli.networks.preact_resnet import preact_resnet
from advmix_cli.networks.wide_resnet import wide_resnet
from advmix_cli.ranks.team import ALONE, Team
from advmix_cli.recipe import schema
from advmix_cli.recipe.measurement import Measurement, Measuring
from advmix_cli.recipe.schema import Recipe
from advmix_cli.seeding import derive


def network(recipe: Recipe, normalize: Normalize, *, channels: int, classes: int) -> nn.Module:
    """A new network on the CPU; its weights follow from the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(recipe.seed, "weights"))
        model = recipe.model
        match model:
            case schema.PreActResNetModel():
                make = preact_resnet
            case schema.WideResNetModel():
                make = wide_resnet
            case _:
                assert_never(model)
        return make(normalize, depth=model.depth, width=model.width, channels=channels, classes=classes)


def new_network(recipe: Recipe, images: Dataset, place: torch.device, team: Team = ALONE) -> nn.Module:
    """The network that the recipe trains, on `place`, normalising with the statistics of the training images; that of
    the first rank, on all of `team`."""
    channels = images.train.pixels.shape[1]
    made = network(recipe, Normalize(images.mean, images.std), channels=channels, classes=len(images.classes))
    if team.world > 1:
        for value in made.state_dict().values():
            team.spread(value)  # a CPU of another kind draws other last bits
        if recipe.engine.batch_norm == "synchronised":
            made = shared_batch_norm(made, team.stacked, team.total, on_gpu=place.type == "cuda")
    return _placed(made, recipe, place)


def saved_network(saved: checkpoint.Checkpoint, place: torch.device) -> nn.Module:
    """The network of a checkpoint, on `place`; CheckpointError lists parameters that are missing, too many, or of
    another shape."""
    channels = saved.image_shape[0]

    def blank() -> nn.Module:
        normalize = Normalize([0.0] * channels, [1.0] * channels)
        return network(saved.recipe, normalize, channels=channels, classes=len(saved.classes))

    try:
        with torch.device("meta"):  # a recipe can claim a network of any size: first without its memory
            claimed = blank()
            types = {name: value.dtype for name, value in claimed.state_dict().items()}
            claimed.load_state_dict(saved.state, strict=True, assign=True)
        wrong = [name for name, value in saved.state.items() if value.dtype != types[name]]
        if wrong:
            raise RuntimeError(f"{', '.join(wrong[:5])} of another type")
        made = blank()
        made.load_state_dict(saved.state, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit its recipe's network: {error}") from None
    return _placed(made, saved.recipe, place)


def foreign_network(chosen: Measurement, module: nn.Module, place: torch.device) -> nn.Module:
    """`module` on `place`, behind what makes pixels in [0, 1] what it takes."""
    model = chosen.model
    return _placed(on_pixels(module, model.input_range, model.statistics), chosen, place)


def _placed(made: nn.Module, recipe: Measuring, place: torch.device) -> nn.Module:
    layout = torch.channels_last if recipe.engine.channels_last else torch.contiguous_format
    return made.to(place).to(memory_format=layout)  # pyright: ignore[reportCallIssue] (torch's stub lacks this form)
