"""The average beside an independent one, and beside a training that it must not change."""

import pytest
import torch
from torch import nn

from advmix_cli import build, engine
from advmix_cli.training.accelerate import forget_compiled
from advmix_cli.training.averaging import Average, Decay

CPU = torch.device("cpu")
EMA = 'averaging={kind="ema", decay=0.7}'


def copies(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def reference(states, decay, *, warmup):
    """The average of networks, the first of which is where it starts, as the field's loop has it, in float64."""
    kept = {name: value.double() for name, value in states[0].items()}
    for step, state in enumerate(states[1:]):
        share = min(decay, (1.0 + step) / (10.0 + step)) if warmup else decay
        for name, value in state.items():
            kept[name] = share * kept[name] + (1.0 - share) * value.double()
            if not value.is_floating_point():
                kept[name] = value
    return kept


def farthest(one, other):
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.995])
def test_it_is_the_average_of_weights_and_buffers(decay, warmup):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double().train()
    average = Average(network, Decay(decay, warmup))
    states = [copies(network)]
    for step in range(12):
        network(torch.randn(5, 3, dtype=torch.float64)).pow(2).sum().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.follow(step)
        states.append(copies(network))
        found = average.network.state_dict()
        assert farthest(found, reference(states, decay, warmup=warmup)) < 1e-12
        assert found["1.num_batches_tracked"] == step + 1
        assert found["1.num_batches_tracked"].dtype == torch.int64
    assert torch.equal(found["1.running_var"], network[1].running_var) == (decay == 0)


@pytest.mark.parametrize(("updates", "share"), [(0, 0.1), (1, 2 / 11), (8, 0.5), (1790, 0.995), (10**6, 0.995)])
def test_the_warm_up_reaches_the_decay(updates, share):
    assert Decay(0.995, warmup=True)(updates) == pytest.approx(share, rel=1e-12)
    assert Decay(0.995, warmup=False)(updates) == 0.995


def training(recipe, formulation="eager"):
    images = build.dataset(recipe, CPU, print)
    return build.training(recipe, images, build.new_network(recipe, images, CPU), formulation)


def trained(made):
    """The figures of its epochs, and its networks after each update."""
    states = [copies(made.network)]
    epochs = list(made.run(lambda _: states.append(copies(made.network))))
    return [epoch.figures for epoch in epochs], states


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_is_followed_through_all_its_epochs(tiny):
    made = training(tiny("schedule.batch_size=32", EMA))
    _, states = trained(made)
    assert len(states) == 1 + 2 * 4
    found = made.average.network.state_dict()
    assert farthest(found, reference(states, 0.7, warmup=True)) < 1e-6
    # It is one of neither the first nor the last weights, nor of an update more or less.
    for other in (states, states[:-1], [states[0], *states]):
        expected = reference(other, 0.7, warmup=True)
        assert (farthest(found, expected) < 1e-4) == (other is states)


def test_without_a_warm_up_the_first_weights_are_forgotten_no_sooner_than_others(tiny):
    made = training(tiny("schedule.batch_size=32", EMA, "averaging.warmup=false"))
    _, states = trained(made)
    assert farthest(made.average.network.state_dict(), reference(states, 0.7, warmup=False)) < 1e-6


def test_without_a_decay_the_average_is_the_network_bit_for_bit(tiny):
    for warmup in ("true", "false"):
        made = training(tiny(f'averaging={{kind="ema", decay=0.0, warmup={warmup}}}'))
        trained(made)
        assert equal(made.average.network.state_dict(), made.network.state_dict())


def test_a_training_does_not_notice_its_average(tiny):
    plain, averaged = training(tiny()), training(tiny(EMA))
    assert plain.average is None
    (figures, states), (others, also) = trained(plain), trained(averaged)
    assert figures == others
    assert all(equal(*pair) for pair in zip(states, also, strict=True))
    assert not averaged.average.network.training
    assert not any(parameter.requires_grad for parameter in averaged.average.network.parameters())


@pytest.mark.usefixtures("shallow", "traced")
def test_a_compiled_training_has_the_same_average_and_a_rehearsal_leaves_no_trace_in_it(tiny):
    recipe = tiny("model.width=2", EMA)
    eager = training(recipe)
    images = build.dataset(recipe, CPU, print)
    forget_compiled()
    compiled = engine.rehearsed(recipe, images, build.new_network(recipe, images, CPU), "compiled").training
    assert equal(compiled.average.network.state_dict(), eager.average.network.state_dict())
    trained(eager)
    trained(compiled)
    assert equal(compiled.average.network.state_dict(), eager.average.network.state_dict())


def test_an_average_lies_in_memory_as_its_network_does(tiny):
    """Otherwise torch would average tensor by tensor."""
    made = training(tiny(EMA))
    pairs = list(zip(made.average.network.state_dict().values(), made.network.state_dict().values(), strict=True))
    assert any(value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last) for value, _ in pairs)
    assert all(own.stride() == value.stride() for own, value in pairs)
    assert all(own.data_ptr() != value.data_ptr() for own, value in pairs)


@pytest.mark.gpu
@pytest.mark.parametrize("formulation", ["compiled", "captured", "reduce-overhead"])
def test_on_a_gpu_a_graph_is_followed_and_nothing_waits(tiny, formulation):
    place, recipe = torch.device("cuda"), tiny("schedule.batch_size=32", EMA)
    images = build.dataset(recipe, place, print)
    made = engine.rehearsed(recipe, images, build.new_network(recipe, images, place), formulation).training
    follow = made.average.follow

    def watched(updates):
        torch.cuda.set_sync_debug_mode("error")
        try:
            follow(updates)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    made.average.follow = watched
    _, states = trained(made)
    found = made.average.network.state_dict()
    assert farthest(found, reference(states, 0.7, warmup=True)) < 1e-6
