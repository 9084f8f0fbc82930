"""A file is either the old one or the whole new one."""

import os

import pytest

from advmix_cli.files import write_atomically


def names(directory):
    """What is in it."""
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(("content", "written"), [("é\r\nx", b"\xc3\xa9\r\nx"), (b"\x00\xff", b"\x00\xff"), ("", b"")])
def test_the_content_is_written_byte_for_byte(tmp_path, content, written):
    write_atomically(tmp_path / "f", content)
    assert (tmp_path / "f").read_bytes() == written
    assert names(tmp_path) == ["f"]


def test_parents_are_made(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "f", "x")
    assert (tmp_path / "a" / "b" / "f").read_text() == "x"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_who_may_read_it_is_for_the_umask_to_say(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "f", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, error, old):
    if old:
        (tmp_path / "f").write_text(old)

    def fail(_):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "f", "new" * 10_000)
    assert names(tmp_path) == (["f"] if old else [])
    if old:
        assert (tmp_path / "f").read_text() == old


def test_the_new_content_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    (tmp_path / "f").write_text("old")
    seen = []
    real = os.fsync

    def watch(handle):
        seen.append((tmp_path / "f").read_text())
        real(handle)

    monkeypatch.setattr(os, "fsync", watch)
    write_atomically(tmp_path / "f", "new")
    # The file itself, before the rename; then the directory, after it.
    assert seen == ["old", "new"]


def test_a_directory_in_the_way_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "f", "x")
    assert names(tmp_path) == ["f"]
