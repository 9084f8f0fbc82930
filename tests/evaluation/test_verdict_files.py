"""Verdicts on each image: what they say of each other, what a file of them holds, and the worst case over several."""

import json
from dataclasses import replace

import pytest
import torch
from findings import finding
from safetensors.torch import load_file, save
from torch import nn

from advmix_cli import tensors
from advmix_cli.data.images import Images
from advmix_cli.errors import RunDirectoryError
from advmix_cli.evaluation import verdict_files
from advmix_cli.evaluation.autoattack import AutoAttack
from advmix_cli.evaluation.notebook import Blank
from advmix_cli.evaluation.outcome import Evaluated
from advmix_cli.evaluation.pgd import Pgd
from advmix_cli.evaluation.predict import Judgement, judge, measured
from advmix_cli.evaluation.pristine import Pristine
from advmix_cli.evaluation.subject import Subject
from advmix_cli.evaluation.verdict_files import Record
from advmix_cli.evaluation.verdicts import NOTHING, Finding, Tally, Verdicts
from advmix_cli.evaluation.worst import worst_case
from advmix_cli.seals import sealed, unsealed

EPSILON = 24 / 255
ATTACKS = [
    Pgd(EPSILON, 8 / 255, 4, 1, "uniform", "cross-entropy", 0, 16),
    Pgd(EPSILON, 8 / 255, 2, 3, "uniform", "margin", 0, 16),
    AutoAttack("cheap-2020", 12 / 255, 0, 20),
]
EVERY = pytest.mark.parametrize("evaluator", ATTACKS, ids=["pgd", "restarts", "autoattack"])


@pytest.fixture(scope="module")
def looked(trained):
    """looked(evaluator, images=False): its verdicts on forty images."""
    network, data = trained

    def look(evaluator, images=False):
        with measured(network):
            return evaluator(Subject.plain(network), data.test.first(40), lambda *_: None, Blank(images=images))

    return look


@EVERY
def test_each_image_is_wrong_or_broken_or_robust_and_its_margin_says_so(looked, evaluator):
    found = looked(evaluator)
    assert 3 < found.robust.sum() < found.clean.sum()
    assert sum(found.broken().values()) + found.robust.sum() == 40
    assert found.broken()["clean"] == (~found.clean).sum()
    assert (found.broken_by[~found.clean] == NOTHING).all()
    assert torch.equal(found.margin > 0, found.robust)
    assert (found.margin <= looked(Pristine(100)).margin).all()


@EVERY
def test_the_images_that_are_kept_have_those_verdicts_and_those_margins(trained, looked, evaluator):
    network, data = trained
    found, batch = looked(evaluator, images=True), data.test.first(40)
    assert found._replace(images=None).robust.equal(looked(evaluator).robust)
    with measured(network):
        again = judge(network, found.images, batch.labels)
    assert torch.equal(again.correct, found.robust)
    assert torch.allclose(again.margin, found.margin, atol=1e-4)
    assert (found.images - batch.pixels / 255).abs().max() <= evaluator.epsilon + 1e-6
    assert torch.equal(found.images[~found.clean], batch.pixels[~found.clean] / 255)


def test_the_attack_that_broke_an_image_is_upstreams_first_that_does(looked):
    """An AutoAttack that has fewer attacks leaves standing what only the later ones break."""
    found = looked(ATTACKS[2])
    assert found.attacks == ("apgd-ce", "apgd-dlr", "fab", "square")
    assert found.broken()["apgd-ce"] > 3

    class First(AutoAttack):
        def _attacks(self, classes):
            return super()._attacks(classes)[:1]

    alone = looked(First("cheap-2020", 12 / 255, 0, 20))
    assert torch.equal(alone.broken_by == 0, found.broken_by == 0)
    assert not (found.broken_by == 0)[found.robust].any()


