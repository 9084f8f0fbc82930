"""The weights that an adversary in bfloat16 sees are cast once a batch, and it sees what autocast would show it."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from advmix_cli import build
from advmix_cli.training.accelerate import cast_once, logits_of
from advmix_cli.training.cast import CastOnce

CPU = torch.device("cpu")
BF16 = 'engine.precision="bf16"'


@pytest.fixture
def network(tiny):
    recipe = tiny(BF16)
    images = build.dataset(recipe, CPU, print)
    made = build.new_network(recipe, images, CPU)
    return made, images.train.first(16).pixels.float() / 255


def seen(asked, x):
    """The logits, and the gradient of their squares in x."""
    leaf = x.clone().requires_grad_()
    logits = asked(leaf)
    return logits.detach(), torch.autograd.grad(logits.square().sum(), leaf)[0]


@pytest.mark.parametrize("mode", [True, False])
def test_logits_and_gradients_are_autocasts_bit_for_bit_also_after_an_update(network, mode):
    made, x = network
    made.train(mode)
    autocast, now = logits_of(made, precision="bf16", channels_last=True), cast_once(made, channels_last=True)
    for _ in range(2):
        kept = {name: value.clone() for name, value in made.state_dict().items()}
        found = seen(now(), x)
        buffers = {name: value.clone() for name, value in made.named_buffers()}
        made.load_state_dict(kept)
        expected = seen(autocast, x)
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
        assert all(torch.equal(value, buffers[name]) for name, value in made.named_buffers())
        with torch.no_grad():
            for value in made.parameters():
                value.add_(torch.randn_like(value), alpha=0.05)


def test_weights_are_its_own_and_have_no_gradient_and_the_rest_is_shared(network):
    made, _ = network
    cast = CastOnce(made)
    assert cast.network.bn is made.bn
    assert cast.network.normalize is made.normalize
    own, trained = cast.network.state_dict(keep_vars=True), made.state_dict(keep_vars=True)
    assert own.keys() == trained.keys()
    apart = {name for name in own if own[name] is not trained[name]}
    assert apart == {name for name in own if "conv" in name or "linear" in name or "shortcut" in name}
    assert all(own[name].dtype == torch.bfloat16 and not own[name].requires_grad for name in apart)
    assert all(trained[name].dtype == torch.float32 and trained[name].requires_grad for name in apart)
    assert all(own[name].stride() == trained[name].stride() for name in apart)


class Gained(nn.Module):
    """A module with children and with a parameter and a buffer of its own."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.gain = nn.Parameter(torch.ones(()))
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, x):
        return self.gain * self.linear(x) + self.offset


def test_what_a_module_with_children_holds_is_the_trained_ones_too():
    made = Gained()
    cast = CastOnce(made)
    assert cast.network.gain is made.gain
    assert cast.network.offset is made.offset
    assert cast.network.linear.weight.dtype == torch.bfloat16


def test_a_batch_is_cast_once_and_only_in_bf16(tiny):
    def trained(*settings):
        recipe = tiny(*settings)
        images = build.dataset(recipe, CPU, print)
        return build.training(recipe, images, build.new_network(recipe, images, CPU))

    assert trained().on_batch.step.seen is None
    made, asked = trained(BF16), []
    step = made.on_batch.step
    watched = replace(step, seen=lambda: asked.append("cast") or step.seen())
    replace(made.on_batch, step=watched)(made.draw(made.order(1), epoch=1, index=0))
    assert asked == ["cast"]


def test_an_update_of_two_passes_casts_each_weight_once(tiny):
    recipe, casts = tiny(BF16, "loss.pristine_weight=0.5"), []
    images = build.dataset(recipe, CPU, print)
    made = build.training(recipe, images, build.new_network(recipe, images, CPU))
    weights = [value.data_ptr() for value in made.network.parameters() if value.dim() == 4]

    class Casts(TorchDispatchMode):
        def __torch_dispatch__(self, operation, _types, arguments=(), settings=None):
            if operation is torch.ops.aten._to_copy.default and arguments[0].data_ptr() in weights:
                casts.append(arguments[0].data_ptr())
            return operation(*arguments, **(settings or {}))

    with Casts():
        made.on_batch(made.draw(made.order(1), epoch=1, index=0))
    assert sorted(casts) == sorted(weights)
