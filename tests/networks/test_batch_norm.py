"""The three batch-norm modes of the adversary, bit for bit, and what is left of them afterwards."""

import copy

import pytest
import torch
from torch import nn

from advmix_cli.networks.batch_norm import batch_norm_mode

MODES = ["train", "batch", "eval"]


def small():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(12))
    network(torch.rand(8, 1, 4, 4))
    return network, torch.rand(5, 1, 4, 4)


def assert_in_train_mode(network):
    assert all(module.training for module in network.modules())
    assert all(layer.track_running_stats for layer in (network[1], network[4]))


def same(state, other):
    return [torch.equal(state[name], other[name]) for name in state]


def test_train_is_the_network_in_train_mode():
    network, x = small()
    twin = copy.deepcopy(network).train()
    with batch_norm_mode(network, "train"):
        assert torch.equal(network(x), twin(x))
        assert torch.equal(network(x), twin(x))
    assert all(same(network.state_dict(), twin.state_dict()))
    assert network[1].num_batches_tracked == 3


def test_batch_is_the_same_output_and_no_trace():
    network, x = small()
    before = copy.deepcopy(network.state_dict())
    with batch_norm_mode(network, "batch"):
        logits = network(x)
    assert all(same(before, network.state_dict()))
    assert torch.equal(logits, network(x))
    assert not all(same(before, network.state_dict()))


def test_eval_is_the_network_in_eval_mode_and_no_trace():
    network, x = small()
    before = copy.deepcopy(network.state_dict())
    expected = copy.deepcopy(network).eval()(x)
    with batch_norm_mode(network, "eval"):
        assert torch.equal(network(x), expected)
    assert all(same(before, network.state_dict()))
    assert not torch.equal(network(x), expected)


@pytest.mark.parametrize("mode", MODES)
def test_afterwards_all_is_in_train_mode(mode):
    network, _ = small()
    network.eval()
    with batch_norm_mode(network, mode):
        pass
    assert_in_train_mode(network)


@pytest.mark.parametrize("mode", MODES)
def test_an_exception_leaves_nothing_behind(mode):
    network, x = small()
    with pytest.raises(RuntimeError), batch_norm_mode(network, mode):
        network(x[:, :, 0])  # three dimensions of one channel: not an image
    assert_in_train_mode(network)
    twin = copy.deepcopy(network)
    assert torch.equal(network(x), twin(x))
    assert all(same(network.state_dict(), twin.state_dict()))


@pytest.mark.parametrize("mode", MODES)
def test_the_affine_parameters_still_get_gradients(mode):
    network, x = small()
    with batch_norm_mode(network, mode):
        network(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
