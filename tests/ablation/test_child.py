"""The process of a cell: how it is started, and what its end means."""

import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from made import write_run

from advmix_cli.ablation import child
from advmix_cli.ablation.cells import cells
from advmix_cli.ablation.child import Child, command, started, stopped_by
from advmix_cli.ablation.slots import Slot
from advmix_cli.recipe.table import Row, Table

SLOT = Slot("a slot", "cuda", {})


@pytest.fixture
def cell(tiny, tmp_path):
    """One that waits."""
    (found,) = cells(Table("t", "T", (Row("a", tiny(), {}),)), 1, tmp_path)
    found.directory.mkdir(parents=True)
    return found


@pytest.mark.parametrize(
    ("code", "ending"), [(0, "done"), (3, "done"), (143, "stopped"), (-15, "stopped"), (1, "failed"), (None, None)]
)
def test_results_are_of_a_process_that_says_that_it_has_ended_with_them(cell, code, ending):
    write_run(cell.directory, cell.row.recipe, [])
    assert Child(cell, SLOT, SimpleNamespace(poll=lambda: code), 0).ending() == ending


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_a_training_that_was_stopped_says_by_which_signal_or_died_of_it(name):
    number = getattr(signal, name)
    assert stopped_by(128 + number) == stopped_by(-number) == number
    assert stopped_by(number) is stopped_by(-signal.SIGKILL) is None


def test_a_cell_is_gone_on_with_by_the_documented_command():
    train = [sys.executable, "-m", "advmix_cli", "train", "a/recipe.toml", "--out", "a", "--resume"]
    options = ["--device", "cuda", "--save-every", "0.500s", "--track", "wandb", "--track", "tensorboard"]
    assert command(Path("a"), "cuda", 0.5, ["wandb", "tensorboard"]) == [*train, *options]


def test_it_reads_nothing_from_our_terminal(cell, monkeypatch):
    asked = []
    monkeypatch.setattr(child.subprocess, "Popen", lambda _, **how: asked.append(how))
    started(cell, SLOT, 1.0, {})
    assert asked[0]["stdin"] is subprocess.DEVNULL
