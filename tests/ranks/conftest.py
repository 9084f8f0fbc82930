"""Two ranks on the CPU, which do all their trainings in one pair of processes."""

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import tomli_w
from worker import JOBS

import advmix_cli

OURS = (
    'maximizer={kind="integrated", ascent={steps=2, step_size="8/255", batch_norm="train"}, ratio={kind="learned"}}',
    'averaging={kind="ema", decay=0.9}',
)
FOUR_BATCHES = ("schedule.epochs=3", "schedule.batch_size=32", "evaluators=[]")
PLAIN = (
    "schedule.epochs=2", "evaluators=[]", "data.translate=0", 'optimizer={kind="sgd", lr=0.05}',
    'maximizer={kind="attack", ascent={steps=1, step_size="8/255", init="zero"}}',
)  # fmt: skip
NO_ATTACK = (*PLAIN, "threat.epsilon=0.0", "validation.step_size=0.0")
SYNCHRONISED = 'engine.batch_norm="synchronised"'
SETTINGS = {
    "synchronised": (*NO_ATTACK, SYNCHRONISED),
    "averaged": NO_ATTACK,
    "attacked": (*PLAIN, SYNCHRONISED),
    "whole": (*FOUR_BATCHES, *OURS),
    "part": (*FOUR_BATCHES, *OURS),
    "part.again": (*FOUR_BATCHES, *OURS),
    "fewer": FOUR_BATCHES,
    "more": FOUR_BATCHES,
    "indivisible": ("schedule.batch_size=33",),
    "graph": ('engine.compile="graph"',),
    "compiled": (*FOUR_BATCHES, 'engine.compile="step"'),
    "rollback": (*FOUR_BATCHES, *OURS, 'schedule.on_collapse="rollback"'),
    "infinite": FOUR_BATCHES,
    "apart": FOUR_BATCHES,
    "memory": FOUR_BATCHES,
    "death": FOUR_BATCHES,
}


def free_ports(count):
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in found]


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
        said = [process.communicate(timeout=150)[0] for process in running]
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
