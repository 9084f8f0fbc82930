"""What can be asked of a checkpoint, and what cannot."""

import json
from dataclasses import replace

import pytest
import torch
from findings import finding
from safetensors.torch import save
from typer.testing import CliRunner

from advmix_cli import build, checkpoint, machine, run, tensors
from advmix_cli.cli import app
from advmix_cli.data import sources
from advmix_cli.data.images import Images
from advmix_cli.errors import CheckpointError, RecipeError, UsageError
from advmix_cli.evaluation import verdict_files
from advmix_cli.evaluation.autoattack import AutoAttack
from advmix_cli.evaluation.pgd import Pgd
from advmix_cli.evaluation.pristine import Pristine
from advmix_cli.evaluation.subject import Subject
from advmix_cli.measure.asked import recipe_to_measure
from advmix_cli.measure.evaluate import evaluate_checkpoint
from advmix_cli.measure.findings import Findings
from advmix_cli.measure.same_images import images_to_measure, others
from advmix_cli.report.tables import short_steps
from advmix_cli.seals import sealed, unsealed

CPU = torch.device("cpu")


@pytest.fixture
def done(tiny, tmp_path, watch):
    """(run directory, its checkpoint, its results)."""
    recipe = tiny("schedule.epochs=1", 'validation.report="last"')
    results = run.execute(recipe, tmp_path / "run", CPU, watch)
    return tmp_path / "run", checkpoint.load(tmp_path / "run"), results


@pytest.fixture
def saved(tiny):
    """A checkpoint without weights: enough to ask what would be measured."""
    return checkpoint.Checkpoint(tiny(), {}, tuple("0123456789"), (1, 8, 8), {}, "last", 2)


def ask(saved, *settings, names=(), limit=None):
    return recipe_to_measure(saved, "model.safetensors", settings, names, limit)


def measure(saved, recipe, watch, *notes):
    return list(evaluate_checkpoint(saved, recipe, images_to_measure(saved, recipe, CPU, watch.say), watch, *notes))


def test_unedited_it_is_the_recipe_itself(saved):
    assert ask(saved) == saved.recipe


def test_names_choose_and_the_recipes_order_stays(saved):
    assert [one.name for one in ask(saved, names=["PGD2"]).evaluators] == ["PGD2"]
    assert [one.name for one in ask(saved, names=["PGD2", "pristine"]).evaluators] == ["pristine", "PGD2"]


def test_the_limit_is_every_evaluators(saved):
    assert [one.limit for one in ask(saved, limit=7).evaluators] == [7, 7]
    assert [one.limit for one in ask(saved).evaluators] == [None, None]


def test_evaluators_can_be_replaced_and_edited(saved):
    (only,) = ask(saved, 'evaluators=[{kind="pgd", steps=7, step_size="1/255"}]', names=["PGD7"]).evaluators
    assert (only.steps, only.step_size) == (7, 1 / 255)
    assert ask(saved, "evaluators.1.restarts=3").evaluators[1].restarts == 3


@pytest.mark.parametrize(
    "setting", ["seed=1", "threat.epsilon=0.5", "data.train_limit=3", "data.seed=1", "model.width=9"]
)
def test_what_was_trained_cannot_be_set(saved, setting):
    with pytest.raises(UsageError, match=r"only evaluators, data\.root and data\.test_limit can be set") as caught:
        ask(saved, setting)
    assert setting in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_place_of_the_data_can_be_set(saved, tiny):
    moved = replace(saved, recipe=tiny('data={source="cifar10"}'))
    assert ask(moved, 'data.root="elsewhere"').data.root == "elsewhere"


def test_fewer_test_images_than_the_recipe_has_are_refused(saved, tiny):
    with pytest.raises(UsageError) as caught:
        ask(saved, "data.test_limit=39")
    asked = "data.test_limit = 39"
    assert str(caught.value) == f"{asked}: its recipe has 40 test images, and fewer are measured with --limit"
    assert ask(saved, "data.test_limit=40") == saved.recipe
    everything = replace(saved, recipe=tiny('data={source="digits"}'))
    with pytest.raises(UsageError, match="its recipe has all test images"):
        ask(everything, "data.test_limit=40")


