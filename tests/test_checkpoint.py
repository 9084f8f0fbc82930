"""One safetensors file: what it holds, and what is refused with which message."""

import json
import os
import pickle
import resource
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from advmix_cli import build, checkpoint
from advmix_cli.checkpoint import Checkpoint
from advmix_cli.errors import CheckpointError
from advmix_cli.seals import sealed, unsealed
from advmix_cli.tensors import digest

CPU = torch.device("cpu")


@pytest.fixture
def saved(tiny):
    recipe = tiny("engine.channels_last=true")
    network = build.new_network(recipe, build.dataset(recipe, CPU, print), CPU)
    with torch.no_grad():  # values that survive no rounding and no comparison by ==
        network.linear.bias[:4] = torch.tensor([1e-45, -0.0, 3.4e38, 1 / 3])
    return Checkpoint(
        recipe=recipe,
        state=network.state_dict(),
        classes=tuple("0123456789"),
        image_shape=(1, 8, 8),
        images={"train": "a", "validation": "b", "test": "c"},
        selection="best on validation",
        epoch=2,
        metrics={"loss": 0.1 + 0.2},
    )


@pytest.fixture
def path(saved, tmp_path):
    saved.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def bits(value):
    return value.contiguous().reshape(-1).view(torch.uint8)


def test_a_round_trip_keeps_every_bit(saved, path):
    loaded = checkpoint.load(path)
    assert loaded.state.keys() == saved.state.keys()
    for name, value in saved.state.items():
        assert (loaded.state[name].dtype, loaded.state[name].shape) == (value.dtype, value.shape)
        assert torch.equal(bits(loaded.state[name]), bits(value)), name
    assert replace(loaded, state={}) == replace(saved, state={})


def test_a_loaded_network_computes_the_same_bits(saved, path):
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    original = build.saved_network(saved, CPU).eval()
    assert torch.equal(build.saved_network(checkpoint.load(path), CPU).eval()(images), original(images))
    assert original.normalize.mean.item() != 0


def test_plain_safetensors_reads_the_state_dict(saved, path):
    assert load_file(path).keys() == saved.state.keys()
    assert "blocks.0.conv1.weight" in load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    header = json.loads(metadata["advmix"])
    assert header["recipe"]["model"]["width"] == 4
    assert header["digest"] == saved.recipe.digest()
    assert header["versions"]["torch"] == torch.__version__
    assert header["selection"] == "best on validation"


def test_a_directory_stands_for_its_last_epoch(path):
    assert checkpoint.find(path.parent) == path
    assert checkpoint.find(path) == path


def test_the_digest_depends_on_names_shapes_and_bits_but_not_on_the_order(saved):
    state = {name: value.contiguous() for name, value in saved.state.items()}
    first = digest(state)
    assert digest(dict(reversed(state.items()))) == first
    negated = state["linear.bias"].clone()
    negated[1] = 0.0  # was -0.0
    others = [
        {**state, "linear.bias": negated},
        {**state, "linear.weight": state["linear.weight"].reshape(-1)},
        {**state, "linear.bias": state["linear.bias"].view(torch.int32)},
        {("x" if name == "linear.bias" else name): value for name, value in state.items()},
        {name: value for name, value in state.items() if name != "linear.bias"},
    ]
    assert len({first, *map(digest, others)}) == 6


@pytest.mark.parametrize("length", [0, 4, 8, 100, 0.5, -1])
def test_a_truncated_file_is_refused(path, length):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * length) if isinstance(length, float) else length])
    assert "not a whole safetensors file" in refused(path)


def test_what_the_disk_does_not_give_is_not_called_damaged(path, monkeypatch):
    def closed(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoint, "read", closed)
    assert refused(path) == f"{path} cannot be read: Permission denied"


def test_a_name_that_the_library_cannot_take_is_not_called_damage(path):
    renamed = path.rename(path.with_name(os.fsdecode(b"\xff.safetensors")))
    assert refused(renamed).endswith("cannot be read: its name is not UTF-8")


