"""What attacks look at in an evaluation: the compiled network where that is worth it and where it agrees."""

import pytest
import torch
from compilers import failing, warnings
from torch import nn

from advmix_cli import build
from advmix_cli.attacked import subject_of
from advmix_cli.evaluation.predict import measured
from advmix_cli.evaluation.subject import AtLeastTwo

CPU = torch.device("cpu")


def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 10))


MANY = 10**12


def measured_subject(tiny, network, setting, passes, count=8):
    recipe = tiny(f'engine.compile="{setting}"')
    images = build.dataset(recipe, CPU, print).test.first(count)
    with measured(network):
        return subject_of(recipe, network, images, passes, print)


@pytest.mark.parametrize(("setting", "passes"), [("off", MANY), ("auto", 1000), ("step", 1000), ("step", 0)])
def test_a_measurement_is_eager_where_the_recipe_says_so_where_it_is_short_and_where_nothing_is_seen(
    tiny, caplog, monkeypatch, setting, passes
):
    monkeypatch.setattr(torch, "compile", pytest.fail)
    network = small()
    subject = measured_subject(tiny, network, setting, passes, count=8 if passes else 0)
    assert subject.judge is subject.attacked is network
    assert warnings(caplog) == []


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("setting", ["step", "auto"])
def test_what_attacks_look_at_is_compiled_where_it_is_worth_it(tiny, caplog, capsys, setting):
    network = small()
    subject = measured_subject(tiny, network, setting, MANY)
    said = capsys.readouterr().out
    assert said.startswith(
        "evaluation: compiling what attacks look at\nevaluation: attacks look at the compiled network, "
    )
    assert subject.judge is network
    assert isinstance(subject.attacked, AtLeastTwo)
    x = torch.rand(5, 1, 8, 8)
    with measured(network):
        for size in (5, 2, 1):
            torch.testing.assert_close(subject.attacked(x[:size]), network(x[:size]), rtol=0, atol=1e-6)
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    "compiler", [failing, lambda *_arguments, **_settings: failing], ids=["at once", "when called"]
)
def test_a_measurement_whose_compiler_fails_is_eager_with_one_warning(tiny, caplog, monkeypatch, compiler):
    monkeypatch.setattr(torch, "compile", compiler)
    network = small()
    subject = measured_subject(tiny, network, "step", MANY)
    assert subject.judge is subject.attacked is network
    assert warnings(caplog) == ["the evaluation is eager: compiling failed: RuntimeError: no compiler here"]


LIES = {
    "other logits": lambda logits: 1.01 * logits,
    "another slope": lambda logits: logits + (logits - logits.detach()),
    "other logits without a gradient": lambda logits: logits if torch.is_grad_enabled() else 1.01 * logits,
    "not a number": lambda logits: logits * float("nan"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_compiled_network_that_computes_something_else_is_not_attacked(tiny, caplog, monkeypatch, lie):
    network = small()
    monkeypatch.setattr(torch, "compile", lambda function, **_settings: lambda x: lie(function(x)))
    subject = measured_subject(tiny, network, "step", MANY)
    assert subject.judge is subject.attacked is network
    (warning,) = warnings(caplog)
    assert warning.startswith("the evaluation is eager: the compiled network is ")
    assert warning.endswith(" from it")


@pytest.mark.parametrize(("factor", "faithful"), [(1.0005, True), (1.002, False)])
def test_what_attacks_look_at_is_within_a_thousandth_of_the_network(tiny, monkeypatch, factor, faithful):
    network = small()
    monkeypatch.setattr(torch, "compile", lambda function, **_settings: lambda x: factor * function(x))
    assert (measured_subject(tiny, network, "step", MANY).attacked is not network) == faithful


class Narrow(nn.Module):
    """A network that holds so many images at a time."""

    def __init__(self, most):
        super().__init__()
        self.body, self.most, self.seen = small(), most, []

    def forward(self, x):
        if x.is_meta:
            return self.body(x)
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return self.body(x)


@pytest.mark.parametrize(("lie", "faithful"), [(1.0, True), (1.01, False)])
def test_what_attacks_look_at_is_compared_on_as_many_images_as_the_memory_holds(tiny, monkeypatch, lie, faithful):
    monkeypatch.setattr(torch, "compile", lambda function, **_settings: lambda x: lie * function(x))
    network = Narrow(3)
    subject = measured_subject(tiny, network, "step", MANY, count=9)
    assert subject.judge is network
    assert (subject.attacked is network) != faithful
    assert [count for count in network.seen if count > 3] == [9, 4]
    assert network.seen.count(2) == 3


def test_a_network_that_holds_no_image_is_not_compiled(tiny, caplog, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_settings: function)
    network = Narrow(0)
    subject = measured_subject(tiny, network, "step", MANY)
    assert subject.judge is subject.attacked is network
    assert warnings(caplog) == ["the evaluation is eager: the memory does not hold 2 images of the compiled network"]
