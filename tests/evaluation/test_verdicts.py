"""What every evaluator keeps: the network as it was, the generators as they were, and no number for nonsense."""

import random
import sys

import numpy as np
import pytest
import torch
from torch import nn

from advmix_cli.data.images import Images
from advmix_cli.errors import EvaluationError
from advmix_cli.evaluation.autoattack import AutoAttack
from advmix_cli.evaluation.notebook import Blank
from advmix_cli.evaluation.pgd import Pgd
from advmix_cli.evaluation.predict import judge, measured
from advmix_cli.evaluation.pristine import Pristine
from advmix_cli.evaluation.subject import Subject
from advmix_cli.measure.evaluate import evaluate
from advmix_cli.recipe.schema import AutoAttackEvaluator, PgdEvaluator, PristineEvaluator

PGD = Pgd(0.1, 0.05, 2, 1, "uniform", "cross-entropy", 0, 4)
EVALUATORS = [Pristine(4), PGD, AutoAttack("rand", 0.1, 0, 4)]
CHOSEN = [
    PristineEvaluator(kind="pristine"),
    PgdEvaluator(kind="pgd", steps=2, step_size=0.02),
    AutoAttackEvaluator(kind="autoattack", version="cheap-2020"),
]
NAMES = ["pristine", "pgd", "autoattack"]


def images(count=6, classes=4):
    drawing = torch.Generator().manual_seed(0)
    return Images(
        torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8, generator=drawing),
        torch.randint(classes, (count,), generator=drawing),
    )


