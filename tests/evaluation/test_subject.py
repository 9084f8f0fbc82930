"""The network that judges and the one that attacks look at: a faster or narrower one, or a liar."""

import copy
import logging
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from advmix_cli.attacked import subject_of
from advmix_cli.data.images import Images
from advmix_cli.errors import MemoryExhaustedError
from advmix_cli.evaluation import halves
from advmix_cli.evaluation.autoattack import AutoAttack
from advmix_cli.evaluation.notebook import Blank, Written
from advmix_cli.evaluation.pgd import Pgd
from advmix_cli.evaluation.predict import measured, tf32_convolutions
from advmix_cli.evaluation.pristine import Pristine
from advmix_cli.evaluation.subject import AtLeastTwo, InChunks, Subject
from advmix_cli.measure import evaluate
from advmix_cli.training.accelerate import Compilation, forget_compiled

EVALUATORS = {
    "pristine": Pristine(25),
    "pgd": Pgd(24 / 255, 8 / 255, 4, 2, "uniform", "cross-entropy", 0, 25),
    "autoattack": AutoAttack("cheap-2020", 16 / 255, 0, 25),
}
EVERY = pytest.mark.parametrize("evaluator", EVALUATORS.values(), ids=EVALUATORS.keys())
ATTACKS = pytest.mark.parametrize("evaluator", [EVALUATORS["pgd"], EVALUATORS["autoattack"]], ids=["pgd", "autoattack"])


def silent(_done, _note):
    """No progress display."""


@pytest.fixture(scope="module")
def perceptron(trained):
    """A network of two layers that knows the digits, and test images of which it has some wrong."""
    data = trained[1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(data.train.pixels / 255), data.train.labels).backward()
        optimizer.step()
    images = data.test.first(60)
    network.eval().requires_grad_(False)
    right = network(images.pixels / 255).argmax(1) == images.labels
    assert 0 < (~right).sum() < 20
    return network, images, right


def verdicts(evaluator, subject, images):
    return evaluator(subject, images, silent, Blank()).robust


# ---- compiled ------------------------------------------------------------------------------------------------------


def compiled_verdicts(tiny, network, images, evaluator):
    forget_compiled()
    with measured(network):
        expected = verdicts(evaluator, Subject.plain(network), images)
        subject = subject_of(tiny('engine.compile="step"'), network, images.first(25), 10**12, print)
        assert subject.attacked is not subject.judge
        found = verdicts(evaluator, subject, images)
    # With gradients, without, and with none asked for; each once or twice more where torch takes small batches another
    # way. AutoAttack is called a dozen times, and does not compile anew for each of them.
    assert Compilation.so_far().graphs <= 8
    assert Compilation.so_far().breaks == 0
    return found, expected


@pytest.mark.usefixtures("traced")
@EVERY
def test_verdicts_of_a_compiled_network_are_those_of_the_network(tiny, trained, perceptron, evaluator):
    network = perceptron[0] if isinstance(evaluator, AutoAttack) else trained[0]
    found, expected = compiled_verdicts(tiny, network, trained[1].test.first(51), evaluator)
    assert torch.equal(found, expected)
    assert isinstance(evaluator, Pristine) or 0 < expected.sum() < len(expected)


@pytest.mark.slow
@EVERY
def test_verdicts_of_generated_code_are_those_of_the_network(tiny, trained, evaluator):
    found, expected = compiled_verdicts(tiny, trained[0], trained[1].test.first(60), evaluator)
    assert (found != expected).sum() <= 1


# ---- in another arithmetic -----------------------------------------------------------------------------------------


class Telling:
    """A function that keeps in which arithmetic convolutions are when it is called, and when it is differentiated."""

    def __init__(self, function):
        self.function, self.called, self.differentiated = function, [], []

    def __call__(self, x):
        self.called.append(torch.backends.cudnn.conv.fp32_precision)
        logits = self.function(x)
        if logits.requires_grad:
            logits.register_hook(self.told)
        return logits

    def told(self, _gradient):
        self.differentiated.append(torch.backends.cudnn.conv.fp32_precision)


@pytest.mark.parametrize("chunks", [False, True])
@pytest.mark.parametrize("name", ["pgd", "autoattack"])
def test_attacks_look_within_what_they_may_and_the_judge_does_not(perceptron, name, chunks):
    network, images, _ = perceptron
    judge, attacked = Telling(network), Telling(network)
    subject = Subject(judge, attacked, tf32_convolutions)
    with measured(network):
        verdicts(EVALUATORS[name], subject.in_chunks(7) if chunks else subject, images)
    assert {*judge.called} == {"ieee"}
    assert judge.differentiated == []
    assert {*attacked.called} == {*attacked.differentiated} == {"tf32"}


def test_disputed_images_are_attacked_in_full_fp32(perceptron):
    network, images, right = perceptron
    x = images.pixels / 255
    who = right.nonzero()[:3, 0]
    judge = Telling(network)
    liar = mistaken(network, images.labels[who], x[who].flatten(1).mean(1))
    with measured(network):
        verdicts(EVALUATORS["autoattack"], Subject(judge, liar, tf32_convolutions), images)
    assert {*judge.called} == {*judge.differentiated} == {"ieee"}


