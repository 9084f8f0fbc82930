"""When a state is saved, in which order its files are written, and what of cut-off writes is cleaned up."""

from types import SimpleNamespace

import pytest
from interrupted import CPU, SMALL, stopped

from advmix_cli import fit, run, state
from advmix_cli.fit import Keeping


@pytest.mark.parametrize(("every", "saved"), [(250.0, [3, 6]), (100.0, [1, 2, 3, 4, 5, 6, 7]), (1e9, [])])
def test_a_state_is_saved_whenever_so_much_time_has_passed(tiny, tmp_path, watch, monkeypatch, every, saved):
    """Every batch takes a hundred seconds here."""
    recipe = tiny(*SMALL, "schedule.epochs=1", "validation={fraction=0.0, report='last'}", "schedule.batch_size=16")
    now, batches, found = [0.0], [], []
    monkeypatch.setattr(fit, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    true = state.State.save

    def save(self, directory):
        found.append(self.done)
        true(self, directory)

    class Slow(type(watch)):
        def advance(self, done, note=""):  # noqa: ARG002
            now[0] += 100 * done
            batches.append(done)

    monkeypatch.setattr(state.State, "save", save)
    slow = Slow(watch._console)
    run.execute(recipe, tmp_path, CPU, slow, Keeping(every=every))
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