def test_more_test_images_begin_with_those_of_the_run(done, watch):
    """What was found of the first ones stays, and all are known by their own fingerprint."""
    directory, saved, _ = done
    few, more = (measure(saved, ask(saved, *edit, names=["PGD2"]), watch)[0] for edit in ((), ["data.test_limit=60"]))
    assert (few.outcome.n, more.outcome.n) == (40, 60)
    assert torch.equal(few.verdicts.clean, more.verdicts.clean[:40])
    assert torch.equal(few.labels, more.labels[:40])
    kept = directory.parent / "kept"
    assert advmix("eval", directory, "--set", "data.test_limit=60", "--save", kept).exit_code == 0
    images = build.dataset(ask(saved, "data.test_limit=60"), CPU, watch.say)
    of_these = {verdict_files.load(path).images for path in kept.iterdir()}
    assert of_these == {images.test.fingerprint()} != {saved.images["test"]}


def test_a_wrong_evaluator_is_refused_with_its_setting(saved):
    with pytest.raises(RecipeError, match="evaluators") as caught:
        ask(saved, "evaluators.1.step_size=8")
    assert "above 1" in str(caught.value)


def test_an_unknown_name_is_refused_with_a_suggestion(saved):
    with pytest.raises(UsageError, match="PGD3") as caught:
        ask(saved, names=["PGD3"])
    assert "did you mean 'PGD2'" in str(caught.value)
    assert "pristine, PGD2" in str(caught.value)


def test_a_recipe_without_evaluators_says_how_to_give_some(saved, tiny):
    with pytest.raises(UsageError, match="has no evaluators") as caught:
        ask(replace(saved, recipe=tiny("evaluators=[]")))
    assert "--set 'evaluators=[{kind=" in str(caught.value)


def test_a_checkpoint_measures_as_its_run_did(done, watch):
    directory, saved, results = done
    outcomes = [one.outcome for one in measure(saved, ask(saved), watch)]
    assert [(one.name, one.settings, one.verdicts) for one in outcomes] == [
        (one.name, one.settings, one.verdicts) for one in results.of("last").outcomes
    ]
    assert directory.is_dir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_shape": (1, 8, 9)}, "images of shape (1, 8, 9), the data has (1, 8, 8)"),
        ({"image_shape": (3, 8, 8)}, "images of shape (3, 8, 8), the data has (1, 8, 8)"),
        ({"classes": ("cat", "dog")}, "classes ('cat', 'dog'), the data has ('0', '1'"),
        ({"classes": tuple("1023456789")}, "classes ('1', '0'"),
    ],
)
def test_data_of_another_shape_or_of_other_classes_are_refused(done, watch, change, message):
    other = replace(done[1], **change)
    with pytest.raises(CheckpointError) as caught:
        measure(other, other.recipe, watch)
    assert message in str(caught.value)


@pytest.mark.parametrize(("part", "named"), [("train", "train and validation"), ("test", "test")])
def test_images_that_changed_since_the_training_are_refused(done, watch, monkeypatch, part, named):
    """By a grey level of a pixel, or by the label of one image."""
    _, saved, _ = done
    true = sources.digits()

    def changed():
        images = getattr(true, part)
        pixels, labels = images.pixels.clone(), images.labels.clone()
        if part == "train":
            pixels[:, 0, 0, 0] += 1
        else:
            labels[0] = (labels[0] + 1) % 10
        return true._replace(**{part: Images(pixels, labels)})

    monkeypatch.setattr(sources, "digits", changed)
    with pytest.raises(CheckpointError) as caught:
        measure(saved, ask(saved), watch)
    assert str(caught.value) == f"the {named} images have changed since the checkpoint was trained"


def test_parts_of_other_images_are_named_one_by_one(tiny):
    images = build.dataset(tiny(), CPU, print)
    assert others({}, images) == "train, validation and test images"
    assert others({"validation": images.validation.fingerprint()}, images) == "train and test images"


def test_images_are_measured_on_as_many_threads_as_their_recipe_has(saved, tiny, monkeypatch):
    recipe, threads = tiny("engine.threads=1"), []
    trained = replace(saved, recipe=recipe, images=build.dataset(recipe, CPU, print).fingerprints())
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    images_to_measure(trained, recipe, CPU, print)
    assert threads == [1]


