"""One recipe -> one run directory: what is written, what is not done twice, what is refused."""

import json
import math
import os
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from advmix_cli import checkpoint, run
from advmix_cli.course import epoch_line
from advmix_cli.errors import CheckpointError, DataError, DeviceError, DivergedError, RecipeError, RunDirectoryError
from advmix_cli.evaluation import verdict_files
from advmix_cli.evaluation.pgd import Pgd
from advmix_cli.failures import Failure, failure
from advmix_cli.measure.evaluate import evaluate_checkpoint
from advmix_cli.measure.same_images import images_to_measure
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report.results import Results
from advmix_cli.seals import sealed, unsealed
from advmix_cli.tensors import digest

CPU = torch.device("cpu")
KEYS = {
    "epoch",
    "loss",
    "ratio",
    "inner_loss_before",
    "inner_loss_after",
    "lr",
    "images_per_second",
    "seconds",
    "validation_accuracy",
    "validation_pgd_accuracy",
}
TIMINGS = {"images_per_second", "seconds"}


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def snapshot(directory):
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in directory.iterdir()}


@pytest.fixture
def done(tiny, tmp_path, watch):
    """(recipe, directory, results) of a run that has ended."""
    recipe = tiny()
    return recipe, tmp_path / "run", run.execute(recipe, tmp_path / "run", CPU, watch)


def forget(directory, **changes):
    """Edit results.json."""
    path = directory / "results.json"
    path.write_text(json.dumps(sealed({**unsealed(json.loads(path.read_text())), **changes})))


def test_a_run_writes_its_files(done):
    recipe, directory, results = done
    names = {".lock", "recipe.toml", "metrics.jsonl", "model.safetensors", "best.safetensors", "results.json"}
    names |= {"verdicts"}
    assert {path.name for path in directory.iterdir()} == names
    assert Recipe.model_validate(tomllib.loads((directory / "recipe.toml").read_text())) == recipe
    assert Results.load(directory).to_json() == results.to_json()
    assert results.finished
    assert results.digest == recipe.digest()
    assert (results.title, results.epochs, results.train_images) == ("tiny", 2, 128)


def test_metrics_have_a_line_an_epoch_of_finite_numbers(done):
    metrics = lines(done[1])
    assert [line["epoch"] for line in metrics] == [1, 2]
    for line in metrics:
        assert line.keys() == KEYS
        assert all(math.isfinite(value) for value in line.values())
        assert line["ratio"] == 1  # nothing is mixed
        assert line["images_per_second"] > 0
    assert metrics[0]["inner_loss_before"] != metrics[1]["inner_loss_before"]
    assert [line["lr"] for line in metrics] == [0.01, 0.001]  # 0.7 is passed before the last batch, 0.9 is not


@pytest.mark.usefixtures("done")
def test_a_run_is_told_as_it_goes(said):
    text = said.getvalue()
    assert "tiny: 4 batches" in text
    assert "epoch 1/2: loss" in text
    assert "epoch 2/2: loss" in text
    assert "measuring PGD2: 40 images" in text


def test_both_epochs_are_measured_by_every_evaluator(done):
    _, directory, results = done
    assert [entry.selection for entry in results.measured] == ["last", "best on validation"]
    for entry in results.measured:
        assert [outcome.name for outcome in entry.outcomes] == ["pristine", "PGD2"]
        assert all(outcome.n == 40 for outcome in entry.outcomes)
    assert results.of("last").epoch == 2
    assert checkpoint.load(directory).selection == "last"


def test_the_best_epoch_is_the_first_of_the_highest_validation_accuracy(done):
    _, directory, results = done
    accuracies = [line["validation_pgd_accuracy"] for line in lines(directory)]
    best = checkpoint.load(directory / "best.safetensors")
    assert best.epoch == results.of("best").epoch == 1 + accuracies.index(max(accuracies))
    assert best.metrics == lines(directory)[best.epoch - 1]


def test_a_finished_run_is_not_touched_again(done, watch, said):
    recipe, directory, results = done
    before = snapshot(directory)
    assert run.execute(recipe, directory, CPU, watch).to_json() == results.to_json()
    assert snapshot(directory) == before
    assert f"already done: {directory}" in said.getvalue()


