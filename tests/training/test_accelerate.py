"""The network as a function of its precision and memory layout."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from advmix_cli.method.divergence import kl
from advmix_cli.method.draws import Sampler
from advmix_cli.method.maximizers import Integrated, Labels, LearnedRatio, Pgd
from advmix_cli.method.mixing import Mixture
from advmix_cli.networks.normalize import Normalize
from advmix_cli.networks.preact_resnet import preact_resnet
from advmix_cli.training import accelerate
from advmix_cli.training.accelerate import Compilation, forget_compiled, formed, logits_of, marked
from advmix_cli.training.step import Step


def small(channels_last=False):
    torch.manual_seed(0)
    network = preact_resnet(Normalize([0.5] * 3, [0.2] * 3), depth=10, width=4, channels=3, classes=4)
    return network.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def test_fp32_and_contiguous_is_the_network_itself():
    network, x = small().eval(), torch.rand(2, 3, 8, 8)
    assert torch.equal(logits_of(network, precision="fp32", channels_last=False)(x), network(x))


def test_the_layout_changes_where_the_numbers_lie_and_not_what_they_are():
    x = torch.rand(2, 3, 8, 8)
    expected = small().eval()(x)
    network = small(channels_last=True).eval()
    layouts = []
    network.conv.register_forward_hook(
        lambda _, inputs, output: layouts.extend(
            tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (inputs[0], output)
        )
    )
    logits = logits_of(network, precision="fp32", channels_last=True)(x)
    assert layouts == [True, True]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_both_images_of_a_pair_get_the_layout():
    network, layouts = small(channels_last=True), []
    network.conv.register_forward_hook(
        lambda _, inputs, __: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    left, right = torch.rand(2, 2, 3, 8, 8)
    logits_of(network, precision="fp32", channels_last=True)(Mixture(left, right, torch.ones(1), 1))
    assert layouts == [True, True]


def test_bf16_is_for_convolutions_and_products_and_the_logits_are_float32():
    network, x = small().eval(), torch.rand(4, 3, 8, 8)
    kinds = []
    for layer in (network.conv, network.linear):
        layer.register_forward_hook(lambda _, __, output: kinds.append(output.dtype))
    logits = logits_of(network, precision="bf16", channels_last=False)(x)
    assert kinds == [torch.bfloat16, torch.bfloat16]
    assert logits.dtype == torch.float32
    expected = network(x)
    assert not torch.equal(logits, expected)
    torch.testing.assert_close(logits, expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_bf16_step_keeps_parameters_delta_gamma_and_losses_in_float32(channels_last):
    network = small(channels_last)
    before = copy.deepcopy(network.state_dict())
    logits = logits_of(network, precision="bf16", channels_last=channels_last)
    seen = []

    def watched(x):
        seen.append(x)
        return logits(x)

    pgd = Pgd(epsilon=0.1, step_size=0.05, steps=2, clamp=True, divergence=kl)
    maximizer = Integrated(pgd, "independent", LearnedRatio(0.65, 0.4, 1e-6), Labels("geometric-clean"))
    x, y = torch.rand(4, 3, 8, 8), torch.eye(4)
    draws = Sampler(copies=2, alpha=0.5, kappa=0.65)(x.shape, torch.Generator(), torch.Generator())
    found = maximizer(watched, x, y, draws)
    assert {tensor.dtype for tensor in (*found[:5], *found.path, *seen)} == {torch.float32}
    taken = Step(network, watched, maximizer, kl, torch.optim.SGD(network.parameters(), lr=0.1), "train", 0.5)
    figures = taken(x, y, draws)
    assert {figure.dtype for figure in figures.values()} == {torch.float32}
    assert all(figure.isfinite() for figure in figures.values())
    for name, parameter in network.named_parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert isinstance(parameter, nn.Parameter)
        assert not torch.equal(parameter, before[name])


@pytest.mark.parametrize("wanted", [True, False])
def test_where_the_cache_cannot_be_written_nothing_outlives_the_process(tmp_path, monkeypatch, caplog, wanted):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "cache"
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR" if wanted else "XDG_CACHE_HOME", str(place))
    monkeypatch.setattr(accelerate, "_OF_THIS_PROCESS", [])
    found = accelerate._cache()
    assert Path(found).is_dir()
    assert not Path(found).is_relative_to(tmp_path)
    accelerate._OF_THIS_PROCESS[0].cleanup()
    said = f"TORCHINDUCTOR_CACHE_DIR = {place}: Not a directory: what is compiled is not kept for later"
    assert [record.getMessage() for record in caplog.records] == ([said] if wanted else [])


def test_a_users_own_cache_is_made_and_used(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "a" / "b"))
    assert accelerate._cache() == str(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_of_what_was_compiled_before_nothing_is_counted():
    assert Compilation(5, 2, 3).since(Compilation(3, 1, 2)) == Compilation(2, 1, 1)


def test_what_torch_counted_is_told_until_it_is_forgotten():
    from torch._dynamo.utils import counters

    forget_compiled()
    counters["stats"]["unique_graphs"] = 3
    counters["graph_break"].update({"a call": 1, "a print": 1})
    counters["inductor"]["cudagraph_skips"] = 1
    assert Compilation.so_far() == Compilation(3, 2, 1)
    assert str(Compilation.so_far()) == "3 graphs, 2 breaks, 1 of them not captured"
    forget_compiled()
    assert Compilation.so_far() == Compilation(0, 0, 0)
    assert str(Compilation(3, 0)) == "3 graphs, no breaks"


def test_a_function_is_formed_to_one_graph_which_torch_captures_where_it_is_to(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda _, **settings: settings)
    assert formed(max, "eager") is max
    assert formed(max, "compiled") == {"fullgraph": True, "dynamic": False, "mode": None}
    assert formed(max, "captured", dynamic=True) == {"fullgraph": True, "dynamic": True, "mode": None}
    assert formed(max, "reduce-overhead")["mode"] == "reduce-overhead"


def test_a_marked_batch_begins_a_step_and_keeps_its_figures(monkeypatch):
    figure, begun = torch.zeros(()), []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(figure.item()))
    on_batch = marked(lambda _: {"loss": figure.add_(1)})
    assert [value["loss"].item() for value in [on_batch(None), on_batch(None)]] == [1, 2]
    assert begun == [0, 1]
