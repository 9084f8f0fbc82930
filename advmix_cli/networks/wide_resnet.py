"""Wide ResNet (Zagoruyko and Komodakis, 2016) without dropout: three stages, `width` times as wide as a ResNet's.

46,160,474 parameters at depth 34, width 10, 3 channels and 10 classes; 46,218,164 with 100 classes.
"""

from torch import nn

from advmix_cli.networks.normalize import Normalize
from advmix_cli.networks.preactivation import PreActivationNetwork


def wide_resnet(normalize: Normalize, *, depth: int, width: int, channels: int, classes: int) -> PreActivationNetwork:
    """`depth` 6n + 4; initialised as the original: convolutions by Kaiming's fan-out, the last bias zero."""
    stages = [(16 * width * 2**stage, (depth - 4) // 6) for stage in range(3)]
    network = PreActivationNetwork(normalize, 16, stages, channels=channels, classes=classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(network.linear.bias)
    return network
