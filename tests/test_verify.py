"""Adversarial images that were kept are looked at again, and what was changed in them is found."""

import json
import shutil
from dataclasses import replace
from io import StringIO

import pytest
import torch
from interrupted import CPU
from rich.console import Console
from typer.testing import CliRunner

from advmix_cli import build, checkpoint, run, verify
from advmix_cli.cli import app
from advmix_cli.data.images import Dataset, Images
from advmix_cli.errors import CheckpointError, RunDirectoryError, UsageError
from advmix_cli.evaluation import verdict_files
from advmix_cli.evaluation.outcome import Evaluated
from advmix_cli.evaluation.verdict_files import Record
from advmix_cli.evaluation.verdicts import NOTHING, Verdicts
from advmix_cli.report.comparison import records
from advmix_cli.report.grid import Cell
from advmix_cli.verify import kept, verified


@pytest.fixture(scope="module")
def ran(tiny, tmp_path_factory):
    """A run directory, and the file of the images that a PGD ended with on its test images."""
    from advmix_cli.report.progress import Lines

    directory = tmp_path_factory.mktemp("run")
    run.execute(tiny("schedule.epochs=3"), directory, CPU, Lines(Console(file=StringIO())))
    done = CliRunner().invoke(app, ["eval", str(directory), "--save-adversarial", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    (path,) = (path for path in (directory / "adversarial").iterdir() if path.name.startswith("PGD2"))
    return directory, path


def look(path, **changes):
    return list(verified([path], changes.get("given"), changes.get("root"), CPU, lambda _: None))


def test_what_was_kept_is_what_its_verdicts_say(ran):
    directory, path = ran
    assert path in kept(directory)
    (found,) = look(path)
    record = verdict_files.load(path)
    assert found.is_right
    assert (found.n, found.epsilon) == (40, 16 / 255)
    assert found.largest == pytest.approx(16 / 255, abs=1e-6)
    assert found.accuracy == record.found.outcome.accuracy
    assert (found.out_of_range, found.clean_differ, found.differ, found.undecided) == (0, 0, 0, 0)
    assert abs(found.rounded - found.accuracy) < 0.2
    assert abs(found.bf16 - found.accuracy) < 0.2


def forge(path, target, edit):
    """A whole file, with all of its checksums, in which something is not what it was."""
    record = verdict_files.load(path)
    one = record.found
    verdicts = edit(one.verdicts)
    found = Evaluated.of(one.outcome.name, verdicts, one.labels, 1.0, one.outcome.settings, one.outcome.machine)
    replace(record, found=found).save(target)
    return target


def images(change):
    def edit(verdicts):
        moved = verdicts.images.clone()
        change(moved, verdicts)
        return verdicts._replace(images=moved)

    return edit


def far(moved, _):
    moved[0, 0, 0, 0] += 0.5 if moved[0, 0, 0, 0] < 0.5 else -0.5


def outside(moved, _):
    moved[3, 0, 2, 2] = 1.001
    moved[4, 0, 2, 2] = float("nan")


@pytest.mark.parametrize(
    ("edit", "wrong"),
    [
        (images(far), "largest"),
        (images(outside), "out_of_range"),
        (lambda v: v._replace(margin=v.margin + 0.5), "margins_differ"),
        (lambda v: v._replace(margin=torch.full_like(v.margin, torch.nan)), "margins_differ"),
        (lambda v: v._replace(broken_by=torch.full_like(v.broken_by, -1)), "differ"),
        (lambda v: v._replace(broken_by=torch.where(v.clean, 0, -1).to(torch.int8)), "differ"),
        (lambda v: v._replace(clean=~v.clean, broken_by=torch.full_like(v.broken_by, -1)), "clean_differ"),
    ],
)
def test_what_is_not_is_found(ran, tmp_path, edit, wrong):
    directory, path = ran
    (found,) = look(forge(path, tmp_path / "x.safetensors", edit), given=directory)
    assert not found.is_right
    if wrong == "largest":
        assert 0.4 < found.largest < 0.7
    else:
        assert getattr(found, wrong) >= (2 if wrong == "out_of_range" else 1)


def test_a_perturbation_is_measured_to_the_last_levels_of_rounding(ran):
    (found,) = look(ran[1])
    assert not found._replace(epsilon=found.largest - 2e-6).is_right
    assert found._replace(epsilon=found.largest - 5e-7).is_right


def test_rounding_decides_an_image_in_a_hundred_and_no_more(ran):
    (found,) = look(ran[1])
    assert found._replace(undecided=1).is_right
    assert not found._replace(undecided=2).is_right
    assert found._replace(undecided=2, n=200).is_right


class Threshold(torch.nn.Module):
    """Class 1 where the only pixel is above `at`."""

    def __init__(self, at):
        super().__init__()
        self.linear = torch.nn.Linear(1, 2)
        self.linear.load_state_dict({"weight": torch.tensor([[0.0], [1.0]]), "bias": torch.tensor([at, 0.0])})

    def forward(self, x):
        return self.linear(x.flatten(1))


def verified_pixels(at, levels, kept, clean, robust, off=()):
    """Of images of a pixel, all of class 1, which a threshold judges; margins are `off` by so many roundings."""
    pixels, found = (torch.tensor(values)[:, None, None, None] for values in (levels, kept))
    part, network, margin = (
        Images(pixels.to(torch.uint8), torch.ones(len(levels)).long()),
        Threshold(at),
        found[:, 0, 0, 0],
    )
    margin = margin - network.linear.bias[0].detach()
    margin[: len(off)] += torch.tensor(off) * verify._rounding(network, found)[: len(off)]
    broken_by = torch.tensor(
        [NOTHING if stands or not right else 0 for right, stands in zip(clean, robust, strict=True)]
    )
    verdicts = Verdicts(("a",), torch.tensor(clean), broken_by.to(torch.int8), margin, found)
    settings = {"split": "test", "epsilon": 1.0}
    one = Evaluated.of("x", verdicts, part.labels, 1.0, settings, {})
    record = Record(one, "w", part.fingerprint(), ("0", "1"))
    return verify._verified(None, record, network, Dataset(part, part, part, ("0", "1"), [0.5], [0.5]))


def test_accuracies_are_those_of_the_arithmetic_that_they_are_named_for_and_of_what_was_right(monkeypatch):
    """Between levels 100 and 101, where bf16 has steps of half a level; δ is largest in the first of three batches."""
    monkeypatch.setattr(verify, "BATCH", 2)
    steps = [0.9, 201.4 / 512, 100.4 / 255, 100.6 / 255, 0.9]
    found = verified_pixels(201.2 / 512, [50, 101, 101, 101, 230], steps, [False] + [True] * 4, [True] * 5)
    assert (found.accuracy, found.rounded, found.bf16) == (4 / 5, 2 / 5, 3 / 5)
    assert found.largest == pytest.approx(0.9 - 50 / 255)
    assert (found.differ, found.undecided, found.clean_differ, found.margins_differ) == (1, 0, 0, 0)


def test_what_rounding_decides_is_told_apart_from_what_is_wrong():
    at = 100 / 255 + 1e-7
    found = verified_pixels(at, [100, 100], [at + 1e-7, 0.9], [True, True], [False, True])
    assert (found.clean_differ, found.differ, found.undecided) == (0, 0, 1)


def test_a_margin_may_be_off_by_ten_roundings():
    found = verified_pixels(0.3, [200] * 4, [0.8] * 4, [True] * 4, [True] * 4, off=(9.0, -9.0, 11.0, -11.0))
    assert found.margins_differ == 2
    logits = torch.tensor([[4.0, 1.0, -6.0]])
    assert verify._rounding(lambda _: logits, logits).item() == pytest.approx(1e-3 + 6e-6)


def test_a_common_offset_of_all_logits_hides_nothing():
    """Rounding grows with the logits, and not so fast that it would decide everything."""

    class Offset(torch.nn.Module):
        def forward(self, x):
            return 1e4 + x.flatten(1)[:, :10]

    x = torch.rand(5, 1, 8, 8)
    scale = verify._rounding(Offset(), x)
    assert (scale < 0.02).all()


def test_other_labels_or_images_than_the_data_s_are_refused(ran, tmp_path):
    directory, path = ran
    record = verdict_files.load(path)
    moved = record.found._replace(labels=(record.found.labels + 1) % 10)
    outcome = record.found.outcome
    again = Evaluated.of(outcome.name, moved.verdicts, moved.labels, 1.0, outcome.settings, outcome.machine)
    replace(record, found=again).save(tmp_path / "l.safetensors")
    replace(record, images="0" * 64).save(tmp_path / "i.safetensors")
    for name in "li":
        (found,) = look(tmp_path / f"{name}.safetensors", given=directory)
        assert found.why == "its images or their labels are not those of its data"


@pytest.mark.parametrize("change", [{"split": "nope"}, {"split": None}, {"epsilon": "inf"}, {"epsilon": 2.0}])
def test_settings_that_no_evaluator_has_are_refused(ran, tmp_path, change):
    directory, path = ran
    record = verdict_files.load(path)
    one = record.found
    found = Evaluated.of("x", one.verdicts, one.labels, 1.0, {**one.outcome.settings, **change}, one.outcome.machine)
    replace(record, found=found).save(tmp_path / "s.safetensors")
    (found,) = look(tmp_path / "s.safetensors", given=directory)
    assert not found.is_right
    assert found.why.startswith("not a whole file of verdicts: ")


def test_images_without_an_epsilon_are_refused(ran, tmp_path):
    directory, path = ran
    record = verdict_files.load(path)
    one = record.found
    settings = {name: value for name, value in one.outcome.settings.items() if name != "epsilon"}
    found = Evaluated.of("x", one.verdicts, one.labels, 1.0, settings, one.outcome.machine)
    replace(record, found=found).save(tmp_path / "s.safetensors")
    (found,) = look(tmp_path / "s.safetensors", given=directory)
    assert found.why == "not a whole file of verdicts: its epsilon is not in [0, 1]"


def test_files_that_were_exchanged_are_noticed_and_a_name_of_one_s_own_is_none(ran, tmp_path):
    directory, path = ran
    record = verdict_files.load(path)
    for name, misnamed in (
        (path.name, False),
        ("of mine.safetensors", False),
        (f"{path.stem} of mine.safetensors", False),
        (path.name.replace("PGD2 ", "PGD20 "), True),
        (f"{path.stem[:-8]}{'0' * 8}.safetensors", True),
        (path.name.replace("PGD2 ", ""), True),
    ):
        assert verdict_files.is_misnamed(tmp_path / name, record) is misnamed, name
    other = next(file for file in path.parent.iterdir() if file.name.startswith("pristine"))
    shutil.copytree(directory, tmp_path / "run")
    exchanged = tmp_path / "run" / "adversarial"
    shutil.copy(other, exchanged / path.name)
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "run"), "--device", "cpu", "--json"])
    assert done.exit_code == 1, done.output
    (found,) = json.loads(done.stdout)["files"]
    assert found["why"] == "what it holds, by pristine, is not what its name says"


