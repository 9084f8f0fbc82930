"""Mutated files load as what they were, or are refused: nothing crashes, hangs, or is taken for something else."""

import json
import os
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch
from findings import finding, same_finding
from interrupted import CPU, SMALL, stopped
from mutations import drawings, mutated, within

from advmix_cli import build, checkpoint, pickled, run, state
from advmix_cli.errors import AdvmixError, CheckpointError, DataError, RunDirectoryError
from advmix_cli.evaluation.notebook import Written
from advmix_cli.recipe.load import Document, read
from advmix_cli.recipe.schema import Recipe
from advmix_cli.recipe.shipped import ROOT
from advmix_cli.recipe.table import load_any
from advmix_cli.report.results import Results

COUNTS = pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.slow)])
LIMIT = 10.0


@pytest.fixture
def tell(capsys):
    """Print a figure, whatever is captured."""

    def show(text):
        with capsys.disabled():
            print(f"\n{text}")

    return show


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """Two run directories of different recipes that ended, and one that was stopped."""
    from io import StringIO

    from rich.console import Console

    from advmix_cli.report.progress import Lines

    place, watch = tmp_path_factory.mktemp("runs"), Lines(Console(file=StringIO()))
    for number in (0, 1):
        run.execute(tiny("schedule.epochs=1", f"seed={number}"), place / f"{number}", CPU, watch)
    stopped(tiny(*SMALL), place / "part", watch, at=7, every=0)
    return place


def identical(one, other):
    """Bitwise: -0.0 is not 0.0, and a NaN is itself."""
    return one.keys() == other.keys() and all(
        value.dtype == other[name].dtype
        and value.shape == other[name].shape
        and value.numpy().tobytes() == other[name].numpy().tobytes()
        for name, value in one.items()
    )


def tried(count, seed, original, other, head, load, same):
    """{what happened: how often}; a file that mutation left as it was is not counted, but another is made."""
    found, done = Counter(), 0
    for drawing in drawings(seed, 2 * count):
        if done == count:
            break
        kind, content = mutated(original, drawing, other, head)
        if content == original:
            continue
        done += 1
        with within(LIMIT):
            loaded = load(content)
        if loaded is None:
            found["refused"] += 1
        else:
            assert same(loaded), f"{kind}: accepted, and changed"
            found["accepted, as it was"] += 1
    assert done == count
    return found


@COUNTS
def test_mutated_checkpoints(runs, tmp_path, tell, count):
    path = tmp_path / "mutated.safetensors"
    original, other = ((runs / name / "model.safetensors").read_bytes() for name in ("0", "1"))
    known = checkpoint.load(runs / "0")

    def load(content):
        path.write_bytes(content)
        try:
            return checkpoint.load(path)
        except CheckpointError:
            return None

    def same(loaded):
        return identical(loaded.state, known.state) and replace(loaded, state={}) == replace(known, state={})

    head = 8 + int.from_bytes(original[:8], "little")
    found = tried(count, "checkpoints", original, other, head, load, same)
    tell(f"{count:,} mutated checkpoints: {dict(found)}; changed, crashed, or above {LIMIT:.0f} s: 0")
    assert found["refused"] > 0.9 * count