def test_another_title_is_the_same_run(done, tiny, watch):
    _, directory, results = done
    renamed = run.execute(tiny('title="renamed"'), directory, CPU, watch)
    assert renamed.to_json() == {**results.to_json(), "title": "renamed"}
    forget(directory, finished=False)
    assert run.execute(tiny('title="again"'), directory, CPU, watch).title == "again"


def test_only_what_is_missing_is_measured(done, watch, said):
    recipe, directory, results = done
    before = snapshot(directory)
    last, best = results.to_json()["measured"]
    del last["outcomes"][1], best["outcomes"][1]
    forget(directory, measured=[last, best], finished=False)
    said.seek(0)
    said.truncate()
    again = run.execute(recipe, directory, CPU, watch)
    assert "measuring PGD2" in said.getvalue()
    assert "measuring pristine" not in said.getvalue()
    assert "epoch" not in said.getvalue()
    for name in ("model.safetensors", "best.safetensors", "metrics.jsonl"):
        assert snapshot(directory)[name] == before[name]
    for selection in ("last", "best"):
        assert again.of(selection).outcome("PGD2").correct == results.of(selection).outcome("PGD2").correct
        assert again.of(selection).outcome("pristine").correct == results.of(selection).outcome("pristine").correct
    assert again.finished


def test_what_one_evaluator_found_is_saved_before_the_next_one_begins(tiny, tmp_path, watch, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Pgd, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        run.execute(tiny("schedule.epochs=1", "validation.fraction=0.0"), tmp_path, CPU, watch)
    assert [one.name for one in Results.load(tmp_path).of("last").outcomes] == ["pristine"]


def test_a_finished_training_without_results_is_only_measured_again(done, watch, said):
    recipe, directory, results = done
    weights = (directory / "model.safetensors").stat()
    (directory / "results.json").unlink()
    said.seek(0)
    said.truncate()
    again = run.execute(recipe, directory, CPU, watch)
    assert "epoch 1/2" not in said.getvalue()
    assert (directory / "model.safetensors").stat() == weights
    assert [entry.outcomes[1].correct for entry in again.measured] == [
        entry.outcomes[1].correct for entry in results.measured
    ]


def test_the_checkpoint_of_another_recipe_is_not_measured(done, tiny, tmp_path, watch):
    recipe, directory, _ = done
    other = tmp_path / "other"
    run.execute(tiny("seed=9"), other, CPU, watch)
    forget(directory, finished=False)
    (other / "model.safetensors").replace(directory / "model.safetensors")
    with pytest.raises(RunDirectoryError, match="is the checkpoint of another recipe"):
        run.execute(recipe, directory, CPU, watch)


@pytest.mark.parametrize("name", ["best", "average", "average-best"])
def test_another_network_of_the_last_epoch_is_not_measured_as_its_own(tiny, tmp_path, watch, name):
    recipe = tiny("schedule.epochs=1", 'averaging={kind="ema", decay=0.5}', "evaluators=[]")
    run.execute(recipe, tmp_path, CPU, watch)
    forget(tmp_path, finished=False)
    (tmp_path / f"{name}.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(RunDirectoryError, match=r"model\.safetensors is not the last epoch's network"):
        run.execute(recipe, tmp_path, CPU, watch)


def test_results_of_a_folder_that_changed_are_not_reused(tiny, tmp_path, watch):
    for part in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / "images" / part / label).mkdir(parents=True)
            for index in range(4):
                pixels = np.full((8, 8, 3), 40 * index + 3 * len(label), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / label / f"{index}.png")
    recipe = tiny(
        f'data={{source="folder", root="{tmp_path / "images"}"}}',
        "schedule={kind='steps', epochs=1, batch_size=4}",
        "validation={fraction=0.0}",
    )
    run.execute(recipe, tmp_path / "run", CPU, watch)
    run.execute(recipe, tmp_path / "run", CPU, watch)
    (tmp_path / "images" / "test" / "b" / "3.png").unlink()
    with pytest.raises(RunDirectoryError, match=r"^the test images have changed since .*run was made; train anew"):
        run.execute(recipe, tmp_path / "run", CPU, watch)
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(CheckpointError, match=r"^the test images have changed since the checkpoint was trained$"):
        run.execute(recipe, tmp_path / "run", CPU, watch)


def test_a_training_that_did_not_end_starts_again(done, watch, said):
    recipe, directory, results = done
    forget(directory, finished=False)
    Failure(1, 1, "out of memory").save(directory)
    (directory / "model.safetensors").unlink()
    said.seek(0)
    said.truncate()
    again = run.execute(recipe, directory, CPU, watch)
    assert "epoch 1/2" in said.getvalue()
    assert failure(directory) is None
    assert [line["epoch"] for line in lines(directory)] == [1, 2]
    assert [entry.outcomes[1].correct for entry in again.measured] == [
        entry.outcomes[1].correct for entry in results.measured
    ]


def test_while_a_lost_network_is_trained_again_there_are_no_results_of_it(done, watch, monkeypatch):
    def stop(_line):
        raise KeyboardInterrupt

    recipe, directory, _ = done
    forget(directory, finished=False)
    (directory / "model.safetensors").unlink()
    monkeypatch.setattr(watch, "epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        run.execute(recipe, directory, CPU, watch)
    assert Results.load(directory).measured == ()


def test_a_run_killed_in_training_leaves_no_result_and_starts_again(tiny, tmp_path, watch, monkeypatch):
    def stop(_line):
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        run.execute(tiny(), tmp_path / "run", CPU, watch)
    assert not Results.load(tmp_path / "run").finished
    assert Results.load(tmp_path / "run").measured == ()
    assert not (tmp_path / "run" / "model.safetensors").exists()
    monkeypatch.undo()
    assert run.execute(tiny(), tmp_path / "run", CPU, watch).finished
    assert len(lines(tmp_path / "run")) == 2


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("seed=1", "seed is 0 there, 1 here"),
        ("optimizer.lr=0.02", "optimizer.lr is 0.01 there, 0.02 here"),
        ('evaluators.1.step_size="4/255"', 'evaluators.1.step_size is "8/255" there, "4/255" here'),
    ],
)
def test_a_directory_with_another_recipe_is_refused_and_untouched(done, tiny, watch, setting, named):
    directory = done[1]
    before = snapshot(directory)
    with pytest.raises(RunDirectoryError) as caught:
        run.execute(tiny(setting), directory, CPU, watch)
    assert named in str(caught.value)
    assert str(directory) in str(caught.value)
    assert caught.value.exit_code == 2
    assert snapshot(directory) == before