def test_a_run_whose_images_are_all_damaged_is_a_mismatch_and_none_without_its_checkpoint(ran, tmp_path):
    directory, path = ran
    shutil.copytree(directory, tmp_path / "run")
    copy = tmp_path / "run" / "adversarial" / path.name
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    words = ["verify", str(tmp_path / "run"), "--device", "cpu"]
    assert CliRunner().invoke(app, words).exit_code == 1
    copy.write_bytes(whole)
    (tmp_path / "run" / "best.safetensors").write_bytes(b"")
    assert CliRunner().invoke(app, words).exit_code == 0
    (tmp_path / "run" / "model.safetensors").rename(tmp_path / "run" / "best.safetensors")
    (tmp_path / "run" / "model.safetensors").write_bytes(b"")
    assert CliRunner().invoke(app, words).exit_code == 0
    (tmp_path / "run" / "best.safetensors").write_bytes(b"")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "model.safetensors: not a whole safetensors file" in done.stderr


def test_the_checkpoint_is_the_one_that_was_measured(ran, tmp_path):
    directory, path = ran
    alone = tmp_path / path.name
    alone.write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match="is not beside it: name it with --checkpoint"):
        look(alone)
    assert look(alone, given=directory)[0].is_right
    with pytest.raises(CheckpointError, match="is not the network that"):
        look(alone, given=directory / "best.safetensors")


