"""One process at a time in a run directory."""

import errno
import fcntl
import os
import threading
import time

import pytest
from processes import command, wait_for

from advmix_cli.errors import RunDirectoryError
from advmix_cli.locks import held, is_held


def test_a_directory_has_one_holder_which_is_named_and_a_killed_one_frees_it(long, tmp_path):
    part = tmp_path / "part"
    process = command(long, part)
    wait_for(part / "metrics.jsonl", process)
    second = command(long, part)
    out, said = second.communicate(timeout=300)
    assert (second.returncode, out) == (2, "")
    assert f"{part} is in use: process {process.pid} on " in said
    process.kill()
    process.communicate()
    with held(part):
        pass


def test_of_many_at_once_one_works(tmp_path):
    entered, refused, start = [], [], threading.Barrier(8)

    def enter():
        start.wait()
        try:
            with held(tmp_path / "run"):
                entered.append(1)
                until = time.monotonic() + 30
                while len(refused) < 7 and time.monotonic() < until:
                    time.sleep(0.01)
        except RunDirectoryError:
            refused.append(1)

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(entered), len(refused)) == (1, 7)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_where_a_file_system_has_no_locks_there_are_none(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with held(tmp_path), held(tmp_path):
        assert not is_held(tmp_path)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "thesis.txt")
    with pytest.raises(RunDirectoryError, match="cannot be written"), held(tmp_path / "run"):
        pytest.fail("entered")
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_holder_that_has_not_yet_named_itself_is_waited_for(tmp_path):
    with held(tmp_path / "run"):
        name = (tmp_path / "run" / ".lock").read_text()
        (tmp_path / "run" / ".lock").write_text("")
        later = threading.Timer(0.15, lambda: (tmp_path / "run" / ".lock").write_text(name))
        later.start()
        with pytest.raises(RunDirectoryError, match=r"is in use: process \d+ on "), held(tmp_path / "run"):
            pytest.fail("entered")
        later.join()
