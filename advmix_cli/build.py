"""Recipe -> objects."""

from advmix_cli.builders.devices import arithmetic, device, kind_of, named_device
from advmix_cli.builders.evaluators import evaluator, pgd, validator
from advmix_cli.builders.images import dataset, outline
from advmix_cli.builders.loop import average, optimizer, schedule, share, training
from advmix_cli.builders.method import maximizer, sampler
from advmix_cli.builders.networks import foreign_network, network, new_network, saved_network

__all__ = [
    "arithmetic",
    "average",
    "dataset",
    "device",
    "evaluator",
    "foreign_network",
    "kind_of",
    "maximizer",
    "named_device",
    "network",
    "new_network",
    "optimizer",
    "outline",
    "pgd",
    "sampler",
    "saved_network",
    "schedule",
    "share",
    "training",
    "validator",
]
