"""AutoAttack through advmix against pyautoattack called directly, and the conditions that it does not check itself."""

import logging

import pytest
import torch
from pyautoattack import AutoAttack as Upstream
from torch import nn

from advmix_cli.data.images import Images
from advmix_cli.errors import EvaluationError
from advmix_cli.evaluation import autoattack
from advmix_cli.evaluation.autoattack import AutoAttack
from advmix_cli.evaluation.notebook import Blank
from advmix_cli.evaluation.predict import measured
from advmix_cli.evaluation.subject import Subject


def silent(_done, _note):
    """No progress display."""


def linear(classes, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).eval()


def images(network, count, right=True):
    """Random images with the labels that `network` gives them, or with other ones."""
    drawing = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8, generator=drawing)
    with torch.no_grad():
        logits = network(pixels / 255)
    return Images(pixels, logits.argmax(1) if right else logits.argmin(1))


@pytest.fixture(scope="module")
def perceptron(trained):
    """A network of two layers that knows the digits, cheap enough for thousands of queries."""
    data = trained[1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(data.train.pixels / 255), data.train.labels).backward()
        optimizer.step()
    return network.eval().requires_grad_(False), data.test.first(30)


def directly(network, batch, version, epsilon, batch_size):
    """Upstream's own verdicts, configured by hand as its documentation and the old "cheap" version have it."""
    attacks = ["apgd-ce", "apgd-dlr", "fab", "square"] if version == "cheap-2020" else None
    with torch.random.fork_rng():
        upstream = Upstream(
            network, norm="Linf", eps=epsilon, seed=0, version="custom" if attacks else version, attacks=attacks
        )
        if attacks:
            upstream.apgd.n_restarts = 1
            upstream.fab.n_restarts = 1
            upstream.square.n_queries = 1000
        found, _ = upstream.run_standard_evaluation(batch.pixels / 255, batch.labels, batch_size=batch_size)
    return network(found).argmax(1) == batch.labels


@pytest.mark.parametrize(("version", "batch_size"), [("standard", 500), ("cheap-2020", 20), ("rand", 500)])
def test_verdicts_are_those_of_upstream_called_directly(perceptron, version, batch_size):
    network, batch = perceptron
    epsilon = 20 / 255
    expected = directly(network, batch, version, epsilon, batch_size)
    with measured(network):
        verdicts = AutoAttack(version, epsilon, 0, batch_size)(Subject.plain(network), batch, silent, Blank()).robust
    assert torch.equal(verdicts, expected)
    assert 3 <= verdicts.sum() <= 27  # neither all nor nothing


EXPECTED = [
    ("standard", 2, ["apgd-ce", "fab-t", "square"]),
    ("standard", 3, ["apgd-ce", "fab-t", "square"]),
    ("standard", 4, ["apgd-ce", "apgd-t", "fab-t", "square"]),
    ("cheap-2020", 2, ["apgd-ce", "fab", "square"]),
    ("cheap-2020", 3, ["apgd-ce", "apgd-dlr", "fab", "square"]),
    ("rand", 2, ["apgd-ce"]),
    ("rand", 3, ["apgd-ce", "apgd-dlr"]),
    ("plus", 2, ["apgd-ce", "fab", "square", "fab-t"]),
]


@pytest.mark.parametrize(("version", "classes", "attacks"), EXPECTED)
def test_any_number_of_classes_gets_the_attacks_that_it_allows(version, classes, attacks):
    network = linear(classes)
    notes = []
    # ε so small that most images withstand everything: every attack comes to its turn.
    evaluator = AutoAttack(version, 0.5 / 255, 0, 4)
    with measured(network):
        verdicts = evaluator(
            Subject.plain(network), images(network, 4), lambda _done, note: notes.append(note), Blank()
        ).robust
    assert verdicts.any()
    assert [note.split()[0] for note in notes if note] == attacks
    settings = evaluator.settings(classes)
    assert settings["attacks"] == attacks
    if {"apgd-t", "fab-t"} & set(attacks):
        assert settings["target_classes"] == min(9, classes - 1)
    else:
        assert "target_classes" not in settings


def test_more_than_ten_classes_keep_upstreams_nine_targets():
    assert AutoAttack("standard", 0.1, 0, 4).settings(100)["target_classes"] == 9


@pytest.mark.parametrize(("version", "classes"), [("standard", 10), ("standard", 4), ("plus", 5), ("rand", 10)])
def test_upstream_is_configured_as_its_own_version_but_for_the_targets(version, classes):
    network = linear(classes)
    ours = AutoAttack(version, 0.1, 5, 4).adversary(network, classes, torch.device("cpu"))
    theirs = Upstream(network, norm="Linf", eps=0.1, seed=5, version=version)
    assert ours.attacks_to_run == theirs.attacks_to_run
    for one, other in zip(
        (ours.apgd, ours.apgd_targeted, ours.fab, ours.square),
        (theirs.apgd, theirs.apgd_targeted, theirs.fab, theirs.square),
        strict=True,
    ):
        differ = {
            name
            for name, value in vars(one).items()
            if isinstance(value, int | float | str | None) and value != getattr(other, name)
        }
        assert differ <= ({"n_target_classes"} if classes < 10 else set())
    assert ours.apgd_targeted.n_target_classes == ours.fab.n_target_classes == min(9, classes - 1)