def test_each_restart_has_its_own_number(looked):
    found = looked(ATTACKS[1])
    assert found.attacks == ("restart 1", "restart 2", "restart 3")
    fewer = looked(Pgd(EPSILON, 8 / 255, 2, 2, "uniform", "margin", 0, 16))
    assert torch.equal(fewer.robust, found.clean & ((found.broken_by == NOTHING) | (found.broken_by == 2)))


def test_a_tally_keeps_the_first_that_breaks_and_the_smallest_margin():
    x = torch.zeros(4, 1, 1, 1)
    tally = Tally(["a", "b"], Judgement(torch.tensor([True, True, True, False]), torch.tensor([3.0, 3, 3, -1])), x)
    assert tally.standing().tolist() == [0, 1, 2]
    seen = Judgement(torch.tensor([True, False, True]), torch.tensor([2.0, -0.5, 5]))
    tally.enter(0, torch.tensor([0, 1, 2]), Finding(seen.correct, seen, torch.full((3, 1, 1, 1), 0.1)))
    assert tally.standing().tolist() == [0, 2]
    seen = Judgement(torch.tensor([True, False]), torch.tensor([2.5, -4]))
    tally.enter(1, torch.tensor([0, 2]), Finding(seen.correct, seen, torch.full((2, 1, 1, 1), 0.2)))
    found = tally.verdicts
    assert found.broken_by.tolist() == [NOTHING, 0, 1, NOTHING]
    assert found.margin.tolist() == [2.0, -0.5, -4.0, -1.0]
    assert found.images.flatten().tolist() == pytest.approx([0.1, 0.1, 0.2, 0])
    assert found.broken() == {"clean": 1, "a": 1, "b": 1}
    assert not x.any()


def test_what_broke_an_image_by_its_own_reckoning_gives_it_its_margin_whatever_was_seen_before():
    x = torch.zeros(1, 1, 1, 1)
    tally = Tally(["a"], Judgement(torch.tensor([True]), torch.tensor([1.0])), x)
    right = Judgement(torch.tensor([True]), torch.tensor([2.0]))
    tally.enter(0, torch.tensor([0]), Finding(torch.tensor([False]), right, x + 0.5))
    found = tally.verdicts
    assert (found.broken_by.item(), found.margin.item(), found.images.item()) == (0, 2.0, 0.5)


def measurement(name, clean, broken_by, margin, epsilon=0.1, split="test"):
    found = Verdicts(("a", "b"), torch.tensor(clean), torch.tensor(broken_by, dtype=torch.int8), torch.tensor(margin))
    settings = {"split": split, "norm": "linf", "epsilon": epsilon}
    return Evaluated.of(name, found, torch.arange(len(clean)), 1.0, settings, {"torch": "2"})


def test_the_worst_case_is_over_the_images_that_all_have_looked_at():
    one = measurement("one", [True] * 4, [0, NOTHING, NOTHING, NOTHING], [-1.0, 2, 2, 2])
    two = measurement("two", [True, True, True], [1, 1, NOTHING], [-3.0, -1, 1])
    worst = worst_case("worst case", [one, two], 0.1)
    assert worst.outcome.name == "worst case"
    assert worst.verdicts.attacks == ("one", "two")
    assert worst.verdicts.broken_by.tolist() == [0, 1, NOTHING]
    assert worst.verdicts.margin.tolist() == [-3.0, -1.0, 1.0]
    assert (worst.outcome.n, worst.outcome.correct) == (3, 1)
    assert worst.outcome.broken == {"clean": 0, "one": 1, "two": 1}
    assert worst.outcome.settings["over"] == ["one", "two"]
    assert worst.outcome.seconds == 2.0


def test_the_worst_case_is_over_attacks_with_the_same_epsilon_on_test_images():
    one = measurement("one", [True], [0], [-1.0])
    others = [
        measurement("other epsilon", [True], [0], [-1.0], epsilon=0.2),
        measurement("training images", [True], [0], [-1.0], split="train"),
    ]
    assert worst_case("w", [one, *others], 0.1) is None
    assert worst_case("w", [], 0.1) is None


