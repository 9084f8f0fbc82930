"""Pixel normalisation is the network's first layer, and part of its state but not of what is trained."""

import pytest
import torch
from torch import nn

from advmix_cli.networks.normalize import Normalize
from advmix_cli.networks.preact_resnet import preact_resnet
from advmix_cli.networks.wide_resnet import wide_resnet


def test_each_channel_has_its_own_mean_and_std():
    x = torch.rand(2, 3, 4, 5)
    normalized = Normalize([0.1, 0.2, 0.3], [0.5, 0.25, 2.0])(x)
    for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 0.25), (0.3, 2.0)]):
        torch.testing.assert_close(normalized[:, channel], (x[:, channel] - mean) / std)


@pytest.mark.parametrize("make", [preact_resnet, wide_resnet])
def test_the_network_sees_normalised_pixels(make):
    network = make(Normalize([0.4], [0.2]), depth=10, width=1, channels=1, classes=3).eval()
    x = torch.rand(2, 1, 8, 8)
    order = []
    for name, module in network.named_modules():
        if not list(module.children()) and not isinstance(module, nn.Sequential):
            module.register_forward_hook(lambda *_, name=name: order.append(name))
    logits = network(x)
    assert order[:2] == ["normalize", "conv"]
    network.normalize = Normalize([0.0], [1.0])
    torch.testing.assert_close(logits, network((x - 0.4) / 0.2))


def test_the_statistics_are_saved_but_not_trained():
    network = preact_resnet(Normalize([0.4], [0.2]), depth=10, width=1, channels=1, classes=3)
    statistics = {"normalize.mean", "normalize.std"}
    assert statistics <= set(network.state_dict())
    assert not statistics & {name for name, _ in network.named_parameters()}
    other = preact_resnet(Normalize([0.0], [1.0]), depth=10, width=1, channels=1, classes=3)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.normalize.std, network.normalize.std)