@pytest.mark.parametrize("version", ["standard", "cheap-2020", "plus", "rand"])
def test_settings_are_those_that_upstream_gets(version):
    evaluator = AutoAttack(version, 0.1, 5, 32)
    settings = evaluator.settings(10)
    upstream = evaluator.adversary(linear(10), 10, torch.device("cpu"))
    assert settings["attacks"] == upstream.attacks_to_run
    assert settings["iterations"] == upstream.apgd.n_iter == upstream.fab.n_iter
    assert settings["restarts"] == upstream.apgd.n_restarts
    if {"fab", "fab-t"} & set(settings["attacks"]):
        assert settings["restarts"] == upstream.fab.n_restarts
    assert settings.get("queries", 5000) == upstream.square.n_queries
    assert settings.get("eot_iterations", 1) == upstream.apgd.eot_iter
    assert settings["seed"] == upstream.get_seed() == 5
    assert settings["epsilon"] == upstream.epsilon == 0.1
    assert settings["batch_size"] == 32
    assert not upstream.square.rescale_schedule
    assert settings["library"].startswith("pyautoattack ")


def test_what_is_left_out_or_restarted_less_often_is_stamped():
    plus = AutoAttack("plus", 0.1, 0, 4).settings(10)
    assert (plus["restarts"], plus["of these with one restart"]) == (5, ["square", "apgd-t", "fab-t"])
    assert AutoAttack("standard", 0.1, 0, 4).settings(3)["left out"] == ["apgd-t"]
    assert "left out" not in AutoAttack("standard", 0.1, 0, 4).settings(10)


@pytest.mark.parametrize(
    ("version", "classes", "passes"),
    [
        ("standard", 10, 200 + 9 * 200 + 9 * 300 + 5000),
        ("standard", 3, 200 + 2 * 300 + 5000),
        ("standard", 100, 200 + 9 * 200 + 9 * 300 + 5000),
        ("cheap-2020", 10, 200 + 200 + 12 * 100 + 1000),
        ("plus", 10, 5 * (200 + 200 + 12 * 100) + 5000 + 9 * 200 + 9 * 300),
        ("rand", 10, 2 * 20 * 200),
    ],
)
def test_passes_are_those_of_every_attack_with_its_targets_and_restarts(version, classes, passes):
    assert AutoAttack(version, 0.1, 0, 4).passes(classes) == passes


def test_labels_of_any_integer_type_give_the_same_verdicts(perceptron):
    network, batch = perceptron
    evaluator = AutoAttack("cheap-2020", 20 / 255, 0, 40)
    with measured(network):
        verdicts = [
            evaluator(
                Subject.plain(network), Images(batch.pixels, batch.labels.to(kind)).first(12), silent, Blank()
            ).robust
            for kind in (torch.int64, torch.uint8)
        ]
    assert torch.equal(*verdicts)


class Randomized(nn.Module):
    """Logits with noise in them, as a defense that AutoAttack warns of."""

    def __init__(self):
        super().__init__()
        self.body = linear(4)

    def forward(self, x):
        logits = self.body(x)
        return logits + 0.01 * torch.randn_like(logits)


def test_upstreams_warnings_arrive_in_our_log_and_nowhere_else(caplog, capsys):
    network = Randomized().eval()
    theirs = logging.getLogger("auto-attack")
    before = list(theirs.handlers), theirs.level, theirs.propagate
    with caplog.at_level(logging.DEBUG), measured(network):
        AutoAttack("cheap-2020", 0.1, 0, 4)(Subject.plain(network), images(network.body, 4), silent, Blank())
    assert any("randomized" in record.getMessage() for record in caplog.records if record.name == "advmix")
    assert {record.name for record in caplog.records} == {"advmix"}
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert capsys.readouterr() == ("", "")
    assert (theirs.handlers, theirs.level, theirs.propagate) == before


def test_progress_says_which_attack_runs_on_which_batch_and_what_stands():
    network = linear(4)
    notes = []
    told = lambda _done, note: notes.append(note)  # noqa: E731
    with measured(network):
        AutoAttack("cheap-2020", 0.5 / 255, 0, 3)(Subject.plain(network), images(network, 4), told, Blank())
    assert notes[0] == "apgd-ce 1/2, 100.0 % standing"
    assert notes[1].startswith("apgd-ce 2/2, ")
    assert any(note.startswith("square 1/") for note in notes)