def test_many_differences_are_counted(done, tiny, watch):
    settings = ["seed=1", "optimizer.lr=0.02", "data.seed=1", "model.width=5", "validation.steps=3"]
    with pytest.raises(RunDirectoryError, match="and 2 more"):
        run.execute(tiny(*settings), done[1], CPU, watch)


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "recipe.toml"])
def test_a_foreign_directory_is_refused_and_untouched(tiny, tmp_path, watch, name):
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / name).write_text("mine")
    with pytest.raises(RunDirectoryError, match="--out") as caught:
        run.execute(tiny(), directory, CPU, watch)
    assert str(directory) in str(caught.value)
    assert [path.name for path in directory.iterdir()] == [name]
    assert (directory / name).read_text() == "mine"


def test_a_directory_that_safetensors_cannot_name_is_refused_before_anything(tiny, tmp_path, watch):
    with pytest.raises(RunDirectoryError, match="its name is not UTF-8; choose another directory with --out"):
        run.execute(tiny(), tmp_path / os.fsdecode(b"o\xff"), CPU, watch)
    assert list(tmp_path.iterdir()) == []


def test_verdicts_that_the_disk_does_not_give_are_not_to_be_deleted(done, watch, monkeypatch):
    recipe, directory, _ = done
    forget(directory, finished=False)

    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(verdict_files.tensors, "read", closed)
    with pytest.raises(RunDirectoryError, match=r"Permission denied$"):
        run.execute(recipe, directory, CPU, watch)


def test_a_file_in_place_of_the_directory_is_refused(tiny, tmp_path, watch):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunDirectoryError, match="is not a directory"):
        run.execute(tiny(), tmp_path / "run", CPU, watch)