def linear(classes=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def normed():
    """A convolution and a batch norm whose running statistics are far from a batch's."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.BatchNorm2d(3)
        network = nn.Sequential(nn.Conv2d(1, 3, 3), layer, nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))
    layer.running_mean.fill_(0.7)
    layer.running_var.fill_(3.0)
    return network


class Spoilt(nn.Module):
    """Logits with `value` in them for the images that `where` picks."""

    def __init__(self, where, value=float("nan")):
        super().__init__()
        self.body, self.where, self.value = linear(), where, value

    def forward(self, x):
        return torch.where(self.where(x)[:, None], self.value, self.body(x))


def silent(_done, _note):
    """No progress display."""


def dataset(images, classes=4):
    from advmix_cli.data.images import Dataset

    return Dataset(images, images, images, tuple("abcdefghij"[:classes]), [0.5], [0.5])


@pytest.fixture
def measure(tiny, watch):
    """measure(evaluator, network, count=6) -> its outcome on so many images."""

    def one(chosen, network, count=6, data=None):
        (found,) = evaluate([chosen], tiny("threat.epsilon=0.05"), network, data or dataset(images(count)), watch)
        return found.outcome

    return one


@pytest.mark.parametrize("chosen", CHOSEN, ids=NAMES)
def test_global_generators_are_left_alone(chosen, measure):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    measure(chosen, linear())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


@pytest.mark.parametrize("chosen", CHOSEN, ids=NAMES)
def test_global_generators_do_not_change_the_result(chosen, measure):
    correct = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        correct.append(measure(chosen, linear(), 12).correct)
    assert correct[0] == correct[1]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("chosen", CHOSEN, ids=NAMES)
def test_the_network_comes_back_as_it_was(chosen, training, measure):
    network = normed().train(training)
    network[0].weight.requires_grad_(False)
    for parameter in list(network.parameters())[1:]:
        parameter.grad = torch.full_like(parameter, 3.0)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    measure(chosen, network)
    assert [module.training for module in network.modules()] == [training] * 6
    assert [parameter.requires_grad for parameter in network.parameters()] == [False] + [True] * 5
    assert network[0].weight.grad is None
    assert all((parameter.grad == 3).all() for parameter in list(network.parameters())[1:])
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("chosen", CHOSEN, ids=NAMES)
def test_a_network_in_train_mode_is_measured_in_eval_mode(chosen, measure):
    outcomes = [measure(chosen, normed().train(training), 16).correct for training in (True, False)]
    assert outcomes[0] == outcomes[1]


def test_the_network_comes_back_as_it_was_after_an_error():
    network = normed().train()

    def fail():
        with measured(network):
            assert not any(parameter.requires_grad for parameter in network.parameters())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("evaluator", EVALUATORS, ids=NAMES)
def test_logits_that_are_not_finite_give_no_number(evaluator):
    for value in (float("nan"), float("inf"), -float("inf")):
        network = Spoilt(lambda x: torch.arange(len(x)) == len(x) - 1, value).eval()
        with pytest.raises(EvaluationError, match="not finite"):
            evaluator(Subject.plain(network), images(), silent, Blank())


@pytest.mark.parametrize("evaluator", EVALUATORS[1:], ids=NAMES[1:])
def test_logits_that_break_only_under_attack_give_no_number(evaluator):
    levels = torch.arange(256) / 255
    network = Spoilt(lambda x: ~torch.isin(x, levels).flatten(1).all(1)).eval()
    with measured(network):
        batch = images(12)
        batch = Images(batch.pixels, network(batch.pixels / 255).argmax(1))
        assert Pristine(12)(Subject.plain(network), batch, silent, Blank()).robust.all()
        with pytest.raises(EvaluationError):
            evaluator(Subject.plain(network), batch, silent, Blank())


BLIND = [PGD, *(AutoAttack(version, 0.1, 0, 4) for version in ("standard", "cheap-2020", "plus", "rand"))]


@pytest.mark.parametrize("evaluator", BLIND, ids=["pgd", "standard", "cheap-2020", "plus", "rand"])
def test_gradients_that_are_not_finite_give_no_number(evaluator):
    """Upstream takes their sign, which is 0 for NaN: an attack that stands still, and a network that withstands it."""

    class Flat(nn.Module):
        def forward(self, x):
            logits = x.flatten(1)[:, :4]
            return logits + (x.flatten(1)[:, :1] * 0).sqrt()  # 0, with the derivative 0 · inf

    batch = images()
    batch = Images(batch.pixels, Flat()(batch.pixels / 255).argmax(1))
    with pytest.raises(EvaluationError, match="not finite"), measured(Flat()):
        evaluator(Subject.plain(Flat().eval()), batch, silent, Blank())


@pytest.mark.parametrize("where", ["a weight", "a running statistic"])
def test_weights_that_are_not_finite_give_no_number(where, measure):
    network = normed()
    with torch.no_grad():
        (network[4].bias if where == "a weight" else network[1].running_var)[0] = float("nan")
    with pytest.raises(EvaluationError, match=r"4\.bias" if where == "a weight" else r"1\.running_var"):
        measure(CHOSEN[0], network)


@pytest.mark.parametrize("value", [1.001, -1e-6, float("nan")])
def test_an_image_outside_the_unit_box_gives_no_number(value):
    x = torch.full((2, 1, 8, 8), 0.5)
    x[1, 0, 3, 3] = value
    with pytest.raises(EvaluationError, match="outside"):
        judge(linear(), x, torch.zeros(2, dtype=torch.int64))


def test_of_several_largest_logits_the_first_one_is_the_prediction():
    found = judge(lambda x: x.flatten(1), torch.tensor([[0.5, 0.5, 0.0]] * 3)[:, :, None, None], torch.arange(3))
    assert found.correct.tolist() == [True, False, False]
    assert found.margin.tolist() == [0.0, 0.0, -0.5]


def test_the_borders_of_the_unit_box_belong_to_it():
    x = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    network = linear()
    assert judge(network, x, network(x).argmax(1)).correct.all()


@pytest.mark.parametrize("chosen", CHOSEN, ids=NAMES)
def test_tracing_goes_on(chosen, measure):
    def tracer(_frame, _event, _argument):
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        measure(chosen, linear(), 2)
        found = sys.gettrace()
    finally:
        sys.settrace(before)
    assert found is tracer


@pytest.mark.parametrize("evaluator", EVALUATORS, ids=NAMES)
def test_ticks_add_up_to_the_images(evaluator):
    done = []
    with measured(network := linear()):
        evaluator(Subject.plain(network), images(11), lambda count, _note: done.append(count), Blank())
    assert sum(done) == 11
    assert min(done) >= 0


@pytest.mark.parametrize("evaluator", EVALUATORS, ids=NAMES)
def test_a_verdict_an_image(evaluator):
    with measured(network := linear()):
        verdicts = evaluator(Subject.plain(network), images(5), silent, Blank())
    assert verdicts.robust.shape == verdicts.clean.shape == verdicts.broken_by.shape == verdicts.margin.shape == (5,)
    assert (verdicts.robust.dtype, verdicts.margin.dtype) == (torch.bool, torch.float32)


def test_pristine_verdicts_are_those_of_the_arg_max(trained):
    network, data = trained
    with measured(network):
        verdicts = Pristine(100)(Subject.plain(network), data.test, silent, Blank()).robust
        expected = network(data.test.pixels / 255).argmax(1) == data.test.labels
    assert torch.equal(verdicts, expected)
    assert 0.9 < verdicts.double().mean() < 1


def test_the_split_and_the_limit_choose_the_images(measure, said):
    train, validation, test = images(9), images(7), images(5)
    data = dataset(test)._replace(train=train, validation=validation)
    for split, count in (("train", 9), ("validation", 7), ("test", 5)):
        chosen = PristineEvaluator(kind="pristine", split=split)
        outcome = measure(chosen, linear(), data=data)
        assert outcome.n == count
        assert outcome.settings["split"] == split
    limited = PristineEvaluator(kind="pristine", split="train", limit=4)
    assert measure(limited, linear(), data=data).n == 4
    assert "measuring pristine train: 4 images" in said.getvalue()


@pytest.mark.parametrize("chosen", CHOSEN[1:], ids=NAMES[1:])
def test_epsilon_is_the_threats_unless_the_evaluator_has_its_own(chosen, measure):
    own = chosen.model_copy(update={"epsilon": 0.01})
    assert measure(chosen, linear()).settings["epsilon"] == 0.05
    assert measure(own, linear()).settings["epsilon"] == 0.01
