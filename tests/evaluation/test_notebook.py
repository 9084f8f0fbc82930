"""An evaluation that was interrupted goes on where it was, and finds what it would have found."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from findings import finding, same_finding

from advmix_cli import run
from advmix_cli.data.images import Images
from advmix_cli.evaluation.autoattack import AutoAttack
from advmix_cli.evaluation.notebook import Blank, Written
from advmix_cli.evaluation.pgd import Pgd
from advmix_cli.evaluation.predict import Judgement, measured
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
        self.notes, self.left, self.recalled, self.images = notes, looks, 0.0, notes.images

    def once(self, key, shape, look):
        def counted():
            self.left -= 1
            if self.left < 0:
                raise StopHere
            return look()

        return self.notes.once(key, shape, counted)


def silent(_done, _note):
    pass


def verdicts(network, evaluator, images, notes):
    with measured(network):
        return evaluator(Subject.plain(network), images, silent, notes)


def same(one, other):
    kept = [(one.images, other.images)] if one.images is not None else []
    return all(torch.equal(*pair) for pair in [*zip(one[1:4], other[1:4], strict=True), *kept])


@pytest.mark.parametrize("name", [pytest.param("standard", marks=pytest.mark.slow), "cheap-2020", "pgd"])
def test_interrupted_at_every_look_it_finds_the_same_and_looks_no_more_often(trained, tmp_path, name):
    network, whole = trained
    images, evaluator = Images(whole.test.pixels[:14], whole.test.labels[:14]), EVALUATORS[name]
    uninterrupted = Limited(Blank(images=True), 1000)
    expected = verdicts(network, evaluator, images, uninterrupted)
    assert 0 < expected.robust.sum() < len(images)
    looks = 1000 - uninterrupted.left
    assert looks >= 4
    turns = 0
    while True:
        turns += 1
        try:
            # A new process would read the file again.
            found = verdicts(network, evaluator, images, Limited(kept(tmp_path), 1))
        except StopHere:
            continue
        break
    assert turns == looks
    assert same(found, expected)
    nothing = Limited(kept(tmp_path), 0)
    assert same(verdicts(network, evaluator, images, nothing), expected)


def kept(path, owner="me", images=True):
    return Written(path / "notes", owner, CPU, images=images)


def fails():
    raise AssertionError("looked again")


def test_a_finding_has_its_shape_and_its_bits(tmp_path):
    for size in (3, 1, 0):
        found = finding(*(torch.rand(size) > 0.5).tolist(), images=torch.rand(size, 1, 2, 2))
        assert same_finding(kept(tmp_path).once(f"{size}", (size, 1, 2, 2), lambda found=found: found), found)
        assert same_finding(kept(tmp_path).once(f"{size}", (size, 1, 2, 2), fails), found)


def test_images_are_kept_where_they_are_wanted_and_looked_for_where_they_are_not_there(tmp_path):
    found = finding(True, images=torch.rand(1, 1, 2, 2))
    assert kept(tmp_path, images=False).once("a", (1, 1, 2, 2), lambda: found).images is None
    assert same_finding(kept(tmp_path).once("a", (1, 1, 2, 2), lambda: found), found)
    assert kept(tmp_path, images=False).once("a", (1, 1, 2, 2), fails).images is None
    assert same_finding(kept(tmp_path).once("a", (1, 1, 2, 2), fails), found)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: whole[:-4],
        lambda whole: whole[:40],
        lambda _: b"",
        lambda whole: whole.replace(b'\\"seconds\\":', b'\\"Seconds\\":'),
        lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
        lambda whole: whole.replace(b"stands", b"standt"),
        lambda whole: whole + b"x",
    ],
)
def test_what_is_torn_or_changed_is_looked_at_again_and_nothing_else_is(tmp_path, spoil):
    first, second = finding(True, True), finding(True, False, True)
    plain = partial(kept, tmp_path, images=False)
    plain().once("a", (2,), lambda: first)
    before = set((tmp_path / "notes").iterdir())
    plain().once("b", (3,), lambda: second)
    (path,) = set((tmp_path / "notes").iterdir()) - before
    assert spoil(path.read_bytes()) != path.read_bytes()
    path.write_bytes(spoil(path.read_bytes()))
    again = finding(False, False, False)
    assert same_finding(plain().once("a", (2,), fails), first)
    assert same_finding(plain().once("b", (3,), lambda: again), again)
    assert same_finding(plain().once("b", (3,), fails), again)


IMAGE = torch.full((1, 1, 2, 2), 0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        finding(True, images=IMAGE + 1),
        finding(True, images=IMAGE - 1),
        finding(True, images=IMAGE.double()),
        finding(True, images=IMAGE[0]),
        finding(True, False, images=IMAGE),
        finding(True, images=IMAGE)._replace(judgement=Judgement(torch.tensor([True]), torch.tensor([torch.nan]))),
    ],
)
def test_what_is_no_finding_of_these_images_is_looked_at_again(tmp_path, wrong):
    found = finding(False, images=IMAGE)
    kept(tmp_path).once("a", (1, 1, 2, 2), lambda: wrong)
    assert same_finding(kept(tmp_path).once("a", (1, 1, 2, 2), lambda: found), found)


def test_the_seconds_of_what_another_process_has_looked_at_are_recalled(tmp_path, monkeypatch):
    times = iter([10.0, 12.5, 20.0, 21.0])
    monkeypatch.setattr("advmix_cli.evaluation.notebook.time", SimpleNamespace(perf_counter=lambda: next(times)))
    first, second = kept(tmp_path, images=False), kept(tmp_path, images=False)
    for key in ("a", "b"):
        first.once(key, (1,), lambda: finding(True))
    for key in ("a", "b"):
        first.once(key, (1,), fails)
        second.once(key, (1,), fails)
    assert (first.recalled, second.recalled) == (0.0, 2.5 + 1.0)


def test_a_file_under_another_findings_name_is_none(tmp_path):
    kept(tmp_path, images=False).once("a", (1,), lambda: finding(True))
    (path,) = (tmp_path / "notes").iterdir()
    kept(tmp_path, images=False).once("b", (1,), lambda: finding(False))
    (other,) = set((tmp_path / "notes").iterdir()) - {path}
    other.write_bytes(path.read_bytes())
    assert not kept(tmp_path, images=False).once("b", (1,), lambda: finding(False)).stands


def test_another_owners_findings_are_none(tmp_path):
    kept(tmp_path).once("a", (1,), lambda: finding(True))
    assert not kept(tmp_path, "you").once("a", (1,), lambda: finding(False)).stands
    assert kept(tmp_path, "me").once("a", (1,), lambda: finding(True)).stands


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
    (notes,) = (part / "findings").iterdir()
    assert notes.name.startswith("PGD2 ")
    assert len(list(notes.iterdir())) == 3
    assert not Results.load(part).measured
    found = run.execute(recipe, part, CPU, watch)
    assert found.of("last").outcomes[0].correct == expected.of("last").outcomes[0].correct > 0
    assert not (part / "findings").exists()


def test_findings_are_those_of_the_images_that_they_were_found_on(trained, tmp_path):
    """Another machine may begin with other images standing; then a batch of the same number holds others."""
    network, whole = trained
    images, evaluator = Images(whole.test.pixels[:14], whole.test.labels[:14]), EVALUATORS["pgd"]
    expected = verdicts(network, evaluator, images, Blank(images=True))
    shifted = Images(images.pixels, images.labels.clone())
    shifted.labels[0] = (shifted.labels[0] + 1) % 10  # one image less stands, and every batch holds others
    verdicts(network, evaluator, shifted, kept(tmp_path))
    assert same(verdicts(network, evaluator, images, kept(tmp_path)), expected)