def test_an_empty_directory_is_used(tiny, tmp_path, watch):
    (tmp_path / "run").mkdir()
    recipe = tiny("schedule.epochs=1", "evaluators=[]", 'validation={fraction=0.0, report="last"}')
    assert run.execute(recipe, tmp_path / "run", CPU, watch).finished


def test_nothing_is_written_for_data_that_do_not_fit(tiny, tmp_path, watch):
    with pytest.raises(DataError):
        run.execute(tiny("data.train_limit=1"), tmp_path / "run", CPU, watch)
    assert not (tmp_path / "run").exists()


def test_nothing_is_written_for_a_graph_without_a_gpu(tiny, tmp_path, watch):
    with pytest.raises(DeviceError, match="needs a CUDA GPU, and the device is cpu"):
        run.execute(tiny('engine.compile="graph"'), tmp_path / "run", CPU, watch)
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_training_set_trains_on_all_of_it_and_says_so_once(tiny, tmp_path, watch, said, caplog):
    recipe = tiny("schedule.batch_size=1000", "schedule.epochs=2", "evaluators=[]", 'validation.report="last"')
    assert run.execute(recipe, tmp_path / "run", CPU, watch).finished
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "training is eager: schedule.batch_size = 1000, but there are only 128 training images: "
        "each epoch is one batch of them all"
    ]
    assert "tiny: 2 batches" in said.getvalue()
    assert "engine: eager, schedule.batch_size = 1000" in said.getvalue()


QUICK = ["schedule.epochs=1", "evaluators=[]", "validation.limit=10"]


def test_a_non_finite_loss_stops_with_its_epoch_and_batch(tiny, tmp_path, watch):
    recipe = tiny('optimizer={kind="sgd", lr=1e30}', "schedule.batch_size=32", *QUICK)
    with pytest.raises(DivergedError, match=r"epoch 1, batch [2-4]$") as caught:
        run.execute(recipe, tmp_path / "run", CPU, watch)
    assert caught.value.exit_code == 3
    results = Results.load(tmp_path / "run")
    assert results.diverged == str(caught.value)
    assert not results.finished
    assert results.measured == ()
    with pytest.raises(DivergedError, match="found earlier"):
        run.execute(recipe, tmp_path / "run", CPU, watch)


@pytest.mark.parametrize("fraction", ["0.05", "0.0"])
def test_weights_that_break_in_the_last_batch_are_a_divergence_too(tiny, tmp_path, watch, fraction):
    recipe = tiny(
        'optimizer={kind="sgd", lr=1e38, weight_decay=1e3}',
        f'validation={{fraction={fraction}, limit=10, report="last"}}',
        "schedule={kind='steps', epochs=1, batch_size=128}",
    )
    with pytest.raises(DivergedError):
        run.execute(recipe, tmp_path / "run", CPU, watch)
    assert Results.load(tmp_path / "run").diverged


@pytest.mark.parametrize(
    ("report", "selections"), [("last", ["last"]), ("best", ["best on validation"]), ("both", ["last", "best"])]
)
def test_report_chooses_what_is_measured_and_both_are_saved(tiny, tmp_path, watch, report, selections):
    recipe = tiny(f'validation.report="{report}"', 'evaluators=[{kind="pristine"}]')
    results = run.execute(recipe, tmp_path / "run", CPU, watch)
    assert len(results.measured) == len(selections)
    for entry, selection in zip(results.measured, selections, strict=True):
        assert entry.selection.startswith(selection)
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_a_best_epoch_that_is_the_last_is_measured_once(tiny, tmp_path, watch, said):
    results = run.execute(tiny("schedule.epochs=1"), tmp_path / "run", CPU, watch)
    assert said.getvalue().count("measuring pristine") == 1
    last, best = results.measured
    assert (last.selection, best.selection) == ("last", "best on validation")
    assert last.outcomes == best.outcomes


def test_a_choice_made_on_test_images_is_stamped(tiny, tmp_path, watch):
    recipe = tiny("schedule.epochs=1", 'validation={on="test", limit=10, steps=1}', 'evaluators=[{kind="pristine"}]')
    results = run.execute(recipe, tmp_path / "run", CPU, watch)
    assert [entry.selection for entry in results.measured] == ["last", "best on test"]
    assert checkpoint.load(tmp_path / "run" / "best.safetensors").selection == "best on test"


