"""PreAct-ResNet: four stages that double the channels, PyTorch's own initialisation.

11,172,170 parameters at depth 18, width 64, 3 channels and 10 classes; 11,218,340 with 100 classes.
"""

from advmix_cli.networks.normalize import Normalize
from advmix_cli.networks.preactivation import PreActivationNetwork

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def preact_resnet(normalize: Normalize, *, depth: int, width: int, channels: int, classes: int) -> PreActivationNetwork:
    """`depth` 10, 18 or 34; `width` channels in the first stage, 8 times as many in the last."""
    stages = [(width * 2**stage, blocks) for stage, blocks in enumerate(BLOCKS[depth])]
    return PreActivationNetwork(normalize, width, stages, channels=channels, classes=classes)