@pytest.mark.usefixtures("traced")
def test_what_was_compiled_outside_is_not_compiled_again_within(tiny, trained):
    """A compiler that guarded on it would make every attack wait for another minute."""
    network, images = trained[0], trained[1].test.first(20)
    forget_compiled()
    with measured(network):
        subject = subject_of(tiny('engine.compile="step"'), network, images, 10**12, print)
        verdicts(EVALUATORS["pgd"], subject, images)
        before = Compilation.so_far()
        verdicts(EVALUATORS["pgd"], subject._replace(looking=tf32_convolutions), images)
        assert Compilation.so_far() == before


@pytest.mark.gpu
def test_on_a_gpu_attacks_look_in_tf32_and_verdicts_are_those_of_the_network(tiny, trained):
    network, images = copy.deepcopy(trained[0]).cuda(), trained[1].test.first(51)
    images = Images(images.pixels.cuda(), images.labels.cuda())
    forget_compiled()
    with measured(network):
        subject = subject_of(tiny('engine.compile="step"'), network, images.first(25), 10**12, print)
        assert (subject.looking, subject.engine) == (tf32_convolutions, "compiled, TF32")
        for evaluator in EVALUATORS.values():
            expected = verdicts(evaluator, Subject.plain(network), images)
            assert (verdicts(evaluator, subject, images) != expected).sum() <= 2


# ---- in chunks -----------------------------------------------------------------------------------------------------


class Counting:
    """A function that keeps the sizes of its batches."""

    def __init__(self, function):
        self.function, self.sizes = function, []

    def __call__(self, x):
        self.sizes.append(len(x))
        return self.function(x)


@pytest.mark.parametrize("size", [1, 3, 4, 20])
def test_chunks_give_the_same_logits_and_gradients_and_the_network_sees_no_more_at_a_time(trained, size):
    network, data = trained
    x = data.test.pixels[:11] / 255
    weights = torch.randn(11, 10, generator=torch.Generator().manual_seed(0))
    counting = Counting(network)
    whole, parts = (x.clone().requires_grad_() for _ in range(2))
    with measured(network):
        expected, found = network(whole), InChunks(counting, size)(parts)
        (slope,) = torch.autograd.grad((expected * weights).sum(), whole)
        forward = len(counting.sizes)
        (other,) = torch.autograd.grad((found * weights).sum(), parts)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other, slope, rtol=1e-5, atol=1e-6)
    assert slope.abs().max() > 1e-3
    assert max(counting.sizes) == min(size, 11)
    assert sum(counting.sizes[:forward]) == sum(counting.sizes[forward:]) == 11


