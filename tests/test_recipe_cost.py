"""What a recipe costs, counted without running it, against what torch counts while it runs."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from advmix_cli import build
from advmix_cli.cost import activation_bytes, cost, forward_flops
from advmix_cli.networks.normalize import Normalize
from advmix_cli.networks.preact_resnet import preact_resnet
from advmix_cli.networks.wide_resnet import wide_resnet
from advmix_cli.recipe.load import load

CPU = torch.device("cpu")
CIFAR = Normalize([0.5] * 3, [0.2] * 3)


def on_nothing(make, **settings):
    """A network without data: its shapes are enough."""
    with torch.device("meta"):
        return make(CIFAR, channels=3, **settings)


@pytest.mark.parametrize(
    ("make", "settings", "forward", "parameters"),
    [
        (preact_resnet, {"depth": 18, "width": 64, "classes": 10}, 1_110_845_440, 11_172_170),
        (wide_resnet, {"depth": 34, "width": 10, "classes": 10}, 13_317_812_736, 46_160_474),
    ],
    ids=["PreAct-ResNet-18", "WRN-34-10"],
)
def test_the_papers_networks_cost_what_is_known_of_them(make, settings, forward, parameters):
    network = on_nothing(make, **settings)
    assert forward_flops(network, (3, 32, 32)) == forward
    assert sum(value.numel() for value in network.parameters()) == parameters


def test_counting_leaves_the_network_as_it_is():
    network = preact_resnet(CIFAR, depth=10, width=2, channels=3, classes=10).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    forward_flops(network, (3, 8, 8))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(value.grad is None for value in network.parameters())


METHODS = [
    ([], 13),
    (['maximizer={kind="none"}'], 3),
    (["maximizer.ascent.steps=0"], 3),
    (["maximizer.ascent.steps=2", "loss.pristine_weight=0.5"], 10),
    (['maximizer.ratio={kind="frozen"}', "maximizer.ascent.steps=2", "loss.trades_beta=6"], 11),
]
WITHIN = [
    (["maximizer.mix_after=1"], 13, 0),
    (["maximizer.mix_after=2", "loss.pristine_weight=0.5"], 16, 0),
    (['maximizer={kind="attack-then-mix", mix_after=2}', 'maximizer.ascent={steps=2, step_size="8/255"}'], 7, 4),
]


@pytest.mark.parametrize(("settings", "passes"), METHODS)
def test_a_training_is_2k_plus_3_passes_of_each_image(settings, passes):
    recipe = load("digits", [*settings, "model.width=2", "schedule.batch_size=100", "schedule.epochs=3"])
    network = build.network(recipe, Normalize([0.5], [0.5]), channels=1, classes=10)
    found = cost(recipe, network, (1, 8, 8), 1350)
    forward = forward_flops(network, (1, 8, 8))
    assert (found.forward, found.batches, found.batch_size, found.epochs) == (forward, 13, 100, 3)
    assert found.image == passes * forward == recipe.passes_per_image() * forward
    assert found.attack_passes == 2 * found.inner_steps + any("trades" in setting for setting in settings)
    assert found.attack + found.update == passes * forward * 1300
    assert found.update == 3 * recipe.update_losses * forward * 1300
    assert recipe.update_losses == (2 if any("loss." in setting for setting in settings) else 1)
    assert found.training == 3 * passes * forward * 1300


def test_a_batch_larger_than_the_training_set_is_all_of_it():
    recipe = load("digits", ["model.width=2", "schedule.batch_size=1000"])
    network = build.network(recipe, Normalize([0.5], [0.5]), channels=1, classes=10)
    found = cost(recipe, network, (1, 8, 8), 70)
    assert (found.batches, found.batch_size) == (1, 70)


@pytest.mark.parametrize(("settings", "passes"), METHODS)
def test_a_batch_really_costs_what_is_counted_less_the_first_layers_input_gradients(settings, passes):  # noqa: ARG001
    recipe = load("digits", [*settings, "model.width=2", "data.train_limit=16", "schedule.batch_size=16"])
    images = build.dataset(recipe, CPU, print)
    training = build.training(recipe, images, build.new_network(recipe, images, CPU))
    batch = training.draw(training.order(1), 1, 0)
    with FlopCounterMode(display=False) as counter:
        training.on_batch(batch)
    counted = cost(recipe, training.network, images.image_shape, 16)
    first_layer = 2 * 2 * 8 * 8 * 9  # two operations, channels, pixels, kernel
    assert counter.get_total_flops() == counted.image * 16 - recipe.update_losses * first_layer * 16


@pytest.mark.parametrize(("settings", "passes", "plain"), WITHIN)
def test_a_pass_that_mixes_within_runs_the_first_stages_twice(settings, passes, plain):
    """`plain` of the passes are the attack's on images that are not mixed."""
    recipe = load("digits", [*settings, "model.width=2", "data.train_limit=16", "schedule.batch_size=16"])
    images = build.dataset(recipe, CPU, print)
    training = build.training(recipe, images, build.new_network(recipe, images, CPU))
    with FlopCounterMode(display=False) as counter:
        training.on_batch(training.draw(training.order(1), 1, 0))
    counted = cost(recipe, training.network, images.image_shape, 16)
    with FlopCounterMode(display=False) as first:
        training.network.head(torch.rand(1, 1, 8, 8), recipe.maximizer.mix_after)
    whole, within = counted.forward, counted.forward + first.get_total_flops()
    assert (counted.attack_passes + counted.update_passes, recipe.passes_per_image()) == (passes, passes)
    assert counted.image == plain * whole + (passes - plain) * within
    first_layers = 2 * recipe.update_losses * (2 * 2 * 8 * 8 * 9)
    assert counter.get_total_flops() == (counted.image - first_layers) * 16


def kept(precision, size, width=16, stages=0):
    with FakeTensorMode():
        normalize = Normalize([0.5] * 3, [0.2] * 3)
        network = preact_resnet(normalize, depth=10, width=width, channels=3, classes=10)
        return activation_bytes(network, (3, size, size), precision, stages)


def test_what_an_image_keeps_grows_with_the_images_and_shrinks_in_bf16():
    whole = kept("fp32", 16)
    assert whole > 4 * 16 * 16 * 16  # more than one layer's activations
    assert kept("fp32", 16) == whole
    assert kept("bf16", 16) < 0.8 * whole
    assert 3.8 * whole < kept("fp32", 32) < 4.2 * whole
    assert 1.8 * whole < kept("fp32", 16, width=32) < 2.2 * whole
    assert whole < kept("fp32", 16, stages=1) < kept("fp32", 16, stages=2) < 2 * whole


def test_what_an_image_keeps_is_what_a_real_network_keeps():
    network = preact_resnet(CIFAR, depth=10, width=16, channels=3, classes=10).train()
    weights = {value.data_ptr() for value in [*network.parameters(), *network.buffers()]}
    sizes = []
    for images in (2, 4):
        seen = {}
        keep = lambda value, seen=seen: seen.setdefault(value.untyped_storage().data_ptr(), value)  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            network(torch.rand(images, 3, 16, 16, requires_grad=True))
        sizes.append(sum(value.untyped_storage().nbytes() for at, value in seen.items() if at not in weights))
    assert kept("fp32", 16) == (sizes[1] - sizes[0]) // 2