AVERAGED = 'averaging={kind="ema", decay=0.5}'


def test_an_average_is_validated_saved_and_measured_beside_the_weights(tiny, tmp_path, watch, said):
    directory = tmp_path / "run"
    results = run.execute(tiny("schedule.epochs=3", AVERAGED), directory, CPU, watch)
    selections = ["last", "best on validation", "averaged last", "averaged best on validation"]
    assert [entry.selection for entry in results.measured] == selections
    assert Results.load(directory).to_json() == results.to_json()
    for entry in results.measured:
        saved = checkpoint.load(directory / checkpoint.name_of(entry.selection))
        assert (saved.selection, saved.epoch, saved.weights) == (entry.selection, entry.epoch, entry.weights)
        assert saved.metrics == lines(directory)[saved.epoch - 1]
    metrics = lines(directory)
    assert {*metrics[0]} == KEYS | {"average_validation_accuracy", "average_validation_pgd_accuracy"}
    accuracies = [line["average_validation_pgd_accuracy"] for line in metrics]
    assert results.of("averaged best").epoch == 1 + accuracies.index(max(accuracies))
    assert "% · average " in said.getvalue()
    last = checkpoint.load(directory)
    assert last.averaged.last == results.of("averaged last").weights
    assert last.averaged.best.digest == results.of("averaged best").weights
    average = checkpoint.load(directory / "average.safetensors")
    images = images_to_measure(average, average.recipe, CPU, watch.say)
    found = [one.outcome.correct for one in evaluate_checkpoint(average, average.recipe, images, watch)]
    assert found == [outcome.correct for outcome in results.of("averaged last").outcomes]


@pytest.mark.parametrize(
    ("setting", "selections"),
    [
        ('validation.report="last"', ["last", "averaged last"]),
        ('validation.report="best"', ["best on validation", "averaged best on validation"]),
        ("validation.fraction=0.0", ["last", "averaged last"]),
        ('validation={on="test", limit=10, report="best"}', ["best on test", "averaged best on test"]),
    ],
)
def test_report_chooses_the_epochs_of_an_average_too(tiny, tmp_path, watch, setting, selections):
    recipe = tiny("schedule.epochs=1", AVERAGED, setting, 'evaluators=[{kind="pristine"}]')
    assert [entry.selection for entry in run.execute(recipe, tmp_path / "run", CPU, watch).measured] == selections
    assert (tmp_path / "run" / "average.safetensors").is_file()


def test_an_average_without_a_decay_is_measured_once(tiny, tmp_path, watch, said):
    recipe = tiny("schedule.epochs=1", 'averaging={kind="ema", decay=0.0}')
    last, best, averaged, averaged_best = run.execute(recipe, tmp_path / "run", CPU, watch).measured
    assert said.getvalue().count("measuring pristine") == 1
    assert last.weights == averaged.weights == best.weights == averaged_best.weights


def test_an_average_that_is_not_the_measured_one_is_refused(tiny, tmp_path, watch):
    recipe = tiny("schedule.epochs=1", AVERAGED, 'evaluators=[{kind="pristine"}]')
    run.execute(recipe, tmp_path / "run", CPU, watch)
    for name in ("average.safetensors", "average-best.safetensors"):
        kept = (tmp_path / "run" / name).read_bytes()
        (tmp_path / "run" / name).write_bytes((tmp_path / "run" / "model.safetensors").read_bytes())
        with pytest.raises(RunDirectoryError, match=f"{name} is not the network that results.json is of"):
            run.execute(recipe, tmp_path / "run", CPU, watch)
        (tmp_path / "run" / name).write_bytes(kept)


def test_without_validation_images_there_is_no_best_epoch(tiny, tmp_path, watch):
    recipe = tiny("schedule.epochs=1", "validation={fraction=0.0}", 'evaluators=[{kind="pristine"}]')
    results = run.execute(recipe, tmp_path / "run", CPU, watch)
    assert [entry.selection for entry in results.measured] == ["last"]
    assert lines(tmp_path / "run")[0].keys() == KEYS - {"validation_accuracy", "validation_pgd_accuracy"}
    assert not (tmp_path / "run" / "best.safetensors").exists()


