"""The pre-activation residual network (He et al., 2016) that PreAct-ResNet and Wide ResNet are two shapes of.

In the form that adversarial-training code uses: where the number of channels changes, the shortcut branches off after
the first batch norm and ReLU; a batch norm and a ReLU stand before the pool.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from advmix_cli.networks.normalize import Normalize

NARROW = 8
"""Channels that fill a vector of AVX2. Of fewer, and channels_last, oneDNN's gradient in the weights of a 1x1
convolution with a stride is wrong on CPUs without AVX-512, and written beyond its memory: its issue 6035."""


class Thinned(nn.Conv2d):
    """A 1x1 convolution with a stride, as one without it of the pixels that it looks at."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        down, right = self.stride
        return F.conv2d(input[..., ::down, ::right], self.weight, self.bias)


class Block(nn.Module):
    """BN, ReLU, conv, BN, ReLU, conv, plus the input itself or a 1x1 conv of its activation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        kind = Thinned if stride > 1 and inputs < NARROW else nn.Conv2d
        self.shortcut = kind(inputs, outputs, 1, stride=stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.bn1(x).relu()
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(self.bn2(self.conv1(active)).relu()) + shortcut


class PreActivationNetwork(nn.Module):
    """(B, channels, H, W) in [0, 1] -> logits (B, classes).

    `stem`: channels of the first convolution. `stages`: (channels, blocks) of each; all but the first halve H and W.
    """

    def __init__(
        self, normalize: Normalize, stem: int, stages: Sequence[tuple[int, int]], *, channels: int, classes: int
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.conv = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        inputs = stem
        self.ends = [0]
        """How many blocks there are in no stage, in the first, in the first two, ..."""
        for stage, (outputs, count) in enumerate(stages):
            for index in range(count):
                blocks.append(Block(inputs, outputs, stride=2 if stage and not index else 1))
                inputs = outputs
            self.ends.append(len(blocks))
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self._classified(self.blocks(self.conv(self.normalize(x))))

    def head(self, x: Tensor, stages: int) -> Tensor:
        """The first convolution and so many stages: images -> the hidden state (B, channels, H, W) that the last block
        of the last of these stages gives, before the next batch norm."""
        return self.blocks[: self.ends[stages]](self.conv(self.normalize(x)))

    def tail(self, hidden: Tensor, stages: int) -> Tensor:
        """What comes after so many stages: `forward(x)` is `tail(head(x, stages), stages)`."""
        return self._classified(self.blocks[self.ends[stages] :](hidden))

    def _classified(self, features: Tensor) -> Tensor:
        return self.linear(self.bn(features).relu().mean(dim=(2, 3)))
