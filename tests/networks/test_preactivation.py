"""The two networks: sizes, shapes, and a second implementation written from the published description."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from advmix_cli.networks.normalize import Normalize
from advmix_cli.networks.preact_resnet import preact_resnet
from advmix_cli.networks.wide_resnet import wide_resnet

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def normalize(channels=3):
    return Normalize(MEAN[:channels], STD[:channels])


@pytest.mark.parametrize(
    ("make", "depth", "width", "classes", "count"),
    [
        (preact_resnet, 18, 64, 10, 11_172_170),
        (preact_resnet, 18, 64, 100, 11_218_340),
        (wide_resnet, 34, 10, 10, 46_160_474),
        (wide_resnet, 34, 10, 100, 46_218_164),
    ],
)
def test_the_papers_networks_have_exactly_their_parameters(make, depth, width, classes, count):
    with torch.device("meta"):
        network = make(normalize(), depth=depth, width=width, channels=3, classes=classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(
    ("make", "depth"),
    [(preact_resnet, 10), (preact_resnet, 18), (preact_resnet, 34), (wide_resnet, 10), (wide_resnet, 16)],
)
def test_the_depth_counts_the_convolutions_and_the_linear_layer(make, depth):
    with torch.device("meta"):
        network = make(normalize(), depth=depth, width=1, channels=3, classes=2)
    kernels = [module.kernel_size for module in network.modules() if isinstance(module, nn.Conv2d)]
    # A Wide ResNet's depth, 6n + 4, was counted with three shortcuts, and one less without the linear layer.
    assert kernels.count((3, 3)) + 1 == (depth if make is preact_resnet else depth - 2)


@pytest.mark.parametrize("make", [preact_resnet, wide_resnet])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (32, 32), (64, 64), (9, 13)])
def test_images_of_every_size_give_logits(make, channels, height, width):
    network = make(normalize(channels), depth=10, width=1, channels=channels, classes=7)
    assert network(torch.rand(2, channels, height, width)).shape == (2, 7)


def batch_norm(state, name, x, training):
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    else:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    scale = state[f"{name}.weight"] / (variance + 1e-5).sqrt()
    shift = state[f"{name}.bias"] - mean * scale
    return x * scale[:, None, None] + shift[:, None, None]


def by_description(state, x, blocks_of_stage, training):
    """He et al. (2016): BN and ReLU before each convolution; the projection follows the first of them."""
    mean, std = (torch.tensor(numbers).double()[:, None, None] for numbers in (MEAN, STD))
    x = functional.conv2d((x - mean) / std, state["conv.weight"], padding=1)
    index = 0
    for stage, blocks in enumerate(blocks_of_stage):
        for block in range(blocks):
            name, stride = f"blocks.{index}", 2 if stage > 0 and block == 0 else 1
            active = batch_norm(state, f"{name}.bn1", x, training).clamp(min=0)
            inside = functional.conv2d(active, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            inside = batch_norm(state, f"{name}.bn2", inside, training).clamp(min=0)
            inside = functional.conv2d(inside, state[f"{name}.conv2.weight"], padding=1)
            if inside.shape[1] != x.shape[1]:
                x = functional.conv2d(active, state[f"{name}.shortcut.weight"], stride=stride)
            x = x + inside
            index += 1
    pooled = batch_norm(state, "bn", x, training).clamp(min=0).mean((2, 3))
    return pooled @ state["linear.weight"].T + state["linear.bias"]


@pytest.mark.parametrize("training", [False, True], ids=["running", "batch"])
@pytest.mark.parametrize(
    ("make", "depth", "width", "blocks_of_stage"),
    [
        (preact_resnet, 10, 2, [1, 1, 1, 1]),
        (preact_resnet, 18, 2, [2, 2, 2, 2]),
        (wide_resnet, 10, 1, [1, 1, 1]),
        (wide_resnet, 16, 2, [2, 2, 2]),
    ],
)
def test_logits_equal_those_of_the_description(make, depth, width, blocks_of_stage, training):
    torch.manual_seed(0)
    network = make(normalize(), depth=depth, width=width, channels=3, classes=4).double()
    for name, tensor in network.state_dict().items():
        if "bn" in name and tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand_like(tensor))
    x = torch.rand(3, 3, 16, 12, dtype=torch.float64)
    expected = by_description(network.state_dict(), x, blocks_of_stage, training)
    with torch.no_grad():
        torch.testing.assert_close(network.train(training)(x), expected, rtol=1e-10, atol=1e-10)


def test_the_first_convolution_is_the_stem_and_each_stage_doubles_it():
    with torch.device("meta"):
        preact = preact_resnet(normalize(), depth=18, width=64, channels=3, classes=10)
        wide = wide_resnet(normalize(), depth=28, width=10, channels=3, classes=10)
    assert [preact.conv.out_channels, *(block.conv2.out_channels for block in preact.blocks)] == [
        64, 64, 64, 128, 128, 256, 256, 512, 512,
    ]  # fmt: skip
    assert [wide.conv.out_channels, *(block.conv2.out_channels for block in wide.blocks)] == [
        16, *[160] * 4, *[320] * 4, *[640] * 4,
    ]  # fmt: skip


def test_wide_resnet_starts_by_kaimings_fan_out_with_a_bias_of_zero():
    torch.manual_seed(0)
    network = wide_resnet(normalize(), depth=10, width=4, channels=3, classes=10)
    assert network.linear.bias.count_nonzero() == 0
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            error_of_std = (2 * module.weight.numel()) ** -0.5
            assert abs(module.weight.std().item() / (2 / fan_out) ** 0.5 - 1) < 4 * error_of_std


def test_preact_resnet_starts_by_pytorchs_own_fan_in():
    torch.manual_seed(0)
    network = preact_resnet(normalize(), depth=10, width=8, channels=3, classes=10)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            bound = (module.in_channels * module.kernel_size[0] * module.kernel_size[1]) ** -0.5
            assert 0.9 * bound < module.weight.abs().max() <= bound


GRADIENTS = """
import torch
from advmix_cli.networks.preactivation import Block

for threads in (1, 2):
    torch.set_num_threads(threads)
    for inputs in range(1, 18):
        block = Block(inputs, 2 * inputs, 2).to(memory_format=torch.channels_last)
        found = []
        for kind in (torch.float32, torch.float64):
            torch.manual_seed(0)
            x = torch.rand(32, inputs, 8, 8).to(kind).contiguous(memory_format=torch.channels_last)
            block.to(kind).zero_grad()
            (block.shortcut(x) * torch.rand(32, 2 * inputs, 4, 4).to(kind)).sum().backward()
            found.append(block.shortcut.weight.grad.double())
        torch.testing.assert_close(*found, rtol=1e-4, atol=0, msg=lambda said: f"{threads}, {inputs}: {said}")
"""


def test_gradients_are_right_in_narrow_networks_too_where_vectors_are_those_of_avx2():
    """There oneDNN's own of a strided shortcut are not, of fewer than eight channels, and it may crash or hang."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", GRADIENTS], env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-800:]
