"""A benchmark that is stopped from outside, as a process of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

SMALL = ["data.train_limit=64", "model.width=2", "schedule.batch_size=16", "maximizer.ascent.steps=1"]


@pytest.fixture
def short():
    """The sockets of a loader's workers have short paths."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def test_a_signal_to_the_whole_process_group_ends_it_without_a_traceback_and_leaves_nothing(short):
    """As `timeout` sends it: the loader's workers must not die of it before the benchmark does."""
    settings = [word for setting in SMALL for word in ("--set", setting)]
    words = ["bench", "digits", "--rounds", "100000", "--arm", "textbook", *settings]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "advmix_cli", *words], env={**os.environ, "TMPDIR": str(short)},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr
    while not process.stderr.readline().startswith("racing"):
        assert process.poll() is None
    time.sleep(3)  # the workers have started
    os.killpg(process.pid, signal.SIGTERM)
    _, rest = process.communicate(timeout=120)
    assert (process.returncode, rest) == (143, "stopped by SIGTERM\n")
    assert list(short.glob("pymp-*")) == []
