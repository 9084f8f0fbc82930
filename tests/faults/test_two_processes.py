"""Two processes that start in one run directory at once: one works, one is told, nothing is mixed."""

import re

import pytest
import tomli_w
from interrupted import CPU, bits, same
from processes import command

from advmix_cli import run
from advmix_cli.fit import Keeping


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_of_two_processes_at_once_one_works_and_one_is_refused(tiny, tmp_path, watch, capsys, rounds):
    recipe = tiny("schedule.epochs=50", "evaluators=[]", "engine.threads=1")  # seconds, in which the other one arrives
    path = tmp_path / "r.toml"
    path.write_text(tomli_w.dumps(recipe.resolved()))
    run.execute(recipe, tmp_path / "alone", CPU, watch, Keeping())
    expected = bits(tmp_path / "alone")
    for number in range(rounds):
        part = tmp_path / f"part {number}"
        processes = [command(path, part, "--save-every", "0s") for _ in range(2)]
        ends = [(process, *process.communicate(timeout=300)) for process in processes]
        (worker, _, _), (refused, out, said) = sorted(ends, key=lambda end: end[0].returncode)
        assert (worker.returncode, refused.returncode, out) == (0, 2, ""), [end[2] for end in ends]
        assert re.search(rf"error: {re.escape(str(part))} is in use: process {worker.pid} on .+, since \d{{4}}-", said)
        assert same(bits(part), expected)
        assert not (part / "state").exists()
    with capsys.disabled():
        print(f"\ntwo processes in one directory, {rounds} times: one worked and one was refused in {rounds} of them")
