"""When a state is saved, in which order its files are written, and what of cut-off writes is cleaned up."""

import json
from types import SimpleNamespace

import pytest
import torch
from interrupted import CPU, SMALL, stopped
from safetensors.torch import save

from advmix_cli import fit, run, state
from advmix_cli.errors import RunDirectoryError
from advmix_cli.fit import Keeping
from advmix_cli.seals import sealed
from advmix_cli.tensors import digest


@pytest.mark.parametrize(("every", "saved"), [(250.0, [3, 6]), (100.0, [1, 2, 3, 4, 5, 6, 7]), (1e9, [])])
def test_a_state_is_saved_whenever_so_much_time_has_passed(tiny, tmp_path, watch, monkeypatch, every, saved):
    """Every batch takes a hundred seconds here."""
    recipe = tiny(*SMALL, "schedule.epochs=1", "validation={fraction=0.0, report='last'}", "schedule.batch_size=16")
    now, batches, found = [0.0], [], []
    monkeypatch.setattr(fit, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    true = state.State.save

    def save(self, directory):
        assert self.seconds == 100 * self.done
        found.append(self.done)
        true(self, directory)

    class Slow(type(watch)):
        def advance(self, done, note=""):  # noqa: ARG002
            now[0] += 100 * done
            batches.append(done)

    monkeypatch.setattr(state.State, "save", save)
    slow = Slow(watch._console)
    assert run.execute(recipe, tmp_path, CPU, slow, Keeping(every=every)).seconds == 100 * sum(batches)
    assert [done for done in found if done <= 7] == saved
    assert len(batches) > 7


def test_the_manifest_is_written_after_the_tensors_and_without_it_there_is_no_state(tiny, tmp_path, watch, monkeypatch):
    written, true = [], state.write_atomically

    def record(path, content):
        written.append(path.suffix)
        if len(written) == 4:
            raise KeyboardInterrupt  # between the tensors and the manifest of the second state
        true(path, content)

    monkeypatch.setattr(state, "write_atomically", record)
    with pytest.raises(KeyboardInterrupt):
        run.execute(tiny(*SMALL), tmp_path, CPU, watch, Keeping(every=0))
    assert written == [".safetensors", ".json"] * 2
    assert len(list((tmp_path / "state").glob("*.safetensors"))) == 2
    assert state.newest(tmp_path / "state", pytest.fail).done == 1


TENSORS = {"x": torch.zeros(1)}


@pytest.mark.parametrize(
    ("manifest", "tensors"),
    [
        ([], save(TENSORS)),
        (sealed({}), save(TENSORS)),
        (sealed({"tensors": digest(TENSORS), **{f"{n}": n for n in range(100)}}), save(TENSORS)),
        (sealed({"tensors": digest(TENSORS)}), b"x"),
        (sealed({"tensors": digest(TENSORS)}), None),
    ],
    ids=["a list", "empty", "other keys", "no tensors", "no file of tensors"],
)
def test_what_is_no_state_is_damaged_and_said_in_a_line_or_two(tmp_path, manifest, tensors):
    (tmp_path / "000001-000001.json").write_text(json.dumps(manifest))
    if tensors is not None:
        (tmp_path / "000001-000001.safetensors").write_bytes(tensors)
    said = []
    with pytest.raises(RunDirectoryError, match="holds no whole state"):
        state.newest(tmp_path, said.append)
    (warning,) = said
    start, _, why = warning.partition(" is damaged: ")
    assert start == f"warning: the state {tmp_path}/000001-000001"
    assert 0 < len(why) <= 200


@pytest.mark.parametrize(
    "change", [{}, {"epoch": 0}, {"seconds": -1.0}, {"seconds": "1"}, {"machines": []}, {"more": 1}], ids=str
)
def test_a_manifest_of_what_cannot_be_is_damaged(tmp_path, change):
    known = {"recipe": "", "images": {}, "epoch": 1, "done": 1, "names": [], "best": None, "metrics": "", "seconds": 1}
    known |= {"machines": [{"from_epoch": 1, "from_batches": 0}], "tensors": digest(TENSORS), **change}
    stem = tmp_path / f"{known['epoch']:06}-000001"
    stem.with_suffix(".json").write_text(json.dumps(sealed(known)))
    stem.with_suffix(".safetensors").write_bytes(save(TENSORS))
    if not change:
        assert state.newest(tmp_path, pytest.fail).seconds == 1
        return
    with pytest.raises(RunDirectoryError, match="holds no whole state"):
        state.newest(tmp_path, lambda _: None)


def test_a_manifest_of_endless_depth_is_damaged(tmp_path):
    (tmp_path / "000001-000001.json").write_text("[" * 100_000)
    with pytest.raises(RunDirectoryError, match="holds no whole state"):
        state.newest(tmp_path, lambda _: None)


def test_a_manifest_that_is_not_there_is_damaged(tmp_path):
    (tmp_path / "000001-000001.json").symlink_to("gone")
    with pytest.raises(RunDirectoryError, match="holds no whole state"):
        state.newest(tmp_path, lambda _: None)


CUT_OFF = [
    ".recipe.toml.abc", ".metrics.jsonl.abc", ".model.safetensors.abc", ".best.safetensors.abc", ".results.json.abc",
    "state/.000001-000001.json.abc", "state/.000001-000001.safetensors.abc", "state/000009-000001.safetensors",
    "verdicts/.PGD2 epoch 1 abcdefgh.safetensors.abc",
]  # fmt: skip
OTHERS = [".notes", "mine.txt", "verdicts/mine.safetensors", ".modelsafetensors.abc"]


def test_what_a_write_that_was_cut_off_left_is_removed_and_nothing_else(tiny, tmp_path, watch):
    recipe = tiny(*SMALL)
    stopped(recipe, tmp_path, watch, at=3)
    for name in CUT_OFF + OTHERS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    stopped(recipe, tmp_path, watch, at=2)
    assert not [name for name in CUT_OFF if (tmp_path / name).exists()]
    run.execute(recipe, tmp_path, CPU, watch)
    assert [name for name in OTHERS if (tmp_path / name).exists()] == OTHERS