def test_a_file_without_its_checkpoint_does_not_hide_the_others(ran, tmp_path):
    alone = tmp_path / ran[1].name
    shutil.copy(ran[1], alone)
    found, other = verified([ran[1], alone], None, None, CPU, print)
    assert found.is_right
    assert "its checkpoint is not beside it" in other.why


def test_data_are_made_once_for_all_checkpoints_that_have_them_and_are_theirs(ran, tiny, tmp_path, monkeypatch):
    directory, path = ran
    saved, recipe, made = checkpoint.load(directory), tiny("validation.fraction=0.1"), []
    replace(saved, images={**saved.images, "train": "0" * 64}).save(tmp_path / "changed.safetensors")
    with pytest.raises(CheckpointError, match="the train images have changed"):
        look(path, given=tmp_path / "changed.safetensors")
    other = tmp_path / "run" / path.name
    other.parent.mkdir()
    shutil.copy(path, other)
    replace(saved, recipe=recipe, images=build.dataset(recipe, CPU, print).fingerprints()).save(
        other.parent / "model.safetensors"
    )
    true, arithmetic = build.dataset, []
    monkeypatch.setattr(build, "arithmetic", arithmetic.append)
    monkeypatch.setattr(build, "dataset", lambda *words: made.append(words[0]) or true(*words))
    assert all(found.is_right for found in verified([path, other, path], None, None, CPU, print))
    assert made == [saved.recipe, recipe]
    assert arithmetic == [saved.recipe, recipe, saved.recipe]