def test_fab_leaves_no_gradients_on_the_parameters():
    network = linear(4)
    notes = []
    with measured(network):
        batch = images(network, 4)
        AutoAttack("cheap-2020", 0.5 / 255, 0, 4)(
            Subject.plain(network), batch, lambda _done, note: notes.append(note), Blank()
        )
    assert any(note.startswith("fab 1/1, ") for note in notes)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_no_robust_image_left_is_no_fault():
    network = linear(4)
    with measured(network):
        wrong = AutoAttack("cheap-2020", 0.1, 0, 4)(
            Subject.plain(network), images(network, 6, right=False), silent, Blank()
        ).robust
        broken = AutoAttack("standard", 1.0, 0, 4)(Subject.plain(network), images(network, 6), silent, Blank()).robust
    assert not wrong.any()
    assert not broken.any()


@pytest.mark.parametrize(("version", "epsilon"), [("standard", 0.5), ("cheap-2020", 0.5), ("cheap-2020", 1e-5)])
def test_a_single_image_is_measured(version, epsilon):
    network = linear(10)
    with measured(network):
        verdicts = AutoAttack(version, epsilon, 0, 500)(
            Subject.plain(network), images(network, 1), silent, Blank()
        ).robust
    assert verdicts.tolist() == [epsilon < 0.1]


def test_a_single_image_in_the_last_batch_is_measured():
    network = linear(4)
    with measured(network):
        assert AutoAttack("cheap-2020", 1e-5, 0, 2)(
            Subject.plain(network), images(network, 3), silent, Blank()
        ).robust.all()


def test_without_a_perturbation_the_verdicts_are_the_pristine_ones(perceptron):
    network, batch = perceptron
    with measured(network):
        verdicts = AutoAttack("rand", 0.0, 0, 40)(Subject.plain(network), batch.first(8), silent, Blank()).robust
    assert torch.equal(verdicts, (network(batch.pixels / 255).argmax(1) == batch.labels)[:8])


class Guessing(nn.Module):
    """Right in seven of ten looks at whatever image."""

    def forward(self, x):
        right = (torch.rand(len(x)) < 0.7).float()
        seen = 1e-6 * x.mean((1, 2, 3))
        return torch.stack([seen + right, 1 - right - seen, seen - 1], dim=1)


def test_what_a_random_network_gets_wrong_without_an_attack_is_asked_for_once_an_attack():
    """As pyautoattack does: once as it is, and once after each of the two attacks."""
    network, batch = Guessing(), Images(torch.full((600, 1, 8, 8), 128, dtype=torch.uint8), torch.zeros(600).long())
    with measured(network):
        torch.manual_seed(0)
        found = AutoAttack("rand", 1e-6, 0, 600)(Subject.plain(network), batch, silent, Blank())
    share = float(found.robust.double().mean())
    assert share == pytest.approx(0.7**3, abs=0.06)


def test_upstream_s_warning_of_few_classes_is_of_attacks_that_are_left_out(caplog):
    from pyautoattack.checks import check_n_classes, check_square_sr

    with autoattack._listening() as log:
        check_n_classes(3, ["apgd-ce", "apgd-dlr"], 2, 2, logger=log)
        assert caplog.records == []
        check_square_sr({"clean": 1.0, "apgd-ce": 0.5, "square": 0.1}, logger=log)
    assert [record.message[:12] for record in caplog.records] == ["AutoAttack: "]


def test_upstream_is_told_what_stood_after_each_attack_to_judge_the_last_one(perceptron, monkeypatch):
    network, batch = perceptron
    told = []
    monkeypatch.setattr("pyautoattack.checks.check_square_sr", lambda accuracies, **_: told.append(accuracies))
    with measured(network):
        found = AutoAttack("cheap-2020", 12 / 255, 0, 8)(Subject.plain(network), batch.first(12), silent, Blank())
    standing, broken = int(found.clean.sum()), found.broken()
    after = [(standing := standing - broken[attack]) / 12 for attack in found.attacks]
    # Upstream has called it for every batch of every attack alone.
    assert told[-1] == {"clean": 1.0, **dict(zip(found.attacks, after, strict=True))}


def test_what_upstream_returns_is_within_the_ball_and_the_unit_box():
    x = torch.full((2, 1, 2, 2), 0.05)
    autoattack._check(x, x + 0.1, 0.1)
    for moved, message in ((x + 0.101, "above ε = 0.1"), (x - 0.051, "outside"), (x * float("nan"), "outside")):
        with pytest.raises(EvaluationError, match=message):
            autoattack._check(x, moved, 0.1)
    with pytest.raises(EvaluationError, match="outside"):
        autoattack._check(x + 0.9, x + 0.951, 0.1)
