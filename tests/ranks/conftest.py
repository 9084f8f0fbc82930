"""Two ranks on the CPU, which do all their trainings in one pair of processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
from processes import free_ports
from trials import SETTINGS
from worker import JOBS

import advmix_cli


@pytest.fixture(scope="package")
def pair(tiny, tmp_path_factory):
    """(directory, what rank 0 found, what rank 1 found), a job each by its name."""
    directory = tmp_path_factory.mktemp("pair")
    assert list(SETTINGS) == list(JOBS)
    for name, settings in SETTINGS.items():
        (directory / f"{name}.toml").write_text(tomli_w.dumps(tiny(*settings).resolved()))
    begin_alone(tiny(*SETTINGS["more"]), directory / "more")
    command = [sys.executable, str(Path(__file__).parent / "worker.py"), str(directory), *free_ports(len(JOBS))]
    ours = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    ours["PYTHONPATH"] = str(Path(advmix_cli.__file__).parents[1])
    running = [
        subprocess.Popen(
            command,
            env={**os.environ, **ours, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=3000)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 9], "\n".join(said)
    return directory, *(json.loads((directory / f"{rank}.json").read_text()) for rank in range(2))


def begin_alone(recipe, directory):
    """One process, which is stopped after six batches."""
    import io

    from interrupted import stopped
    from rich.console import Console

    from advmix_cli.report.progress import Lines

    stopped(recipe, directory, Lines(Console(file=io.StringIO())), at=6)
