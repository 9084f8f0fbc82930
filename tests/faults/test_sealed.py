"""Documents with a checksum that is right and a content that is not: whoever can write one can seal it."""

import copy
import json

import pytest
import torch
from findings import finding, same_finding
from interrupted import CPU, SMALL, stopped
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from advmix_cli import checkpoint, run, tensors
from advmix_cli.errors import AdvmixError
from advmix_cli.evaluation.notebook import Written
from advmix_cli.measure.evaluate import evaluate_checkpoint
from advmix_cli.measure.same_images import images_to_measure
from advmix_cli.report.ablation import Line, ablation_grid, ablation_records
from advmix_cli.report.results import Results
from advmix_cli.report.tables import outcome_grid
from advmix_cli.seals import sealed, unsealed

ODD = [None, -1, 10**9, 0.5, "x\x1b[31m", "", [], {}, True, ["a"], {"a": 1}, 1e308]


def places(document, prefix=()):
    """Every key and item of a document, and what is in them."""
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for name, inner in items:
        yield (*prefix, name)
        yield from places(inner, (*prefix, name))


def changed(document, skip=()):
    """Copies of a document in which one value is another one, or is gone."""
    for place in places(document):
        if place[0] in skip:
            continue
        for value in (*ODD, "gone"):
            copied = copy.deepcopy(document)
            inner = copied
            for name in place[:-1]:
                inner = inner[name]
            if value == "gone":
                del inner[place[-1]]
            else:
                inner[place[-1]] = value
            yield place, value, copied


def test_results_that_are_sealed_and_odd(tiny, tmp_path, watch):
    run.execute(tiny("schedule.epochs=1"), tmp_path, CPU, watch)
    path, tried, taken = tmp_path / "results.json", 0, 0
    document = unsealed(json.loads(path.read_text()))
    for _, _, odd in changed(document):
        path.write_text(json.dumps(sealed(odd)))
        tried += 1
        try:
            known = Results.load(tmp_path)
        except AdvmixError:
            continue
        taken += 1
        for entry in known.measured:
            shown = outcome_grid(known.title, entry, known.machines)
            assert "\x1b" not in shown.markdown() + shown.latex()
        line = Line("a", (known,), (tmp_path,), {})
        assert "\x1b" not in ablation_grid("t", ["pristine", "PGD2"], [line]).markdown()
        json.dumps(ablation_records(["pristine"], [line]))
        known.save(tmp_path / "again")
    assert tried > 1000
    assert 0 < taken < tried / 2


def test_checkpoints_that_are_sealed_and_odd(tiny, tmp_path, watch):
    run.execute(tiny("schedule.epochs=1", "evaluators=[{kind='pristine'}]"), tmp_path, CPU, watch)
    path = tmp_path / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        header = unsealed(json.loads(file.metadata()["advmix"]))
    # Copied: what is loaded may still be the file, which is written anew.
    state, tried, taken = {name: value.clone() for name, value in load_file(path).items()}, 0, 0
    for place, _, odd in changed(header, skip=("recipe", "metrics")):
        save_file(state, path, metadata={"format": "pt", "advmix": json.dumps(sealed(odd))})
        tried += 1
        try:
            saved = checkpoint.load(path)
            images = images_to_measure(saved, saved.recipe, CPU, watch.say)
            list(evaluate_checkpoint(saved, saved.recipe, images, watch))
        except AdvmixError:
            continue
        taken += 1
        assert place[0] in (
            "digest",
            "versions",
            "machines",
            "seconds",
            "best",
            "averaged",
            "collapsed",
            "epoch",
            "metrics",
        ), place
    assert tried > 300
    assert taken > 0


def test_states_that_are_sealed_and_odd(tiny, tmp_path, watch, said):
    recipe, part = tiny(*SMALL), tmp_path / "part"
    stopped(recipe, part, watch, at=7)
    older, manifest = sorted((part / "state").glob("*.json"))
    for path in (older, older.with_suffix(".safetensors")):
        path.unlink()
    files = {path: path.read_bytes() for path in part.rglob("*") if path.is_file()}
    tried, taken = 0, 0
    for place, value, odd in changed(unsealed(json.loads(manifest.read_text()))):
        if value not in (None, 10**9, -1, "x\x1b[31m", "gone") or (place[0] in ("machines",) and len(place) > 2):
            continue
        for path, content in files.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        (part / "model.safetensors").unlink(missing_ok=True)
        manifest.write_text(json.dumps(sealed(odd)))
        tried += 1
        try:
            run.execute(recipe, part, CPU, watch)
        except AdvmixError:
            continue
        taken += 1
        assert place[0] in ("seconds", "names", "best", "averaged_best"), place
        assert len((part / "metrics.jsonl").read_text().splitlines()) == 3
    assert "\x1b" not in said.getvalue()
    assert tried > 60
    assert taken < tried / 4


@pytest.mark.parametrize("seconds", ["x", None, -1.0, True, [1.0], 1e308])
def test_findings_that_are_sealed_and_odd(tmp_path, seconds):
    found = finding(True, False)
    Written(tmp_path / "n", "me", CPU).once("a", (2,), lambda: found)
    (path,) = (tmp_path / "n").iterdir()
    metadata, values = tensors.read(path)
    odd = sealed({**unsealed(json.loads(metadata["finding"])), "seconds": seconds})
    path.write_bytes(save(values, {"finding": json.dumps(odd)}))
    notes = Written(tmp_path / "n", "me", CPU)
    assert same_finding(notes.once("a", (2,), lambda: found), found)
    assert notes.recalled == 0


@pytest.mark.parametrize(
    "change",
    [
        {"stands": torch.ones(3, dtype=torch.bool)},
        {"stands": torch.ones(2)},
        {"correct": torch.ones(2, 1, dtype=torch.bool)},
        {"margin": torch.ones(2, dtype=torch.float64)},
        {"margin": torch.ones(0)},
        {"margin": torch.tensor([1.0, torch.nan])},
    ],
)
def test_findings_that_are_sealed_and_not_of_their_batch(tmp_path, change):
    found, seen = finding(True, False), finding(False, False)
    Written(tmp_path / "n", "me", CPU).once("a", (2,), lambda: found)
    (path,) = (tmp_path / "n").iterdir()
    metadata, values = tensors.read(path)
    values |= change
    odd = sealed({**unsealed(json.loads(metadata["finding"])), "tensors": tensors.digest(values)})
    path.write_bytes(save(values, {"finding": json.dumps(odd)}))
    assert same_finding(Written(tmp_path / "n", "me", CPU).once("a", (2,), lambda: seen), seen)


@pytest.mark.parametrize("images", [torch.ones(2, 3, 2, 2), torch.ones(2, 0, 0, 0), torch.full((2, 1, 2, 2), 2.0)])
def test_images_of_a_finding_that_are_not_those_of_its_batch(tmp_path, images):
    found, seen = finding(True, False, images=images), finding(False, False, images=torch.rand(2, 1, 2, 2))
    Written(tmp_path / "n", "me", CPU, images=True).once("a", (2, 1, 2, 2), lambda: found)
    assert same_finding(Written(tmp_path / "n", "me", CPU, images=True).once("a", (2, 1, 2, 2), lambda: seen), seen)


def test_findings_are_not_written_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "n").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdvmixError, match="is a link, and what it points to would be written and removed"):
        Written(tmp_path / "n", "me", CPU)