VARIANTS = [
    'engine.precision="bf16"',
    "engine.channels_last=false",
    'optimizer={kind="sgd", lr=0.1}',
    'optimizer={kind="adamw", lr=0.01}',
    'optimizer={kind="yogi", lr=0.01}',
    'schedule={kind="cosine", epochs=1, batch_size=64, warmup=0.2}',
    'schedule={kind="one-cycle", epochs=1, batch_size=64, initial=0.1}',
    "loss.pristine_weight=0.5",
    'maximizer={kind="none"}',
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_engine_optimizer_and_schedule_trains(tiny, tmp_path, watch, variant):
    run.execute(tiny(*QUICK, 'validation.report="last"', variant), tmp_path / "run", CPU, watch)
    state = load_file(tmp_path / "run" / "model.safetensors")
    assert all(value.isfinite().all() for value in state.values())
    assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())
    run.execute(tiny(*QUICK, 'validation.report="last"'), tmp_path / "plain", CPU, watch)
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    same = torch.equal(state["linear.weight"], plain["linear.weight"])
    assert not same or "channels_last" in variant
    (line,) = lines(tmp_path / "run")
    assert math.isfinite(line["loss"])


@pytest.mark.parametrize("maximizer", ["attack", "integrated"])
def test_the_same_recipe_gives_the_same_bits(tiny, tmp_path, watch, maximizer):
    recipe = tiny(f'maximizer.kind="{maximizer}"')
    torch.manual_seed(1)
    first = run.execute(recipe, tmp_path / "a", CPU, watch)
    torch.manual_seed(2)
    second = run.execute(recipe, tmp_path / "b", CPU, watch)
    for name in ("model.safetensors", "best.safetensors"):
        states = [load_file(tmp_path / directory / name) for directory in ("a", "b")]
        assert digest(states[0]) == digest(states[1])
    metrics = [
        [{key: value for key, value in line.items() if key not in TIMINGS} for line in lines(tmp_path / directory)]
        for directory in ("a", "b")
    ]
    assert metrics[0] == metrics[1]
    counts = [[outcome.correct for entry in one.measured for outcome in entry.outcomes] for one in (first, second)]
    assert counts[0] == counts[1]


def test_another_seed_gives_other_weights(done, tiny, tmp_path, watch):
    run.execute(tiny("seed=1"), tmp_path / "other", CPU, watch)
    states = [load_file(directory / "model.safetensors") for directory in (done[1], tmp_path / "other")]
    assert not torch.equal(states[0]["linear.weight"], states[1]["linear.weight"])


def test_training_leaves_the_global_generator_alone(tiny, tmp_path, watch):
    before = torch.get_rng_state()
    run.execute(tiny("schedule.epochs=1"), tmp_path / "run", CPU, watch)
    assert torch.equal(torch.get_rng_state(), before)


TWO_ATTACKS = (
    'evaluators=[{kind="pristine"}, {kind="pgd", steps=2, step_size="8/255"}, '
    '{kind="pgd", steps=2, step_size="8/255", loss="margin", name="margin", limit=30}]'
)


def test_the_verdicts_of_each_evaluator_are_kept_and_the_worst_case_over_the_attacks(tiny, tmp_path, watch):
    results = run.execute(tiny(TWO_ATTACKS), tmp_path / "run", CPU, watch)
    for entry in results.measured:
        assert [one.name for one in entry.outcomes] == ["pristine", "PGD2", "margin", "worst case"]
        records = {}
        for one in entry.outcomes:
            path = verdict_files.place(tmp_path / "run" / "verdicts", one.name, entry.epoch, entry.weights)
            records[one.name] = verdict_files.load(path)
            assert records[one.name].found.outcome == one
            assert records[one.name].images == results.images["test"]
        robust = records["PGD2"].found.verdicts.robust[:30] & records["margin"].found.verdicts.robust
        assert torch.equal(records["worst case"].found.verdicts.robust, robust)
        assert entry.outcome("worst case").n == 30
    assert len(list((tmp_path / "run" / "verdicts").iterdir())) == 8