@COUNTS
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_mutated_states(runs, tmp_path, tell, suffix, count):
    places = [path.with_suffix("") for path in sorted((runs / "part" / "state").glob("*.json"))]
    newest = places[-1]
    for path in (runs / "part" / "state").glob(f"{newest.name}.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    known = state.newest(tmp_path, print)
    original, other = (place.with_suffix(suffix).read_bytes() for place in (places[1], places[0]))

    def load(content):
        (tmp_path / newest.name).with_suffix(suffix).write_bytes(content)
        try:
            return state.newest(tmp_path, lambda _: None)
        except RunDirectoryError:
            return None

    def same(loaded):
        return identical(loaded.tensors, known.tensors) and replace(loaded, tensors={}) == replace(known, tensors={})

    found = tried(count, f"states {suffix}", original, other, 4000, load, same)
    tell(f"{count:,} mutated states ({suffix}): {dict(found)}; changed, crashed, or above {LIMIT:.0f} s: 0")
    assert found["refused"] > 0.9 * count


@COUNTS
def test_mutated_results(runs, tmp_path, tell, count):
    original, other = ((runs / name / "results.json").read_bytes() for name in ("0", "1"))
    known = Results.load(runs / "0")

    def load(content):
        (tmp_path / "results.json").write_bytes(content)
        try:
            return Results.load(tmp_path)
        except RunDirectoryError:
            return None

    found = tried(count, "results", original, other, 0, load, lambda loaded: loaded == known)
    tell(f"{count:,} mutated results: {dict(found)}; changed, crashed, or above {LIMIT:.0f} s: 0")
    assert found["refused"] > 0.9 * count


@COUNTS
def test_mutated_findings(tmp_path, tell, count):
    """An evaluation's own are found again; none is taken for another."""
    drawing, looked = torch.Generator().manual_seed(0), []
    true, other = (finding(*(torch.rand(9, generator=drawing) > 0.5).tolist()) for _ in range(2))
    Written(tmp_path / "n", "me", CPU).once("a", (9,), lambda: true)
    Written(tmp_path / "o", "me", CPU).once("b", (9,), lambda: other)
    (path,), (their,) = ((tmp_path / name).iterdir() for name in "no")
    original = path.read_bytes()

    def look():
        looked.append(True)
        return true

    def load(content):
        path.write_bytes(content)
        return Written(tmp_path / "n", "me", CPU).once("a", (9,), look)

    head = 8 + int.from_bytes(original[:8], "little")
    found = tried(count, "findings", original, their.read_bytes(), head, load, lambda seen: same_finding(seen, true))
    tell(
        f"{count:,} mutated findings of an evaluation: {len(looked):,} looked at again, the others as they were; "
        f"changed, crashed, or above {LIMIT:.0f} s: 0"
    )
    assert found == {"accepted, as it was": count}
    assert len(looked) > 0.9 * count


@COUNTS
@pytest.mark.parametrize("is_zip", [True, False])
def test_mutated_pickles(tmp_path, tell, count, is_zip):
    """They have no checksum, so that a changed number is not seen; a sentinel would be, were anything run."""
    sentinel, path = tmp_path / "ran", tmp_path / "x.pt"
    state = {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.ones(3, dtype=torch.float64)}
    torch.save(state, path, _use_new_zipfile_serialization=is_zip)
    original = path.read_bytes()
    torch.save({**state, "x": Payload(sentinel)}, path, _use_new_zipfile_serialization=is_zip)
    other, found = path.read_bytes(), Counter()
    for drawing in drawings(f"pickles {is_zip}", count):
        path.write_bytes(mutated(original, drawing, other, 400)[1])
        with within(LIMIT):
            try:
                tensors = pickled.tensors(path).tensors
            except CheckpointError:
                found["refused"] += 1
            else:
                assert all(isinstance(value, torch.Tensor) for value in tensors.values())
                found["read as tensors"] += 1
    assert not sentinel.exists()
    form = "zip" if is_zip else "old"
    tell(f"{count:,} mutated pickles ({form}): {dict(found)}; crashed, run, or above {LIMIT:.0f} s: 0")
    assert min(found.values()) > 0.05 * count


class Payload:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.mkdir, (str(self.sentinel),)


@COUNTS
def test_mutated_datasets(tiny, tmp_path, monkeypatch, tell, count):
    """Fashion-MNIST's files have no checksum of their own: what is taken has the shape and the labels of images."""
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    recipe = tiny(f'data={{source="fashion-mnist", root={json.dumps(str(tmp_path))}}}', "validation.fraction=0.0")
    place, drawing = tmp_path / "FashionMNIST" / "raw", torch.Generator().manual_seed(0)
    place.mkdir(parents=True)
    whole = {}
    for part, number in (("train", 9), ("t10k", 4)):
        pixels = torch.randint(256, (number, 28, 28), generator=drawing, dtype=torch.uint8).numpy()
        labels = torch.randint(10, (number,), generator=drawing, dtype=torch.uint8).numpy()
        for name, array in ((f"{part}-images-idx3-ubyte", pixels), (f"{part}-labels-idx1-ubyte", labels)):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            whole[name] = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
            (place / name).write_bytes(whole[name])
    found = Counter()
    for number, drawing in enumerate(drawings("datasets", count)):
        name = sorted(whole)[number % len(whole)]
        (place / name).write_bytes(mutated(whole[name], drawing, head=16)[1])
        with within(LIMIT):
            try:
                images = build.dataset(recipe, CPU, print)
            except DataError:
                found["refused"] += 1
            else:
                for part in (images.train, images.test):
                    assert part.pixels.dtype == torch.uint8
                    assert part.pixels.shape[1:] == (1, 28, 28)
                    assert len(part) == len(part.labels) > 0
                    assert 0 <= part.labels.min() <= part.labels.max() < 10
                found["accepted, as images"] += 1
        (place / name).write_bytes(whole[name])
    tell(f"{count:,} mutated datasets: {dict(found)}; crashed or above {LIMIT:.0f} s: 0")
    assert min(found.values()) > 0.1 * count


TOKENS = [
    "=", "\n", '"', "'", "[", "]", "{", "}", ".", ",", "#", "-1", "0", "1e999", "nan", "true", "9" * 30, "\\", "\x00",
    "[[evaluators]]\n", "[data]\n", "kind", '"8/255"', '"1/0"', "0x", "1979-05-27", '"""', "é", "λ", "\r", "\ufeff",
    "\x1b[2J",
]  # fmt: skip


def retyped(text, drawing):
    """As people do: characters, words, values and lines that are changed, moved or left out."""
    for _ in range(drawing.randint(1, 3)):
        lines = text.split("\n")
        at, line = drawing.randrange(len(text) + 1), drawing.randrange(len(lines))
        match drawing.choice(["token", "value", "key", "drop", "double", "move"]):
            case "token":
                text = text[:at] + drawing.choice(TOKENS) + text[at + drawing.randint(0, 3) :]
            case "value":
                lines[line] = re.sub(r"=.*", lambda _: f"= {drawing.choice(TOKENS)}", lines[line])
                text = "\n".join(lines)
            case "key":
                lines[line] = re.sub(r"\w", lambda _: drawing.choice("abkx_λ"), lines[line], count=1)
                text = "\n".join(lines)
            case "drop":
                text = "\n".join(lines[:line] + lines[line + 1 :])
            case "double":
                text = "\n".join([*lines[:line], lines[line], *lines[line:]])
            case "move":
                moved = lines.pop(line)
                lines.insert(drawing.randint(0, len(lines)), moved)
                text = "\n".join(lines)
    return text


@COUNTS
def test_mutated_recipes(tmp_path, tell, count):
    files = sorted(ROOT.rglob("*.toml"))
    found = Counter()
    for number, drawing in enumerate(drawings("recipes", count)):
        source = files[number % len(files)]
        original, other = source.read_bytes(), drawing.choice(files).read_bytes()
        if drawing.random() < 0.5:
            content = mutated(original, drawing, other)[1]
        else:
            content = retyped(original.decode(), drawing).encode()
        path = tmp_path / source.relative_to(ROOT)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        with within(LIMIT):
            try:
                table = load_any(str(path))
            except AdvmixError as error:
                lines = str(error).split("\n")
                assert all(lines), content
                found["refused"] += 1
                continue
            for row in table.rows:
                usable(row.recipe)
        found["accepted"] += 1
    tell(f"{count:,} mutated recipes: {dict(found)}; crashed or above {LIMIT:.0f} s: 0")
    assert found["refused"] > 0.3 * count
    assert found["accepted"] > 0.1 * count


def usable(recipe):
    """What was accepted is a recipe: it survives its own file, and its parts can be made."""
    again = Recipe.model_validate(json.loads(json.dumps(recipe.resolved())))
    assert again == recipe
    assert again.digest() == recipe.digest()
    try:
        build.sampler(recipe)
        build.outline(recipe, CPU, print)
    except AdvmixError:
        return
    build.maximizer(recipe)
    build.validator(recipe)
    assert 0 <= build.schedule(recipe)(0.0) < float("inf")
    for chosen in recipe.evaluators:
        build.evaluator(chosen, recipe.threat)


def test_the_shipped_recipes_themselves_are_accepted_and_usable():
    """Else the test above would accept nothing for a reason of its own."""
    for path in sorted(ROOT.glob("*.toml")):
        usable(read(path).recipe())
        assert isinstance(read(path), Document)