def test_several_gradients_can_be_taken_of_chunks(trained):
    network, data = trained
    x = (data.test.pixels[:5] / 255).requires_grad_()
    with measured(network):
        found = InChunks(network, 2)(x)
        slopes = [torch.autograd.grad(found[:, k].sum(), x, retain_graph=True)[0] for k in range(3)]
        expected = [torch.autograd.grad(network(x)[:, k].sum(), x)[0] for k in range(3)]
    for one, other in zip(slopes, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_without_gradients_nothing_is_computed_twice(trained):
    network, data = trained
    counting = Counting(network)
    x = data.test.pixels[:7] / 255
    with measured(network):
        with torch.no_grad():
            found = InChunks(counting, 3)(x.clone().requires_grad_())
        assert counting.sizes == [3, 3, 1]
        assert not found.requires_grad
        torch.testing.assert_close(InChunks(counting, 3)(x), found)
        torch.testing.assert_close(found, network(x), rtol=1e-5, atol=1e-6)
    assert counting.sizes == [3, 3, 1] * 2


def test_one_subject_in_chunks_is_still_one():
    network = nn.Linear(2, 2)
    plain = Subject.plain(network).in_chunks(3)
    assert plain.judge is plain.attacked
    two = Subject(network, nn.Linear(2, 2)).in_chunks(3)
    assert two.judge is not two.attacked
    assert isinstance(two.judge, InChunks)
    assert isinstance(two.attacked, InChunks)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_one_image_goes_as_two_and_comes_back_as_one(count):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    counting = Counting(network)
    x = torch.rand(count, 1, 2, 2, requires_grad=True)
    found = AtLeastTwo(counting)(x)
    assert counting.sizes == [2 if count == 1 else count]
    torch.testing.assert_close(found, network(x))
    (slope,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(slope, torch.autograd.grad(network(x).sum(), x)[0])


# ---- liars ---------------------------------------------------------------------------------------------------------


def mistaken(network, labels_of, who):
    """`network`, but wrong about the images whose brightness is in `who`, under attack too: their own logit sinks."""

    def logits(x):
        found = network(x)
        picked = (x.flatten(1).mean(1)[:, None] - who[None]).abs().min(1)
        lied = (picked.values < 1e-6).float()[:, None]
        own = nn.functional.one_hot(labels_of[picked.indices], found.shape[1]).float()
        return found - 1e4 * lied * own

    return logits


def test_an_image_that_only_the_attacked_network_gives_up_is_attacked_again_and_the_judge_decides(perceptron):
    network, images, right = perceptron
    evaluator = EVALUATORS["autoattack"]
    x = images.pixels / 255
    notes = []
    with measured(network):
        expected = verdicts(evaluator, Subject.plain(network), images)
        assert 3 <= expected.sum() < right.sum()
        who = torch.cat([expected.nonzero()[:2, 0], (right & ~expected).nonzero()[:2, 0]])
        liar = mistaken(network, images.labels[who], x[who].flatten(1).mean(1))
        assert ((liar(x).argmax(1) == images.labels) == right).logical_not().nonzero()[:, 0].tolist() == sorted(
            who.tolist()
        )
        found = evaluator(Subject(network, liar), images, lambda _done, note: notes.append(note), Blank()).robust
    assert torch.equal(found[who], expected[who])
    assert not (found & ~right).any()
    assert any(note.endswith(" disputed") for note in notes)


def test_findings_of_disputed_images_are_not_taken_for_those_of_others(perceptron, tmp_path):
    """After damage other images can be disputed, as many of them, and batches count from 0 among these too."""
    network, images, _ = perceptron
    evaluator, x = AutoAttack("cheap-2020", 20 / 255, 0, 50), images.pixels / 255
    with measured(network):
        alone = verdicts(evaluator, Subject.plain(network), images)
        broken, standing = (~alone).nonzero()[:, 0], alone.nonzero()[:, 0]
        for count, who in enumerate((standing[:3], broken[-3:])):
            liar = mistaken(network, images.labels[who], x[who].flatten(1).mean(1))
            notes = Written(tmp_path / "notes", "me", torch.device("cpu"))
            found = evaluator(Subject(network, liar), images, silent, notes).robust
            assert torch.equal(found[who], alone[who]), count
            for path in (tmp_path / "notes").iterdir():
                if b"disputed" not in path.read_bytes()[:2000]:
                    path.unlink()


class Blind(nn.Module):
    """Sure of `classes`, whatever it sees."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        return 10 * nn.functional.one_hot(self.classes[: len(x)], 10).float() + 0 * x.flatten(1)[:, :10]


@EVERY
def test_images_that_the_judge_has_wrong_never_count(perceptron, evaluator):
    network, images, right = perceptron
    wrong = Images(images.pixels[~right], images.labels[~right])
    flattering = Blind(wrong.labels)
    with measured(network):
        assert (flattering(wrong.pixels / 255).argmax(1) == wrong.labels).all()
        assert not verdicts(evaluator, Subject(network, flattering), wrong).any()


@ATTACKS
def test_an_attack_on_a_network_that_is_always_wrong_lowers_no_verdict_below_the_judges_own(perceptron, evaluator):
    network, images, right = perceptron
    with measured(network):
        expected = verdicts(evaluator, Subject.plain(network), images)
        found = verdicts(evaluator, Subject(network, lambda x: 10 - 20 * network(x).softmax(1)), images)
    assert not (found & ~right).any()
    if isinstance(evaluator, AutoAttack):
        assert torch.equal(found, expected)


# ---- out of memory -------------------------------------------------------------------------------------------------


class Narrow(nn.Module):
    """A network that holds so many images at a time."""

    def __init__(self, body, most):
        super().__init__()
        self.body, self.most = body, most

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.body(x)


@EVERY
@pytest.mark.parametrize(("most", "sizes"), [(7, [13, 7]), (1, [13, 7, 4, 2, 1]), (25, [])])
def test_too_large_a_batch_goes_in_halves_with_the_same_verdicts_and_a_warning_each(
    perceptron, caplog, monkeypatch, evaluator, most, sizes
):
    network, images, _ = perceptron
    images = images.first(26) if isinstance(evaluator, AutoAttack) else images
    released = []
    monkeypatch.setattr(halves, "release", lambda: released.append(True))
    with measured(network):
        expected = verdicts(evaluator, Subject.plain(network), images)
        found = evaluate._verdicts(evaluator, Subject.plain(Narrow(network, most)), images, silent, Blank()).robust
    assert torch.equal(found, expected)
    assert len(released) == len(sizes)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"out of memory: the evaluation starts again with {size} images at a time; its verdicts stay the same"
        for size in sizes
    ]


@EVERY
def test_where_not_even_one_image_fits_the_measurement_ends(perceptron, monkeypatch, evaluator):
    monkeypatch.setattr(halves, "release", lambda: None)
    network, images, _ = perceptron
    with measured(network), pytest.raises(MemoryExhaustedError) as caught:
        evaluate._verdicts(evaluator, Subject.plain(Narrow(network, 0)), images, silent, Blank())
    assert str(caught.value) == "out of memory in evaluation, with one image at a time"
    assert caught.value.exit_code == 1


def test_other_faults_of_a_measurement_are_not_taken_for_a_lack_of_memory(perceptron):
    @dataclass(frozen=True)
    class Broken(Pristine):
        def __call__(self, subject, images, tick, notes):  # noqa: ARG002
            raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        evaluate._verdicts(Broken(5), Subject.plain(perceptron[0]), perceptron[1], silent, Blank())
