"""An evaluation that was interrupted goes on where it was, and finds what it would have found."""

import pytest
import torch

from advmix_cli import run
from advmix_cli.data.images import Images
from advmix_cli.evaluation.autoattack import AutoAttack
from advmix_cli.evaluation.notebook import Blank, Kept
from advmix_cli.evaluation.pgd import Pgd
from advmix_cli.evaluation.predict import measured
from advmix_cli.evaluation.subject import Subject
from advmix_cli.report.results import Results

CPU = torch.device("cpu")
EVALUATORS = {
    "cheap-2020": AutoAttack("cheap-2020", 5 / 255, 0, 6),
    "standard": AutoAttack("standard", 5 / 255, 0, 10),
    "pgd": Pgd(30 / 255, 8 / 255, 3, 2, "uniform", "cross-entropy", 0, 4),
}


class StopHere(BaseException):
    pass


class Limited:
    """A notebook whose owner is interrupted at the n-th look, in the middle of it."""

    def __init__(self, notes, looks):
        self.notes, self.left, self.recalled = notes, looks, 0.0

    def once(self, key, look):
        def counted():
            self.left -= 1
            if self.left < 0:
                raise StopHere
            return look()

        return self.notes.once(key, counted)


def silent(_done, _note):
    pass


def finding(network, evaluator, images, notes):
    with measured(network):
        return evaluator(Subject.plain(network), images, silent, notes)


@pytest.mark.parametrize("name", [pytest.param("standard", marks=pytest.mark.slow), "cheap-2020", "pgd"])
def test_interrupted_at_every_look_it_finds_the_same_and_looks_no_more_often(trained, tmp_path, name):
    network, whole = trained
    images, evaluator = Images(whole.test.pixels[:14], whole.test.labels[:14]), EVALUATORS[name]
    uninterrupted = Limited(Blank(), 1000)
    expected = finding(network, evaluator, images, uninterrupted)
    assert 0 < expected.sum() < len(expected)
    looks = 1000 - uninterrupted.left
    assert looks >= 4
    turns = 0
    while True:
        turns += 1
        try:
            # A new process would read the file again.
            found = finding(network, evaluator, images, Limited(Kept(tmp_path / "notes", "me", CPU), 1))
        except StopHere:
            continue
        break
    assert turns == looks
    assert torch.equal(found, expected)
    nothing = Limited(Kept(tmp_path / "notes", "me", CPU), 0)
    assert torch.equal(finding(network, evaluator, images, nothing), expected)


def kept(path, owner="me"):
    return Kept(path, owner, CPU)


def fails():
    raise AssertionError("looked again")


def test_a_finding_has_its_shape_and_its_bits(tmp_path):
    for shape in ((3,), (2, 5), (0,)):
        value = torch.rand(shape) > 0.5
        assert torch.equal(kept(tmp_path / "n").once(f"{shape}", lambda value=value: value), value)
        assert torch.equal(kept(tmp_path / "n").once(f"{shape}", fails), value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-4],
        lambda text: text[:-1],
        lambda text: text.replace("101", "100"),
        lambda text: text.replace('"b"', '"c"'),
        lambda text: text + '["d", [3], "1',
        lambda text: text + "\x00\n",
        lambda text: text + "[" * 100_000,
    ],
)
def test_what_is_torn_or_changed_is_looked_at_again_and_what_is_before_it_is_not(tmp_path, spoil):
    path, first, second = tmp_path / "n", torch.tensor([True, True]), torch.tensor([True, False, True])
    kept(path).once("a", lambda: first)
    kept(path).once("b", lambda: second)
    path.write_text(spoil(path.read_text()))
    again = kept(path)
    assert torch.equal(again.once("a", fails), first)
    assert torch.equal(again.once("b", lambda: second), second)
    assert torch.equal(kept(path).once("b", fails), second)


def test_another_owners_findings_are_none(tmp_path):
    kept(tmp_path / "n").once("a", lambda: torch.tensor([True]))
    assert not kept(tmp_path / "n", "you").once("a", lambda: torch.tensor([False])).any()
    assert kept(tmp_path / "n", "me").once("a", lambda: torch.tensor([True])).all()


def test_a_run_goes_on_within_an_evaluator_and_leaves_no_notes(tiny, tmp_path, watch, monkeypatch):
    recipe = tiny(
        'evaluators=[{kind="pgd", steps=2, step_size="1/255", epsilon="1/255", batch_size=2, restarts=2}]',
        'validation={fraction=0.0, report="last"}',
    )
    expected = run.execute(recipe, tmp_path / "whole", CPU, watch)
    attack, left = Pgd.attack, iter(range(3))

    def interrupted(self, *arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return attack(self, *arguments)

    part = tmp_path / "part"
    with monkeypatch.context() as patch:
        patch.setattr(Pgd, "attack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.execute(recipe, part, CPU, watch)
    (notes,) = (part / "verdicts").iterdir()
    assert notes.name.startswith("PGD2 ")
    assert len(notes.read_text().splitlines()) == 1 + 3
    assert not Results.load(part).measured
    found = run.execute(recipe, part, CPU, watch)
    assert found.of("last").outcomes[0].correct == expected.of("last").outcomes[0].correct > 0
    assert not (part / "verdicts").exists()


def test_findings_are_those_of_the_images_that_they_were_found_on(trained, tmp_path):
    """Another machine may begin with other images standing; then a batch of the same number holds others."""
    network, whole = trained
    images, evaluator = Images(whole.test.pixels[:14], whole.test.labels[:14]), EVALUATORS["pgd"]
    expected = finding(network, evaluator, images, Blank())
    shifted = Images(images.pixels, images.labels.clone())
    shifted.labels[0] = (shifted.labels[0] + 1) % 10  # one image less stands, and every batch holds others
    finding(network, evaluator, shifted, kept(tmp_path / "n"))
    assert torch.equal(finding(network, evaluator, images, kept(tmp_path / "n")), expected)