@pytest.fixture
def record(looked, trained):
    """Of an attack, with its images."""
    verdicts, labels = looked(ATTACKS[0], images=True), trained[1].test.labels[:40]
    settings = {"split": "test", "norm": "linf", "epsilon": EPSILON}
    return Record(
        Evaluated.of("PGD", verdicts, labels, 1.5, settings, {"torch": "2"}), "w" * 64, "i", ("a", "b"), "last", "n"
    )


def test_a_file_holds_all_of_it_bit_for_bit(record, tmp_path):
    path = verdict_files.place(tmp_path, "PGD", 3, record.weights)
    assert path.name == "PGD epoch 3 wwwwwwww.safetensors"
    record.save(path)
    again = verdict_files.load(path)
    assert again.found.outcome == record.found.outcome
    assert replace(again, found=None) == replace(record, found=None)
    assert again.found.verdicts.attacks == ("pgd",)
    for one, other in zip(again.found.verdicts[1:], record.found.verdicts[1:], strict=True):
        assert torch.equal(one, other)
    assert torch.equal(again.found.labels, record.found.labels)
    assert load_file(path)["images"].dtype == torch.float32


def test_images_that_are_whole_levels_are_stored_as_such(record, tmp_path):
    levels = torch.arange(256, dtype=torch.uint8)[:40, None, None, None].expand(40, 1, 8, 8)
    whole = record.found._replace(verdicts=record.found.verdicts._replace(images=levels / 255))
    Record(whole, "w", "i", ()).save(tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors")["images"].dtype == torch.uint8
    assert torch.equal(verdict_files.load(tmp_path / "a.safetensors").found.verdicts.images, levels / 255)


def change(path, **values):
    """Other tensors under a checksum of the file's own that is right."""
    metadata, held = tensors.read(path)
    about = unsealed(json.loads(metadata["advmix"]))
    held |= values
    about["adversarial"] = tensors.digest({name: held[name] for name in ("images",) if name in held})
    path.write_bytes(save(held, {"advmix": json.dumps(sealed(about))}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"clean": torch.zeros(40, dtype=torch.bool)}, "its verdicts are not those that were written"),
        ({"clean": torch.ones(39, dtype=torch.bool)}, "it does not hold clean, broken_by, margin, labels of 40 images"),
        ({"margin": torch.ones(40, dtype=torch.float64)}, "it does not hold"),
        ({"more": torch.ones(40)}, "it does not hold"),
        ({"broken_by": torch.full((40,), 3, dtype=torch.int8)}, "an image was broken by no attack that is named"),
        ({"images": torch.ones(40, 8, 8)}, "its images are not one for each verdict"),
        ({"images": torch.ones(3, 1, 8, 8)}, "its images are not one for each verdict"),
    ],
)
def test_a_file_that_was_changed_is_refused(record, tmp_path, values, words):
    path = tmp_path / "a.safetensors"
    record.save(path)
    change(path, **values)
    with pytest.raises(RunDirectoryError, match=words):
        verdict_files.load(path)