def test_verdicts_are_of_the_images_of_their_own_split(tiny, tmp_path, watch):
    splits = ("test", "validation", "train")
    judges = ", ".join(f'{{kind="pristine", name="{split}", split="{split}"}}' for split in splits)
    recipe = tiny("schedule.epochs=1", f"evaluators=[{judges}]", 'validation.report="last"')
    results = run.execute(recipe, tmp_path, CPU, watch)
    (entry,) = results.measured
    for split in splits:
        path = verdict_files.place(tmp_path / "verdicts", split, entry.epoch, entry.weights)
        assert verdict_files.load(path).images == results.images[split]
    assert len(set(results.images.values())) == 3


def test_an_outcome_whose_verdicts_are_lost_is_found_again_and_one_whose_are_damaged_is_an_error(
    tiny, tmp_path, watch, said
):
    results = run.execute(tiny(TWO_ATTACKS, "validation.report='last'"), tmp_path, CPU, watch)
    (lost,) = (tmp_path / "verdicts").glob("PGD2 *")
    whole = lost.read_bytes()
    lost.unlink()
    (tmp_path / "verdicts" / f".{lost.name}.xyz").touch()  # a write that was cut off
    forget(tmp_path, finished=False)
    assert run.execute(tiny(TWO_ATTACKS, "validation.report='last'"), tmp_path, CPU, watch).finished
    assert said.getvalue().count("measuring PGD2") == 2
    assert said.getvalue().count("measuring pristine") == said.getvalue().count("measuring margin") == 1
    assert verdict_files.load(lost).found.outcome.verdicts == results.of("last").outcome("PGD2").verdicts
    assert len(list((tmp_path / "verdicts").iterdir())) == 4
    lost.write_bytes(whole[:-1])
    forget(tmp_path, finished=False)
    with pytest.raises(RunDirectoryError, match=r"not a whole file of verdicts: .*; delete it to measure again"):
        run.execute(tiny(TWO_ATTACKS, "validation.report='last'"), tmp_path, CPU, watch)


def test_the_name_of_the_worst_case_is_no_evaluators(tiny):
    with pytest.raises(RecipeError, match="'worst case' is the name of all of them"):
        tiny('evaluators=[{kind="pristine", name="worst case"}]')


def test_verdicts_of_another_measurement_are_not_those_behind_an_outcome(done):
    _, directory, results = done
    saved, (outcome, *_) = checkpoint.load(directory), results.of("last").outcomes
    assert run.recorded(outcome, saved, directory).found.outcome == outcome
    assert run.recorded(replace(outcome, settings={"split": "validation"}), saved, directory) is None
    path = run.file_of(outcome, saved, directory)
    replace(verdict_files.load(path), weights="0" * 64).save(path)
    assert run.recorded(outcome, saved, directory) is None


def test_an_epoch_s_line_has_a_ratio_where_something_is_mixed():
    line = {"epoch": 1, "loss": 1.0, "ratio": 0.93, "lr": 0.1, "images_per_second": 10.0}
    assert epoch_line(line, 2) == "epoch 1/2: loss 1.0000 · λ 0.930 · lr 0.1 · 10 images/s"
    assert epoch_line({**line, "ratio": 1.0}, 2) == "epoch 1/2: loss 1.0000 · lr 0.1 · 10 images/s"


def test_an_epoch_s_line_has_the_accuracies_of_the_network_and_of_its_average():
    line = {"epoch": 1, "loss": 1.23456, "inner_loss_before": 0.5, "inner_loss_after": 0.75, "ratio": 1.0}
    line |= {"lr": 0.01234, "images_per_second": 12345.6}
    line |= {"validation_accuracy": 0.9, "validation_pgd_accuracy": 0.4}
    line |= {"average_validation_accuracy": 0.8, "average_validation_pgd_accuracy": 0.3}
    assert epoch_line(line, 30) == (
        "epoch 1/30: loss 1.2346 · validation 90.0 %, under PGD 40.0 % · average 80.0 %, under PGD 30.0 % · "
        "inner 0.5000 -> 0.7500 · lr 0.0123 · 12,346 images/s"
    )
