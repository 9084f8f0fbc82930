"""A disk that is full while something is saved: a clear error, and what was there before is whole."""

import errno
import os
import subprocess
from contextlib import contextmanager

import pytest
import tomli_w
from findings import finding, same_finding
from interrupted import CPU, SMALL, bits, same
from typer.testing import CliRunner

from advmix_cli import run, state
from advmix_cli.cli import app
from advmix_cli.evaluation.notebook import Written
from advmix_cli.fit import Keeping
from advmix_cli.report.results import Results


@contextmanager
def full_at(monkeypatch, number):
    """The `number`-th flush to the disk, from 0, finds it full. Yields the flushes so far."""
    seen, flush = [], os.fsync

    def fsync(handle):
        seen.append(handle)
        if len(seen) == number + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield seen


def flushes(recipe, directory, watch, monkeypatch):
    """How many a training makes that is saved after every batch."""
    with full_at(monkeypatch, -1) as seen:
        run.execute(recipe, directory, CPU, watch, Keeping(every=0))
    return len(seen)


@pytest.mark.parametrize("moments", [6, pytest.param(None, marks=pytest.mark.slow)])
def test_whichever_flush_finds_the_disk_full_nothing_is_lost(
    whole, tmp_path, watch, said, monkeypatch, capsys, moments
):
    """At `moments` of them, spread, or at every one."""
    recipe, expected = whole()
    count = flushes(recipe, tmp_path / "counted", watch, monkeypatch)
    assert count > 60
    chosen = range(count) if moments is None else range(1, count, count // moments)
    for number in chosen:
        part = tmp_path / f"part {number}"
        said.seek(0)
        said.truncate()
        with pytest.raises(OSError, match="No space left on device") as caught, full_at(monkeypatch, number):
            run.execute(recipe, part, CPU, watch, Keeping(every=0))
        assert str(part) in caught.value.filename
        assert not [path for path in part.rglob(".*") if path.name != ".lock"], "a part of a file was left"
        complaints = []
        known = state.newest(part / "state", complaints.append) if (part / "state").exists() else None
        assert not complaints
        assert known or number < 12 or (part / "model.safetensors").exists()
        run.execute(recipe, part, CPU, watch, Keeping(every=0))
        assert same(bits(part), expected), number
        assert Results.load(part).finished
    with capsys.disabled():
        print(
            f"\nthe disk full at {len(chosen)} of the {count} flushes of a training: {len(chosen)} went on, bit for bit"
        )


@pytest.fixture
def disk(tmp_path):
    """disk(megabytes): a file system of that size, mounted or made larger. Skipped where it may not be mounted."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size, *options):
        words = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}m", *options]), "tmpfs", str(place)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return place

    yield mount
    if place.is_mount():
        # Lazily: a tensor that was read from it is still mapped.
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        assert not place.is_mount()


def test_a_disk_of_eight_megabytes(tiny, tmp_path, watch, disk):
    """A real one: a state has 3.6 MB, and the third one finds it full."""
    recipe = tiny(*SMALL, "model.width=16")
    (tmp_path / "r.toml").write_text(tomli_w.dumps(recipe.resolved()))
    run.execute(recipe, tmp_path / "whole", CPU, watch)
    part = disk(8) / "part"
    words = ["train", str(tmp_path / "r.toml"), "--out", str(part), "--device", "cpu", "--save-every", "0s", "--resume"]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stdout) == (1, "")
    last = done.stderr.strip().split("\n")[-1]
    assert last.startswith(f"error: {part}/")
    assert last.endswith(
        ": No space left on device; what was saved before is whole, and the same command with --resume goes on"
    )
    assert "Traceback" not in done.stderr
    kept, complaints = state.newest(part / "state", print), []
    assert kept.epoch == 1
    assert kept.done >= 1
    again = CliRunner().invoke(app, words)  # and again
    assert again.exit_code == 1
    assert state.newest(part / "state", complaints.append).done >= kept.done
    assert not complaints
    disk(64, "remount")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert same(bits(part), bits(tmp_path / "whole"))


def test_a_finding_that_cannot_be_kept_leaves_no_part_of_it(tmp_path, monkeypatch):
    place, found = tmp_path / "n", finding(True, False)
    Written(place, "me", CPU).once("a", (2,), lambda: found)
    (path,) = place.iterdir()
    before = path.read_bytes()
    with full_at(monkeypatch, 0), pytest.raises(OSError, match="No space left"):
        Written(place, "me", CPU).once("b", (2,), lambda: found)
    assert list(place.iterdir()) == [path]
    complaints = []
    with full_at(monkeypatch, 0):
        notes = Written(place, "me", CPU, unwritable=complaints.append)
        assert same_finding(notes.once("b", (2,), lambda: found), found)
    assert [error.errno for error in complaints] == [errno.ENOSPC]
    assert list(place.iterdir()) == [path]
    assert path.read_bytes() == before
