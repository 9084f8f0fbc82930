"""A training that was stopped goes on as if it had not been: the same bits in weights, buffers and metrics."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w
import torch
from interrupted import CPU, SMALL, StopAt, bits, same, stopped
from kinds import kinds_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from advmix_cli import build, checkpoint, fit, machine, run, state, training_files
from advmix_cli.errors import AdvmixError, RunDirectoryError, StoppedError
from advmix_cli.files import write_atomically
from advmix_cli.fit import Keeping
from advmix_cli.recipe import schema
from advmix_cli.report.results import Measured, Results
from advmix_cli.report.tables import outcome_grid
from advmix_cli.seals import sealed, unsealed
from advmix_cli.training import resuming
from advmix_cli.training.loop import Progress

OPTIMIZERS = {
    "sgd": '{kind="sgd", lr=0.1}',
    "sgd without momentum": '{kind="sgd", lr=0.1, momentum=0.0}',
    "adam": '{kind="adam", lr=0.01}',
    "adamw": '{kind="adamw", lr=0.01}',
    "yogi": '{kind="yogi", lr=0.01}',
}


def test_every_optimizer_of_a_recipe_is_among_them():
    assert kinds_of(schema.Optimizer) == {text.split('"')[1] for text in OPTIMIZERS.values()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_stop_in_mid_epoch_changes_no_bit(whole, tmp_path, watch, said, name):
    recipe, expected = whole(f"optimizer={OPTIMIZERS[name]}", 'maximizer.ascent.batch_norm="train"')
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=3)
    assert {path.name for path in part.iterdir()} == {".lock", "metrics.jsonl", "recipe.toml", "results.json", "state"}
    assert Results.load(part).finished is False
    run.execute(recipe, part, CPU, watch)
    assert same(bits(part), expected)
    assert "resumed at epoch 1, after 3 of its 4 batches" in said.getvalue()
    assert not (part / "state").exists()


def test_every_place_to_stop_is_as_good_as_any_other(whole, tmp_path, watch):
    """Between batches, before and after a validation, and several times in one training."""
    recipe, expected = whole("loss.pristine_weight=0.5")
    for at in (1, 4, 5, 6, 10, 15):
        part = tmp_path / f"part {at}"
        stopped(recipe, part, watch, at)
        run.execute(recipe, part, CPU, watch)
        assert same(bits(part), expected), at
    often, turns = tmp_path / "often", 0
    while not (often / "model.safetensors").exists():
        turns += 1
        try:
            run.execute(recipe, often, CPU, watch, Keeping(1e9, StopAt(2)))
        except StoppedError:
            continue
    assert turns >= 7
    assert same(bits(often), expected)


def test_a_state_that_is_damaged_is_said_and_the_one_before_it_is_used(whole, tmp_path, watch, said):
    recipe, expected = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7, every=0)
    manifests = sorted((part / "state").glob("*.json"))
    assert len(manifests) == 2 == len(list((part / "state").glob("*.safetensors")))
    newest = manifests[-1].with_suffix(".safetensors")
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    run.execute(recipe, part, CPU, watch)
    place = manifests[-1].with_suffix("")
    assert f"warning: the state {place} is damaged: its tensors are not those that were saved" in said.getvalue()
    assert f"resumed at epoch {manifests[0].stem[5]}, after {manifests[0].stem[-1]} of" in said.getvalue()
    assert same(bits(part), expected)


def test_without_a_whole_state_it_is_not_started_again_by_itself(whole, tmp_path, watch, said):
    recipe, expected = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7, every=0)
    for manifest in manifests(part):
        manifest.write_text(manifest.read_text()[:-20])
    before = sorted((part / "state").iterdir())
    with pytest.raises(RunDirectoryError, match=r"state holds no whole state; delete it to start this training again"):
        run.execute(recipe, part, CPU, watch)
    assert sorted((part / "state").iterdir()) == before
    assert "starts again" not in said.getvalue()
    shutil.rmtree(part / "state")
    run.execute(recipe, part, CPU, watch)
    assert f"{part} holds an earlier training and no state of it: it starts again\n" in said.getvalue()
    assert same(bits(part), expected)


def test_a_disk_that_does_not_give_a_state_has_not_lost_it(whole, tmp_path, watch, monkeypatch):
    recipe, expected = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7, every=0)
    before = sorted((part / "state").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(state, "read", lambda path: (_ for _ in ()).throw(OSError(5, "Input/output error", str(path))))
        with pytest.raises(OSError, match="Input/output error"):
            run.execute(recipe, part, CPU, watch)
    assert sorted((part / "state").iterdir()) == before
    run.execute(recipe, part, CPU, watch)
    assert same(bits(part), expected)


def test_a_torn_last_line_of_the_metrics_is_left_out(whole, tmp_path, watch):
    recipe, expected = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7)
    with (part / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"epoch": 2, "lo')
    with (part / "metrics.jsonl").open("ab") as metrics:
        metrics.write(b"\xff\xfe")
    run.execute(recipe, part, CPU, watch)
    assert same(bits(part), expected)


@pytest.mark.parametrize(
    ("lost", "words"), [("metrics.jsonl", "lacks an epoch that has been trained"), ("best.safetensors", "no such file")]
)
def test_a_file_that_is_lost_is_an_error_and_not_another_result(whole, tmp_path, watch, lost, words):
    recipe, _ = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7)
    (part / lost).unlink()
    with pytest.raises(RunDirectoryError, match=words):
        run.execute(recipe, part, CPU, watch)


def test_a_best_network_that_the_disk_does_not_give_has_not_lost_it(whole, tmp_path, watch, monkeypatch):
    recipe, expected = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7)

    def closed(path):
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "read", closed)
        with pytest.raises(RunDirectoryError, match=r"best\.safetensors cannot be read: Input/output error$"):
            run.execute(recipe, part, CPU, watch)
    run.execute(recipe, part, CPU, watch)
    assert same(bits(part), expected)


def test_another_machine_is_noticed_before_it_goes_on(whole, tmp_path, watch, said, monkeypatch):
    recipe, _ = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=3)
    monkeypatch.setattr(machine, "device_name", lambda _: "another machine")
    run.execute(recipe, part, CPU, watch)
    assert "warning: not bit for bit what an uninterrupted training would be: device was " in said.getvalue()
    assert ", is another machine\n" in said.getvalue()


def test_the_tensors_of_another_training_are_refused(tiny):
    recipe, other = tiny(), tiny("model.width=3")
    images = build.dataset(recipe, CPU, print)
    one, two = (build.training(each, images, build.new_network(each, images, CPU)) for each in (recipe, other))
    with pytest.raises(ValueError, match="its network is another one"):
        resuming.restore(two, resuming.tensors(one, fit.Progress()), 1, 0, ())


def test_an_unfinished_training_wants_resume(tiny, tmp_path, watch):
    from typer.testing import CliRunner

    from advmix_cli.cli import app

    recipe = tiny(*SMALL)
    path, part = tmp_path / "r.toml", tmp_path / "part"
    path.write_text(tomli_w.dumps(recipe.resolved()))
    stopped(recipe, part, watch, at=3)
    found = CliRunner().invoke(app, ["train", str(path), "--out", str(part)])
    assert (found.exit_code, found.stdout) == (2, "")
    assert "holds an unfinished training: go on with --resume" in " ".join(found.stderr.split())
    found = CliRunner().invoke(app, ["train", str(path), "--out", str(part), "--resume"])
    assert found.exit_code == 0, found.output
    assert CliRunner().invoke(app, ["train", str(path), "--out", str(part), "--resume"]).exit_code == 0


def test_a_run_s_own_recipe_goes_on_where_it_is(tiny, tmp_path, watch, monkeypatch):
    from typer.testing import CliRunner

    from advmix_cli.cli import app

    part = tmp_path / "part"
    monkeypatch.chdir(tmp_path)
    stopped(tiny(*SMALL), part, watch, at=3)
    found = CliRunner().invoke(app, ["train", "part/recipe.toml", "--resume", "--device", "cpu"])
    assert found.exit_code == 0, found.output
    assert "resumed at epoch 1, after 3 of" in found.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


@pytest.mark.parametrize("left", ["results.json", "state"])
def test_a_run_s_own_recipe_is_known_by_what_is_left_of_the_run(tiny, tmp_path, watch, monkeypatch, left):
    """results.json may be deleted, to measure again; so may the states, to begin again."""
    from advmix_cli.commands.train import _run_of

    monkeypatch.chdir(tmp_path)
    stopped(tiny(*SMALL), tmp_path / "part", watch, at=3)
    (tmp_path / "part" / left).unlink() if left == "results.json" else shutil.rmtree(tmp_path / "part" / left)
    assert _run_of("part/recipe.toml") == Path("part")
    (tmp_path / "own").mkdir()
    for name in ("recipe.toml", "results.json"):
        (tmp_path / "own" / name).touch()
    assert _run_of("own/recipe.toml") is _run_of("part/other.toml") is None


def test_killed_right_after_the_last_weights_it_still_knows_how_they_came_to_be(tiny, tmp_path, watch, monkeypatch):
    recipe, part = tiny(*SMALL), tmp_path / "part"
    with monkeypatch.context() as patch:
        patch.setattr("advmix_cli.run.shutil.rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run.execute(recipe, part, CPU, watch, Keeping(every=0))
    assert (part / "model.safetensors").exists()
    assert (part / "state").exists()
    results = run.execute(recipe, part, CPU, watch)
    assert results.finished
    assert [machine["engine"] for machine in results.machines] == ["eager"]
    assert results.seconds > 0
    assert not (part / "state").exists()


def test_killed_in_the_very_first_write_the_directory_can_be_used_and_is_cleaned(tiny, tmp_path, watch):
    part = tmp_path / "part"
    part.mkdir()
    for name in (".lock", ".recipe.toml.abc"):
        (part / name).touch()
    run.execute(tiny(*SMALL), part, CPU, watch)
    assert not (part / ".recipe.toml.abc").exists()


def manifests(directory):
    return sorted((directory / "state").glob("*.json"))


@pytest.mark.parametrize("key", ["epoch", "done", "best", "seconds", "metrics", "names"])
def test_a_manifest_that_was_changed_is_damaged(whole, tmp_path, watch, said, key):
    """A number in it is as much a part of the state as a weight is."""
    recipe, expected = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7, every=0)
    newest = manifests(part)[-1]
    document = json.loads(newest.read_text())
    newest.write_text(json.dumps({**document, key: None}))
    run.execute(recipe, part, CPU, watch)
    assert f"{newest.stem} is damaged: it is not what was written: its checksum differs" in said.getvalue()
    assert "resumed at epoch 2, after 1 of" in said.getvalue()
    assert same(bits(part), expected)


def test_a_state_under_another_name_is_none(whole, tmp_path, watch, said):
    """A copy of an old state as the newest one."""
    recipe, expected = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7, every=0)
    oldest = manifests(part)[0]
    for file in (oldest, oldest.with_suffix(".safetensors")):
        (part / "state" / f"000003-000003{file.suffix}").write_bytes(file.read_bytes())
    run.execute(recipe, part, CPU, watch)
    assert f"it is the state {oldest.stem}" in said.getvalue()
    assert "resumed at epoch 2, after 2 of" in said.getvalue()
    assert same(bits(part), expected)


@pytest.mark.parametrize("change", ["recipe", "train", "validation", "test"])
def test_a_state_of_another_recipe_or_of_other_images_is_refused(tiny, tmp_path, watch, change):
    recipe, part = tiny(*SMALL), tmp_path / "part"
    stopped(recipe, part, watch, at=3)
    known, other = state.newest(part / "state", print), "0" * 64
    changes = {"recipe": other} if change == "recipe" else {"images": {**known.images, change: other}}
    replace(known, **changes).save(part / "state")
    with pytest.raises(RunDirectoryError, match="belongs to another recipe or other images"):
        run.execute(recipe, part, CPU, watch)


def test_a_metrics_line_that_was_changed_is_an_error(whole, tmp_path, watch):
    recipe, _ = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7)
    text = (part / "metrics.jsonl").read_text()
    (part / "metrics.jsonl").write_text(text.replace('"validation_accuracy": 0', '"validation_accuracy": 1'))
    with pytest.raises(RunDirectoryError, match="lacks an epoch that has been trained, or was changed"):
        run.execute(recipe, part, CPU, watch)


class Killed(BaseException):
    """As SIGKILL: nothing is saved on the way out."""


def killed_writing(monkeypatch, name, recipe, directory, watch, every=1e9):
    """Killed just before the first write of a file called `name`."""

    def write(path, content):
        if path.name == name:
            raise Killed
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        for module in (checkpoint, state, training_files):
            patch.setattr(module, "write_atomically", write)
        with pytest.raises(Killed):
            run.execute(recipe, directory, CPU, watch, Keeping(every))


@pytest.mark.parametrize("name", ["best.safetensors", "000002-000000.json", "000002-000000.safetensors"])
def test_killed_between_the_state_and_the_best_network_neither_is_lost(whole, tmp_path, watch, said, monkeypatch, name):
    recipe, expected = whole()
    part = tmp_path / "part"
    killed_writing(monkeypatch, name, recipe, part, watch)
    assert not (part / "best.safetensors").exists()
    run.execute(recipe, part, CPU, watch)
    assert ("resumed at epoch 2, after 0 of" in said.getvalue()) == (name == "best.safetensors")
    assert same(bits(part), expected)


def test_the_best_network_of_epochs_that_are_trained_anew_is_never_taken_for_the_best(tiny, tmp_path, watch):
    """After damage to the newest state, on a machine whose bits differ, the epoch that was the best may not be it."""
    recipe, part = tiny(*SMALL, "validation.fraction=0.3"), tmp_path / "part"
    stopped(recipe, part, watch, at=14, every=0)  # in the third epoch
    best = checkpoint.load(part / "best.safetensors")
    newest = state.newest(part / "state", print)
    assert newest.best.epoch == best.epoch
    # As if the best epoch had been another one, which is not there any more.
    other = state.Best(2.0, newest.epoch - 1, "0" * 64)
    state.leave_only(None, part / "state")
    replace(newest, best=other).save(part / "state")
    with pytest.raises(RunDirectoryError, match=f"is not the network of epoch {other.epoch}, the best one"):
        run.execute(recipe, part, CPU, watch)
    # One from an epoch that is yet to come may be beaten; if it is not, there is no best network.
    replace(best, epoch=newest.epoch).save(part / "best.safetensors")
    with pytest.raises(RunDirectoryError, match=f"is not the network of epoch {other.epoch}, the best one"):
        run.execute(recipe, part, CPU, watch)
    assert len((part / "metrics.jsonl").read_text().splitlines()) == 3
    assert not (part / "model.safetensors").exists()


EMA = 'averaging={kind="ema", decay=0.8}'
AVERAGES = {"average.safetensors", "average-best.safetensors"}


def test_an_average_goes_on_with_the_same_bits_from_any_place(whole, tmp_path, watch):
    recipe, expected = whole(EMA, 'maximizer.ascent.batch_norm="train"')
    assert expected[0].keys() == {"model.safetensors", "best.safetensors", *AVERAGES}
    assert len(set(expected[0].values())) >= 3
    for at in (1, 4, 6, 11):
        part = tmp_path / f"part {at}"
        stopped(recipe, part, watch, at)
        assert not (part / "average.safetensors").exists()
        run.execute(recipe, part, CPU, watch)
        assert same(bits(part), expected), at


def test_an_average_changes_no_bit_of_its_training(whole, tiny, tmp_path, watch):
    _, (tensors, lines) = whole()
    run.execute(tiny(*SMALL, EMA), tmp_path / "averaged", CPU, watch)
    beside, more = bits(tmp_path / "averaged")
    assert {name: beside[name] for name in beside.keys() - AVERAGES} == tensors
    assert [{key: line[key] for key in line if not key.startswith("average_")} for line in more] == lines


def test_killed_before_any_file_of_an_average_none_is_lost(whole, tmp_path, watch, said, monkeypatch):
    recipe, expected = whole(EMA)
    for name in ("000002-000000.json", "best.safetensors", *sorted(AVERAGES), "model.safetensors"):
        part = tmp_path / f"part {name}"
        killed_writing(monkeypatch, name, recipe, part, watch)
        assert not (part / name).exists()
        said.truncate(0)
        run.execute(recipe, part, CPU, watch)
        assert ("resumed at epoch" in said.getvalue()) == name.endswith(".safetensors")
        assert same(bits(part), expected), name


@pytest.mark.parametrize("name", sorted(AVERAGES))
def test_an_average_that_is_lost_or_another_one_is_an_error(tiny, tmp_path, watch, name):
    recipe, part = tiny(*SMALL[:2], EMA, 'evaluators=[{kind="pristine"}]'), tmp_path / "part"
    if name == "average-best.safetensors":
        stopped(recipe, part, watch, at=7)
        kept = (part / name).read_bytes()
        (part / name).unlink()
        with pytest.raises(RunDirectoryError, match=r"average-best\.safetensors: no such file"):
            run.execute(recipe, part, CPU, watch)
        (part / name).write_bytes(kept)
    run.execute(recipe, part, CPU, watch)
    (part / "results.json").unlink()
    (part / name).unlink()
    with pytest.raises(AdvmixError, match=f"{name}: no such file"):
        run.execute(recipe, part, CPU, watch)
    shutil.copy(part / "model.safetensors", part / name)
    with pytest.raises(RunDirectoryError, match=f"{name} is not the network of epoch"):
        run.execute(recipe, part, CPU, watch)


def test_a_state_and_a_checkpoint_of_before_there_were_averages_are_read(whole, tmp_path, watch):
    recipe, expected = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7)
    (manifest,) = manifests(part)[-1:]
    document = unsealed(json.loads(manifest.read_text()))
    assert document.pop("averaged_best") is None
    manifest.write_text(json.dumps(sealed(document)))
    path = part / "best.safetensors"
    with safe_open(path, framework="pt") as file:
        header = unsealed(json.loads(file.metadata()["advmix"]))
    assert header.pop("averaged") is None
    del header["recipe"]["averaging"]
    save_file(load_file(path), path, {"format": "pt", "advmix": json.dumps(sealed(header))})
    assert checkpoint.load(path).recipe == recipe
    run.execute(recipe, part, CPU, watch)
    assert same(bits(part), expected)


def test_the_state_of_an_average_and_one_without_are_not_taken_for_each_other(tiny):
    recipes = [tiny(*SMALL), tiny(*SMALL, EMA)]
    images = build.dataset(recipes[0], CPU, print)
    one, two = (build.training(each, images, build.new_network(each, images, CPU)) for each in recipes)
    for training, other in ((one, two), (two, one)):
        with pytest.raises(ValueError, match="its network is another one"):
            resuming.restore(training, resuming.tensors(other, fit.Progress()), 1, 0, ())


def test_results_name_every_machine_that_trained(tiny, tmp_path, watch, monkeypatch):
    recipe, part = tiny(*SMALL), tmp_path / "part"
    stopped(recipe, part, watch, at=3)
    stopped(recipe, part, watch, at=2)
    monkeypatch.setattr(machine, "device_name", lambda _: "another machine")
    results = run.execute(recipe, part, CPU, watch)
    first, second = results.machines
    assert (first["from_epoch"], first["from_batches"]) == (1, 0)
    assert (second["from_epoch"], second["from_batches"], second["device"]) == (1, 4, "another machine")
    assert {name for name in first if first[name] != second[name]} == {"from_batches", "device"}
    assert Results.load(part).machines == results.machines == checkpoint.load(part).machines
    (caption,) = (line for line in outcome_grid("", Measured("last", 3, "w"), results.machines).captions)
    device = first["device"]
    assert caption == f"trained on 2 machines: device {device} from epoch 1; device another machine from epoch 1"


def test_a_machine_is_noted_where_another_one_trained_before_it(tiny, tmp_path, watch, said, monkeypatch):
    recipe, part = tiny(*SMALL), tmp_path / "part"
    for name, at in (("a", 7), ("b", 2), ("b", 2)):
        monkeypatch.setattr(machine, "device_name", lambda _, name=name: name)
        stopped(recipe, part, watch, at)
    monkeypatch.setattr(machine, "device_name", lambda _: "a")
    found = run.execute(recipe, part, CPU, watch).machines
    noted = [(one["device"], one["from_epoch"], one["from_batches"]) for one in found]
    assert noted == [("a", 1, 0), ("b", 2, 2), ("a", 3, 1)]
    # The third process found the machine of the second one, of which both were said already.
    assert said.getvalue().count("uninterrupted training would be: 2 machines have trained it\n") == 1


def test_with_deterministic_algorithms_it_trains_the_same_on_a_cpu_and_others_are_left_alone(
    tiny, tmp_path, watch, monkeypatch
):
    seen, step = [], torch.optim.Adam.step

    def watched(self, *arguments, **settings):
        seen.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic))
        return step(self, *arguments, **settings)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    run.execute(tiny(*SMALL), tmp_path / "free", CPU, watch)
    assert set(seen) == {(False, False)}
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    seen.clear()
    stopped(tiny(*SMALL, "engine.deterministic=true"), tmp_path / "fixed", watch, at=3)
    run.execute(tiny(*SMALL, "engine.deterministic=true"), tmp_path / "fixed", CPU, watch)
    assert set(seen) == {(True, True)}
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic) == (False, False)
    free, fixed = bits(tmp_path / "free"), bits(tmp_path / "fixed")
    assert same((free[0], []), (fixed[0], []))


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["off", "step", "graph"])
@pytest.mark.parametrize("method", ['"attack"', '"integrated", delta="shared"'])
def test_on_a_gpu_a_deterministic_training_goes_on_with_the_same_bits(tiny, tmp_path, watch, form, method):
    maximizer = f'maximizer={{kind={method}, ascent={{steps=2, step_size="8/255"}}}}'
    recipe, gpu = tiny(*SMALL, maximizer, f'engine={{compile="{form}", deterministic=true}}'), torch.device("cuda")
    run.execute(recipe, tmp_path / "whole", gpu, watch)
    with pytest.raises(StoppedError):
        run.execute(recipe, tmp_path / "part", gpu, watch, Keeping(1e9, StopAt(3)))
    run.execute(recipe, tmp_path / "part", gpu, watch)
    assert same(bits(tmp_path / "part"), bits(tmp_path / "whole"))


@pytest.mark.parametrize("name", ["torch", "python", "threads", "CPU capability", "advmix"])
def test_each_part_of_a_machine_is_noticed(whole, tmp_path, watch, said, monkeypatch, name):
    recipe, _ = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=3)
    true = machine.described
    monkeypatch.setattr(machine, "described", lambda place: {**true(place), name: "another"})
    run.execute(recipe, part, CPU, watch)
    assert f"would be: {name} was {true(CPU)[name]}, is another\n" in said.getvalue()


def test_seconds_are_those_of_all_processes(whole, tmp_path, watch):
    recipe, _ = whole()
    part = tmp_path / "part"
    stopped(recipe, part, watch, at=7)
    known = state.newest(part / "state", print)
    replace(known, seconds=3600.0).save(part / "state")
    assert 3600 < run.execute(recipe, part, CPU, watch).seconds < 3700


def test_results_that_are_lost_are_found_again_with_the_machines_and_the_seconds(tiny, tmp_path, watch):
    recipe, part = tiny("schedule.epochs=2"), tmp_path / "part"
    before = run.execute(recipe, part, CPU, watch)
    (part / "results.json").unlink()
    after = run.execute(recipe, part, CPU, watch)
    assert (after.machines, after.seconds) == (before.machines, before.seconds)
    assert after.seconds > 0
    assert [entry.selection for entry in after.measured] == [entry.selection for entry in before.measured]


def test_a_best_network_that_is_lost_after_the_training_is_an_error_and_not_the_last_one(tiny, tmp_path, watch):
    recipe, part = tiny(*SMALL[:2], "validation.fraction=0.3", 'validation.report="best"'), tmp_path / "part"
    run.execute(recipe, part, CPU, watch)
    (part / "results.json").unlink()
    best = (part / "best.safetensors").read_bytes()
    (part / "best.safetensors").unlink()
    with pytest.raises(AdvmixError, match="no such file"):
        run.execute(recipe, part, CPU, watch)
    run.execute(tiny(*SMALL[:2], "validation.fraction=0.3", "seed=1"), tmp_path / "other", CPU, watch)
    shutil.copy(tmp_path / "other" / "best.safetensors", part / "best.safetensors")
    with pytest.raises(RunDirectoryError, match="is not the network of epoch"):
        run.execute(recipe, part, CPU, watch)
    (part / "best.safetensors").write_bytes(best)
    assert [entry.selection for entry in run.execute(recipe, part, CPU, watch).measured] == ["best on validation"]


def test_a_state_after_the_last_epoch_is_gone_on_from_and_one_beyond_it_is_not(tiny):
    recipe = tiny(*SMALL)
    images = build.dataset(recipe, CPU, print)
    training = build.training(recipe, images, build.new_network(recipe, images, CPU))
    saved = resuming.tensors(training, Progress())
    assert resuming.restore(training, saved, 4, 0, ()) == Progress(4)
    for epoch, done in ((5, 0), (4, 1), (1, 5)):
        with pytest.raises(ValueError, match="it is further than the training"):
            resuming.restore(training, saved, epoch, done, ())


ODD = [
    ("figures", lambda _: None, "its figures are not those of its batches"),
    ("figures", lambda value: torch.cat([value, value]), "its figures are not those of its batches"),
    ("figures", lambda value: value[:, 1:], "its figures are not those of its batches"),
    ("network.linear.bias", lambda value: value.double(), "its network is another one"),
    ("network.linear.bias", lambda value: value[1:], "its network is another one"),
    ("optimizer.99999.exp_avg", lambda _: torch.zeros(()), "its optimizer has other parameters"),
    ("optimizer.x.exp_avg", lambda _: torch.zeros(()), "its optimizer has other parameters"),
    ("optimizer.{}.exp_avg", lambda _: torch.zeros(()), "its optimizer has other parameters"),
    ("optimizer.0.exp_avg", lambda value: value[1:], "its optimizer's state is another one"),
    ("optimizer.0.square_avg", lambda _: torch.zeros(()), "its optimizer is another one"),
]


@pytest.mark.parametrize(("name", "change", "words"), ODD)
def test_tensors_that_do_not_fit_the_training_are_refused(tiny, name, change, words):
    recipe, reached = tiny(*SMALL), []
    images = build.dataset(recipe, CPU, print)
    training = build.training(recipe, images, build.new_network(recipe, images, CPU))
    next(training.run(reached.append))
    name, saved = name.format(len(list(training.network.parameters()))), resuming.tensors(training, reached[0])
    odd = {key: value for key, value in {**saved, name: change(saved.get(name))}.items() if value is not None}
    with pytest.raises(ValueError, match=f"^{words}$"):
        resuming.restore(training, odd, 1, 1, reached[0].names)
    assert resuming.restore(training, saved, 1, 1, reached[0].names).done == 1


def test_figures_of_an_epoch_that_has_not_begun_are_refused(tiny):
    recipe = tiny(*SMALL)
    images = build.dataset(recipe, CPU, print)
    training = build.training(recipe, images, build.new_network(recipe, images, CPU))
    saved = {**resuming.tensors(training, Progress()), "figures": torch.zeros(0, 0)}
    with pytest.raises(ValueError, match="its figures are not those of its batches"):
        resuming.restore(training, saved, 1, 0, ())


@pytest.mark.parametrize("title", ["", "mine"])
def test_what_is_shown_of_a_training_that_goes_on_begins_where_it_is(tiny, tmp_path, watch, monkeypatch, title):
    recipe, part, shown = tiny(*SMALL, f"title='{title}'"), tmp_path / "part", []
    stopped(recipe, part, watch, at=7)
    monkeypatch.setattr(type(watch), "begin", lambda _, *what: shown.append(what))
    monkeypatch.setattr(type(watch), "advance", lambda _, done, *_note: shown.append(done))
    run.execute(recipe, part, CPU, watch)
    assert shown == [(title or "training", 12, "batches"), 6, *[1] * 6]
