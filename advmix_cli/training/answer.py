"""What a network says of what it is asked: images, or pairs of them that it mixes within."""

from torch import Tensor, nn

from advmix_cli.method.maximizers import Asked
from advmix_cli.method.mixing import Mixture, interpolate
from advmix_cli.networks.preactivation import PreActivationNetwork


def answer(network: nn.Module, x: Asked) -> Tensor:
    """Logits (B, K). The images of a pair go through the first stages one batch after the other, so that batch
    statistics are those of all that come first, or second: at λ = 1 the answer is the one to the first alone, bit for
    bit. Interpolated is in the precision of λ."""
    if not isinstance(x, Mixture):
        return network(x)
    assert isinstance(network, PreActivationNetwork)
    left, right = (network.head(images, x.stages).to(x.ratio.dtype) for images in (x.left, x.right))
    return network.tail(interpolate(left, right, x.ratio), x.stages)