def test_a_flipped_bit_in_the_tensors_is_refused(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    assert "damaged or changed" in refused(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors", metadata={"format": "pt"})
    assert "not a checkpoint of advmix" in refused(tmp_path / "other.safetensors")
    save_file({"weight": torch.ones(2)}, tmp_path / "bare.safetensors")
    assert "not a checkpoint of advmix" in refused(tmp_path / "bare.safetensors")


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was read')",)


@pytest.mark.parametrize("kind", ["html", "pickle", "torch"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.safetensors", "not a whole safetensors file"),
        ("model.pt", "`advmix import` takes the tensors out of it"),
        ("model.pkl", "`advmix import` takes the tensors out of it"),
        ("model.pickle", "`advmix import` takes the tensors out of it"),
    ],
)
def test_other_formats_are_refused_unread(tmp_path, kind, name, words):
    path = tmp_path / name
    if kind == "html":
        path.write_text("<!DOCTYPE html>\n<html>404 not found</html>\n" * 20)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        torch.save({"weight": torch.ones(2)}, path)
    assert words in refused(path)


def test_a_missing_file_is_refused(tmp_path):
    assert "no such file" in refused(tmp_path / "gone.safetensors")
    assert "holds no run" in refused(tmp_path)
    (tmp_path / "recipe.toml").touch()
    assert refused(tmp_path).endswith("has no model.safetensors: the training did not end, or that file is gone")
    (tmp_path / "best.safetensors").touch()
    assert refused(tmp_path).endswith(f"; {tmp_path}/best.safetensors is the best epoch so far")


def rewrite(path, change):
    """The same tensors under a header that `change` has edited."""
    with safe_open(path, framework="pt") as file:
        header = unsealed(json.loads(file.metadata()["advmix"]))
    state = load_file(path)
    save_file(state, path, metadata={"format": "pt", "advmix": change(header)})


@pytest.mark.parametrize("key", ["schema", "recipe", "tensors", "classes", "image_shape", "images", "epoch"])
def test_a_header_without_one_of_its_keys_is_refused(path, key):
    rewrite(path, lambda header: json.dumps(sealed({name: header[name] for name in header if name != key})))
    message = refused(path)
    assert "header is damaged" in message
    assert key in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", 0), ("seconds", -1.0), ("image_shape", [0, 8, 8]), ("selection", "best"),
        ("collapsed", [0]),
    ],
)  # fmt: skip
def test_a_header_that_says_what_cannot_be_is_refused(path, key, value):
    rewrite(path, lambda header: json.dumps(sealed({**header, key: value})))
    message = refused(path)
    assert "header is damaged" in message
    assert key in message


@pytest.mark.parametrize(
    ("selection", "name"),
    [
        ("last", "model"), ("best on validation", "best"), ("best on test", "best"), ("averaged last", "average"),
        ("averaged best on validation", "average-best"), ("averaged best on test", "average-best"),
    ],
)  # fmt: skip
def test_each_way_to_choose_an_epoch_has_its_file(saved, tmp_path, selection, name):
    assert checkpoint.name_of(selection) == f"{name}.safetensors"
    replace(saved, selection=selection).save(tmp_path / "a.safetensors")
    assert checkpoint.load(tmp_path / "a.safetensors").selection == selection


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"schema": 2}'])
def test_a_header_of_another_form_is_refused(path, text):
    rewrite(path, lambda _header: text)
    assert "header is damaged" in refused(path)


def test_a_schema_of_the_future_is_refused(path):
    rewrite(path, lambda header: json.dumps({**header, "schema": 9, "versions": {"advmix": "9.9"}}))
    message = refused(path)
    assert "9.9" in message
    assert "another format" in message


def test_a_schema_of_the_future_without_versions_is_refused(path):
    rewrite(path, lambda header: json.dumps({"schema": 99, "recipe": header["recipe"]}))
    refused(path)


def test_a_recipe_that_is_no_longer_valid_is_refused(path):
    def widen(header):
        header["recipe"]["model"]["width"] = "wide"
        return json.dumps(sealed(header))

    rewrite(path, widen)
    message = refused(path)
    assert "model" in message
    assert "width" in message


def test_missing_unexpected_and_mis_shaped_parameters_are_listed(saved):
    state = dict(saved.state)
    del state["linear.bias"]
    state["surplus"] = torch.ones(1)
    state["conv.weight"] = torch.ones(9, 1, 3, 3)
    with pytest.raises(CheckpointError) as caught:
        build.saved_network(replace(saved, state=state), CPU)
    for name in ("linear.bias", "surplus", "conv.weight"):
        assert name in str(caught.value)


def test_a_network_that_only_its_recipe_claims_takes_no_memory(saved, tiny):
    huge = replace(saved, recipe=tiny('model={kind="wide-resnet", depth=34, width=1024}'))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="does not fit its recipe's network"):
        build.saved_network(huge, CPU)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    )  # kilobytes; its weights have terabytes


def test_saving_leaves_no_other_file_behind(path):
    assert [entry.name for entry in path.parent.iterdir()] == ["model.safetensors"]


def test_a_failed_save_keeps_the_old_file(saved, path, monkeypatch):
    before = path.read_bytes()

    def fail(*_args):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk is full"):
        replace(saved, epoch=3).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["model.safetensors"]