class Interrupted:
    """PGD's attack, and a Ctrl-C at its n-th batch."""

    def __init__(self, monkeypatch, at):
        self.looks, self.at, self.true = 0, at, Pgd.attack
        monkeypatch.setattr(Pgd, "attack", lambda *arguments: self(*arguments))

    def __call__(self, *arguments):
        self.looks += 1
        if self.looks == self.at:
            raise KeyboardInterrupt
        return self.true(*arguments)


def test_an_evaluation_that_was_interrupted_goes_on_where_it_was(done, watch, monkeypatch, tmp_path):
    _, saved, _ = done
    evaluators = (
        "evaluators=[{kind='pristine'}, {kind='pgd', steps=2, step_size='1/255', epsilon='2/255', batch_size=1}]"
    )
    recipe = ask(saved, evaluators)

    def measured(recipe, patch=None, at=0):
        findings = Findings(tmp_path / "findings", saved, recipe, CPU)
        looks = Interrupted(patch, at) if patch else None
        return measure(saved, recipe, watch, findings.of), findings, looks

    with monkeypatch.context() as patch:
        expected, findings, whole = measured(recipe, patch)
    findings.discard()
    assert not list(tmp_path.rglob("findings/*"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        measured(recipe, patch, at=3)
    (notes,) = (tmp_path / "findings").iterdir()
    kept = list(notes.iterdir())
    assert len(kept) == 2
    # As if each batch had taken an hour: the seconds are those of all that was found, whenever that was.
    for path in kept:
        metadata, values = tensors.read(path)
        slow = sealed({**unsealed(json.loads(metadata["finding"])), "seconds": 3600.0})
        path.write_bytes(save(values, {"finding": json.dumps(slow)}))
    # Notes of other measurements are not these.
    other = ask(saved, evaluators.replace("steps=2", "steps=1"))
    assert measured(other)[0][1].outcome.settings["steps"] == 1
    with monkeypatch.context() as patch:
        found, _, rest = measured(recipe, patch)
    assert rest.looks == whole.looks - 2 > 0
    assert [one.outcome.verdicts for one in found] == [one.outcome.verdicts for one in expected]
    assert 7200 < found[1].outcome.seconds < 7300


@pytest.mark.parametrize(
    "change",
    ["weights", "images", "model", "threat", "engine", "evaluator", "device", "torch", "threads", "pyautoattack"],
)
def test_findings_are_those_of_the_very_same_measurement(saved, tiny, tmp_path, monkeypatch, change):
    pgd = "{kind='pgd', steps=2, step_size='1/255'}"
    saved = replace(saved, state={"w": torch.ones(2)}, images={"test": "a"}, recipe=tiny(f"evaluators=[{pgd}]"))

    def look(saved, recipe, value):
        chosen = recipe.evaluators[0]
        return Findings(tmp_path, saved, recipe, CPU).of(chosen).once("a", (1,), lambda: finding(value)).stands

    assert look(saved, saved.recipe, True)
    assert look(saved, saved.recipe, False), "it is not looked at again"
    other, recipe, true = saved, saved.recipe, machine.described
    match change:
        case "weights":
            other = replace(saved, state={"w": torch.tensor([1.0, 1.0000001])})
        case "images":
            other = replace(saved, images={"test": "b"})
        case "model" | "threat" | "engine":
            edit = {"model": "model.width=5", "threat": "threat.epsilon=0.1", "engine": "engine.channels_last=false"}
            recipe = tiny(f"evaluators=[{pgd}]", edit[change])
        case "evaluator":
            recipe = tiny("evaluators=[{kind='pgd', steps=3, step_size='1/255', name='PGD2'}]")
        case "pyautoattack":
            monkeypatch.setattr("advmix_cli.measure.findings.version", lambda _: "another")
        case _:
            monkeypatch.setattr(machine, "described", lambda place: {**true(place), change: "another"})
    assert not look(other, recipe, False)


def test_caches_that_cannot_be_written_are_said_once_and_it_goes_on(done, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = advmix("eval", done[0], "--set", "evaluators=[{kind='pgd', steps=1, step_size='1/255', batch_size=3}]")
    assert found.exit_code == 0
    assert found.stderr.count("if this is interrupted, it starts again") == 1


def test_findings_are_kept_until_they_have_been_told(done, tmp_path, monkeypatch):
    words = ["eval", done[0], "--evaluator", "PGD2", "--json"]

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("advmix_cli.commands.measuring.print_json", full)
        assert advmix(*words).exit_code == 1
    assert len(list((tmp_path / "cache" / "advmix" / "findings").iterdir())) == 1
    assert advmix(*words).exit_code == 0
    assert not list((tmp_path / "cache" / "advmix" / "findings").iterdir())


@pytest.mark.parametrize(("steps", "short"), [(3, True), (4, False)])
def test_steps_that_do_not_reach_the_edge_of_the_ball_are_said(done, watch, steps, short):
    said = ["PGD: its steps do not lead to the edge of the ball, so the accuracy may be too high."]
    judge = f'evaluators=[{{kind="pgd", steps={steps}, step_size="4/255", name="PGD"}}]'
    _, saved, _ = done
    (found,) = measure(saved, ask(saved, judge), watch)
    assert list(short_steps(found.outcome)) == (said if short else [])


def test_an_outcome_names_its_machine(done, watch):
    _, saved, _ = done
    (found,) = measure(saved, ask(saved, names=["pristine"]), watch)
    assert found.outcome.machine == {**machine.described(CPU), "engine": "eager"}
    assert {"torch", "device", "threads", "CPU capability"} <= found.outcome.machine.keys()


def test_an_outcome_says_that_attacks_looked_at_the_compiled_network(done, watch, monkeypatch):
    _, saved, _ = done

    def compiled(_recipe, network, *_):
        return Subject(network, lambda x: network(x), engine="compiled")

    monkeypatch.setattr("advmix_cli.measure.evaluate.subject_of", compiled)
    found = measure(saved, ask(saved, names=["pristine", "PGD2"]), watch)
    assert [one.outcome.machine["engine"] for one in found] == ["eager", "compiled"], "nothing attacks pristine images"


def test_a_subject_is_made_for_all_passes_and_for_the_batch_of_who_needs_most_of_them(done, watch, monkeypatch):
    _, saved, _ = done
    made = []

    def subject_of(_recipe, network, images, passes, _say):
        made.append((len(images), passes))
        return Subject.plain(network)

    monkeypatch.setattr("advmix_cli.measure.evaluate.subject_of", subject_of)
    monkeypatch.setattr("advmix_cli.measure.evaluate.forget_compiled", lambda: made.append("what was compiled before"))
    monkeypatch.setattr(AutoAttack, "__call__", lambda _, *words: Pristine(9)(*words))
    pgd = "{kind='pgd', steps=2, step_size='1/255', batch_size=3, limit=30}"
    recipe = ask(
        saved, f"evaluators=[{pgd}, {{kind='autoattack', version='cheap-2020', limit=2}}, {{kind='pristine'}}]"
    )
    found = measure(saved, recipe, watch)
    judges = [build.evaluator(chosen, recipe.threat) for chosen in recipe.evaluators]
    passes = sum(judge.passes(10) * n for judge, n in zip(judges, (30, 2, 40), strict=True))
    assert made == ["what was compiled before", (2, passes)], "that is forgotten first"
    assert [one.outcome.settings for one in found] == [{"split": "test", **judge.settings(10)} for judge in judges]


def advmix(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


def test_the_command_prints_one_document(done):
    directory, _, results = done
    result = advmix("eval", directory, "--evaluator", "PGD2", "--limit", 25, "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    (outcome,) = document["outcomes"]
    assert (outcome["name"], outcome["n"]) == ("PGD2", 25)
    assert document["digest"] == results.digest
    assert (document["selection"], document["epoch"]) == ("last", 1)
    assert document["checkpoint"] == str(directory / "model.safetensors")


def test_the_command_leaves_the_run_directory_alone(done):
    before = {path.name: path.stat().st_mtime_ns for path in done[0].iterdir()}
    setting = 'evaluators=[{kind="pristine", name="again"}]'
    assert advmix("eval", done[0] / "best.safetensors", "--set", setting).exit_code == 0
    assert {path.name: path.stat().st_mtime_ns for path in done[0].iterdir()} == before


@pytest.mark.parametrize(
    "arguments", [["--set", "seed=3"], ["--evaluator", "nothing"], ["--set", "evaluators"], ["--limit", "0"]]
)
def test_the_command_refuses_with_code_2_and_measures_nothing(done, arguments):
    result = advmix("eval", done[0], *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_the_command_names_a_missing_checkpoint(tmp_path):
    result = advmix("eval", tmp_path / "nothing")
    assert result.exit_code == 2
    assert "nothing" in result.stderr