def miscounted(about):
    about["outcome"]["broken"]["clean"] += 1
    about["outcome"]["broken"]["pgd"] -= 1


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda about: about.update(schema=2), "it has schema 2, and this version reads 1"),
        (lambda about: about.update(schema=True), "it has schema True, and this version reads 1"),
        (lambda about: about.update(adversarial="0" * 64), "its images are not those that were written"),
        (lambda about: about.update(classes="ab"), "its attacks and classes are no lists"),
        (lambda about: about["outcome"]["settings"].update(epsilon=-0.1), "its epsilon is not in"),
        (miscounted, "its verdicts are not those that were written"),
    ],
)
def test_a_file_that_says_something_else_of_its_verdicts_is_refused(record, tmp_path, edit, words):
    path = tmp_path / "a.safetensors"
    record.save(path)
    metadata, held = tensors.read(path)
    edit(about := unsealed(json.loads(metadata["advmix"])))
    path.write_bytes(save(held, {"advmix": json.dumps(sealed(about))}))
    with pytest.raises(RunDirectoryError, match=words):
        verdict_files.load(path)


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b[:100], lambda _: b"", lambda b: b + b"x"]
)
def test_a_damaged_file_is_refused(record, tmp_path, spoil):
    path = tmp_path / "a.safetensors"
    record.save(path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(RunDirectoryError, match="not a whole file of verdicts: "):
        verdict_files.load(path)


def test_disputed_images_get_the_judges_own_verdicts_and_images(trained):
    """The network that attacks look at is wrong where the judge is right: these are attacked again."""
    network, data = trained
    images = Images(data.test.pixels[:12], data.test.labels[:12])

    class Liar(nn.Module):
        def forward(self, x):
            return network(x).roll(1, dims=1)

    with measured(network):
        attack = AutoAttack("cheap-2020", 12 / 255, 0, 20)
        expected = attack(Subject.plain(network), images, lambda *_: None, Blank(images=True))
        found = attack(Subject(network, Liar()), images, lambda *_: None, Blank(images=True))
    assert found.attacks == expected.attacks
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert torch.equal(one, other)


def test_findings_of_no_image_are_entered():
    tally = Tally(["a"], Judgement(torch.tensor([False]), torch.tensor([-1.0])), None)
    tally.enter(0, tally.standing(), finding())
    assert tally.verdicts.broken() == {"clean": 1, "a": 0}


def test_what_is_wrong_as_it_is_was_broken_by_nothing():
    one = measurement("one", [False, True], [NOTHING, NOTHING], [-1.0, 2])
    two = measurement("two", [True, True], [0, NOTHING], [-1.0, 2])
    worst = worst_case("w", [one, two], 0.1)
    assert worst.verdicts.broken_by.tolist() == [NOTHING, NOTHING]
    assert worst.outcome.broken == {"clean": 1, "one": 0, "two": 0}


def test_worst_cases_have_the_same_settings_if_what_they_are_over_has_them_whatever_was_found():
    def settings(right, steps):
        one = measurement("one", [True] * 3, [0, NOTHING, NOTHING], [-1.0, 2, 2])
        two = measurement("two", [True] * 2, [NOTHING if right else 1, NOTHING], [2.0 if right else -2.0, 2])
        both = [
            each._replace(outcome=replace(each.outcome, settings={**each.outcome.settings, "steps": count}))
            for each, count in zip((one, two), steps, strict=True)
        ]
        return worst_case("w", both, 0.1).outcome.settings

    assert settings(True, (10, 20)) == settings(False, (10, 20))
    assert settings(True, (10, 20)) != settings(True, (10, 40))
    assert settings(True, (10, 20)) != settings(True, (30, 20))


def test_the_worst_case_says_on_which_images_it_is():
    one = measurement("one", [True] * 4, [0, NOTHING, NOTHING, NOTHING], [-1.0, 2, 2, 2])
    two = measurement("two", [True, True], [1, NOTHING], [-3.0, 1])
    settings = worst_case("w", [one, two], 0.1).outcome.settings
    assert settings["images"] == "the first 2"
    same = [measurement(name, [True, True], [1, NOTHING], [-3.0, 1]) for name in "ab"]
    assert "images" not in worst_case("w", same, 0.1).outcome.settings


def test_verdicts_that_replace_others_replace_all_of_them():
    tally = Tally(["a"], Judgement(torch.tensor([True, True]), torch.tensor([1.0, 1.0])), None)
    again = Verdicts(("a",), torch.tensor([False]), torch.tensor([NOTHING], dtype=torch.int8), torch.tensor([-1.0]))
    tally.replace(torch.tensor([1]), again)
    assert tally.verdicts.robust.tolist() == [True, False]