def test_the_command_prints_a_line_a_file_and_ends_with_1_if_one_is_wrong(ran, tmp_path):
    directory, path = ran
    done = CliRunner().invoke(app, ["verify", str(directory), "--json", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["is_right"] is True
    assert [one["evaluator"] for one in document["files"]] == ["PGD2"]
    forged = forge(path, tmp_path / "x.safetensors", images(far))
    done = CliRunner().invoke(app, ["verify", str(forged), "--checkpoint", str(directory)])
    assert done.exit_code == 1
    assert "WRONG" in done.stdout
    assert f"not what its verdicts say: {forged}" in done.stderr.replace("\n", "")


def test_a_checkpoint_in_a_run_stands_for_what_was_measured_of_it(ran, tmp_path):
    directory, _ = ran
    of_run = records(directory, "last")
    assert len(of_run) > 1
    found = records(directory / "model.safetensors", "best")
    assert found.keys() == of_run.keys()
    assert {one.selection for one in found.values()} == {"last"}
    shutil.copytree(directory, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(RunDirectoryError, match="it is a checkpoint; name its run directory"):
        records(tmp_path / "run" / "model.safetensors", "last")


def test_a_damaged_file_does_not_hide_the_others(ran, tmp_path):
    directory, path = ran
    shutil.copytree(directory, tmp_path / "run")
    kept = tmp_path / "run" / "adversarial"
    kept.mkdir(exist_ok=True)
    shutil.copy(path, kept / "b.safetensors")
    (kept / "a.safetensors").write_bytes(b"\0" * 100)
    (kept / "c.safetensors").write_bytes(b"\0" * 100)
    words = ["verify", str(tmp_path / "run"), "--device", "cpu"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output
    assert done.stdout.count("NOT looked at: ") == 2
    assert "".join(done.stdout.split()).count(f"{kept}/a.safetensors") == 1
    assert "right" in done.stdout
    document = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert document["is_right"] is False
    found = {one["path"].rsplit("/", 1)[1]: one for one in document["files"]}
    assert [found[name]["is_right"] for name in ("a.safetensors", "b.safetensors", "c.safetensors")] == [0, 1, 0]
    assert "not a whole file of verdicts" in found["a.safetensors"]["why"]


def test_images_beside_the_run_are_looked_at_whatever_else_there_is(ran, tmp_path):
    directory, path = ran
    shutil.copytree(directory, tmp_path / "run")
    kept_beside = tmp_path / "run" / path.name
    shutil.move(tmp_path / "run" / "adversarial" / path.name, kept_beside)
    assert kept_beside in kept(tmp_path / "run")
    assert {one.parent.name for one in kept(tmp_path / "run")} == {"run", "adversarial"}
    (tmp_path / "run" / "mine.safetensors").write_bytes(b"a file of one's own")
    assert tmp_path / "run" / "mine.safetensors" not in kept(tmp_path / "run")


def test_bad_places_are_one_message(ran, tmp_path):
    directory, _ = ran
    for words, message in (
        (["nowhere"], "nowhere: no such file or directory"),
        ([str(tmp_path)], "holds no adversarial images"),
        ([str(directory / "model.safetensors")], "model.safetensors: it is a checkpoint; name its run directory"),
        ([str(directory), "--data-root", "x"], "--data-root: 'root' has no meaning for [data] source = \"digits\""),
    ):
        done = CliRunner().invoke(app, ["verify", *words])
        assert done.exit_code == 2, done.output
        assert message in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr


def test_its_table_fits_80_columns_and_says_what_is_wrong(ran):
    (found,) = look(ran[1])
    worst = found._replace(
        evaluator="AA cheap-2020", n=10_000, largest=1.0, out_of_range=999_999, clean_differ=10_000, differ=9_000,
        undecided=3, margins_differ=10_000, accuracy=1.0, rounded=1.0, bf16=1.0,
    )  # fmt: skip
    grid = verify.verified_grid([found, worst], [])
    console = Console(file=StringIO(), width=80)
    replace(grid, captions=()).print(console)
    assert max(map(len, console.file.getvalue().splitlines())) <= 80
    own = found._replace(largest=12 / 255, accuracy=0.8, rounded=0.4, bf16=0.6)
    (row,) = verify.verified_grid([own], []).rows
    shares = Cell("80.0", ("8 bits 40.0", "bf16 60.0"))
    assert row == (Cell("PGD2"), Cell("right"), Cell("12.000", ("ε 16",)), Cell("0"), shares, Cell("40"))
    of_what = ("pixels 999,999", "clean 10,000", "attacked 9,000", "margins 10,000", "rounding 3")
    assert grid.rows[1][3] == Cell("1,028,999", of_what)
