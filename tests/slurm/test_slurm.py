"""Tables on a real SLURM cluster: what it leaves is what this machine alone would have."""

import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
import tomli_w
from cluster import NODES, Cluster
from interrupted import bits
from typer.testing import CliRunner

from advmix_cli.cli import app
from advmix_cli.files import write_atomically
from advmix_cli.recipe.load import load

ROOT = Path(__file__).parents[2]
ASKED = ["--launcher", "slurm", "--time", "20m", "--cpus", "1"]


@pytest.fixture
def table(tmp_path, monkeypatch, tiny):
    """table({row: what it sets}, *settings): where the cells of the small table lie that `ablate` then takes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the tasks start in `tmp_path`

    def write(rows, *settings):
        Path("base.toml").write_text(tomli_w.dumps(tiny(*settings, "engine.threads=1").resolved()))
        entries = [{"name": name, "set": settings} for name, settings in rows.items()]
        Path("small.toml").write_text(tomli_w.dumps({"title": "small", "base": "base.toml", "rows": entries}))
        return tmp_path / "runs" / "small"

    return write


def ablate(*words, code=0):
    """(the document on stdout, what was said)."""
    done = CliRunner().invoke(app, ["ablate", "small.toml", "--device", "cpu", "--format", "json", *words])
    assert done.exit_code == code, (done.output, done.exception)
    return (json.loads(done.stdout) if done.stdout else None), done.stderr


def states():
    return [cell["state"] for cell in ablate("--status")[0]["cells"]]


def named(directory, row):
    (found,) = directory.glob(f"{row}-seed0-*")
    return found


def timeless(document):
    """A table's records without the time that measuring took."""
    return [{name: value for name, value in record.items() if name != "seconds"} for record in document["cells"]]


def logged(directory):
    text = directory / "log.txt"
    return text.read_text() if text.exists() else ""


def epochs(directory):
    path = directory / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_table_is_the_same_as_on_one_machine_and_a_node_that_dies_loses_nothing(table, cluster):
    directory = table({"one": {}, "two": {"seed": 5}, "three": {"maximizer": {"ascent": {"steps": 1}}}})
    cluster.kill("n2")  # idle, and SLURM has not found out
    # Or a task could start before it is looked at.
    cluster.tell("scontrol", "update", "PartitionName=main", "State=DOWN")
    given, said = ablate(*ASKED, "--partition", "main")
    cluster.tell("scontrol", "update", "PartitionName=main", "State=UP")
    assert [(cell["row"], cell["state"], cell["slurm"]) for cell in given["cells"]] == [
        (row, "waiting", "PENDING") for row in ("one", "two", "three")
    ]
    job = given["cells"][0]["task"].removesuffix("_0")
    assert [cell["task"] for cell in given["cells"]] == [f"{job}_0", f"{job}_1", f"{job}_2"]
    assert f"submitted as job {job}: 3 of 3 cells; `scancel {job}` ends them, all work saved\n" in said

    cluster.wait(lambda: {"running", "waiting"} <= set(states()))
    seen = {cell["state"]: cell for cell in ablate("--status")[0]["cells"]}
    assert (seen["running"]["slurm"], seen["running"]["node"] in NODES) == ("RUNNING", True)
    assert (seen["waiting"]["slurm"], seen["waiting"]["node"]) == ("PENDING", "")
    queue = set(cluster.queue())
    again, said = ablate(*ASKED)
    assert "nothing to submit: what is not done is in the queue, or at work\n" in said
    assert [cell["task"] for cell in again["cells"]] == [f"{job}_0", f"{job}_1", f"{job}_2"]
    assert queue == set(cluster.queue()) == {f"{job}_0", f"{job}_1", f"{job}_2"}

    cluster.wait(lambda: "done" in states())
    first = next(cell["directory"] for cell in ablate("--status")[0]["cells"] if cell["state"] == "done")
    before = (Path(first) / "results.json").stat().st_mtime_ns
    cluster.start("n2")
    cluster.wait(lambda: states() == ["done"] * 3)
    assert (Path(first) / "results.json").stat().st_mtime_ns == before

    away, said = ablate(*ASKED)  # all is done: the table, as without SLURM
    assert "submitted" not in said
    here, _ = ablate("--out", "here")
    assert timeless(away) == timeless(here)
    assert all(record["accuracy"] is not None for record in here["cells"])
    trained = sorted(directory.glob("*-seed*-*"))
    assert len(trained) == 3
    for cell in trained:
        assert bits(cell) == bits(Path("here") / "small" / cell.name)


def test_what_was_trained_for_other_evaluators_is_only_measured(table, cluster):
    directory = table({"one": {}})
    ablate()
    (before,) = directory.glob("one-seed0-*")
    others = ["--set", 'evaluators=[{kind="pristine"}, {kind="pgd", steps=3, step_size="8/255"}]']
    _, said = ablate(*ASKED, *others)
    took = f"trained as {before.name}: only measured\n"
    assert f"one, seed 0: {took}" in said
    cluster.wait(lambda: ablate("--status", *others)[0]["cells"][0]["state"] == "done")
    (after,) = set(directory.glob("one-seed0-*")) - {before}
    assert bits(after) == bits(before)
    assert logged(after).startswith(took)
    assert "epoch 1/" not in logged(after)


def test_a_cell_that_is_preempted_goes_on_and_ends_with_the_same_bits(table, cluster):
    """By submitit's signal first, and then by a job that may have the node sooner."""
    directory = table({"one": {}}, "schedule.epochs=60", "schedule.batch_size=32")
    ablate(*ASKED, "--partition", "first")
    cell = named(directory, "one")
    cluster.wait(lambda: epochs(cell) >= 2)
    (job,) = cluster.queue()
    assert states() == ["running"]
    cluster.tell("scancel", "--signal=USR2", job)  # to every process of it
    cluster.wait(lambda: logged(cell).count("resumed at epoch") == 1)
    cluster.tell("sbatch", "--partition=urgent", "--time=1", "--output=/dev/null", "--wrap=true")
    cluster.wait(lambda: logged(cell).count("resumed at epoch") == 2)
    assert epochs(cell) < 60
    assert list(cluster.queue()) == [job]
    cluster.wait(lambda: not cluster.queue())
    assert states() == ["done"]
    again = "; the same command with --resume goes on in"
    stops = [line.partition(again)[0] for line in logged(cell).splitlines() if again in line]
    assert stops == ["unfinished: stopped by SIGUSR2", "unfinished: stopped by SIGTERM"]
    ablate("--out", "here")
    assert bits(cell) == bits(Path("here") / "small" / cell.name)


def test_a_cell_that_crashes_twice_has_failed_and_the_others_go_on(table, cluster):
    directory = table({"bad": {}, "killed": {"seed": 1}}, "schedule.epochs=60")
    bad, killed = (Path(cell["directory"]) for cell in ablate("--status")[0]["cells"])
    write_atomically(bad / "recipe.toml", tomli_w.dumps(load(Path("base.toml"), ["title='bad'"]).resolved()))
    (bad / "best.safetensors").mkdir()  # where a training would write
    ablate(*ASKED, "--partition", "main")
    cluster.wait(lambda: epochs(killed) >= 2)
    os.kill(int((killed / ".lock").read_text().split()[1]), signal.SIGKILL)  # as the kernel does when memory is out
    cluster.wait(lambda: not cluster.queue())
    (bad / "best.safetensors").rmdir()
    assert states() == ["failed", "done"]
    failure = json.loads((bad / "failure.json").read_text())
    assert failure == {"attempts": 2, "exit_code": 1, "error": failure["error"]}
    assert f"{bad}/best.safetensors: Is a directory" in failure["error"]
    assert logged(bad).count("Is a directory") == 2
    assert logged(killed).count("resumed at epoch") == 1
    given, said = ablate(*ASKED, "--partition", "main")
    assert "1 of 2 cells" in said
    assert [cell["task"] is None for cell in given["cells"]] == [False, True]
    assert len(list((directory / ".slurm").iterdir())) == 2  # the lock, and no submission that is over
    first, second = states()
    assert (first in ("waiting", "running"), second) == (True, "done")


def test_what_slurm_refuses_is_said_in_a_line_and_leaves_no_job(table, cluster):
    directory = table({"one": {}})
    _, said = ablate(*ASKED, "--partition", "nowhere", code=2)
    assert said == (
        "error: sbatch: invalid partition specified: nowhere; Batch job submission failed: Invalid partition name "
        "specified\n"
    )
    assert cluster.queue() == {}
    assert [path.name for path in (directory / ".slurm").iterdir()] == [".lock"]
    assert states() == ["waiting"]
    _, said = ablate(*ASKED, "--mem", "much", code=2)
    assert said.startswith("error: sbatch: Invalid --mem specification")


def test_more_cells_than_an_array_may_have(table, cluster):
    table({"one": {}})
    _, said = ablate(*ASKED, "--seeds", "22", code=2)
    assert said == (
        "error: 22 cells, and an array of this cluster has at most 21 tasks (MaxArraySize): submit fewer at a time, "
        "with --rows or --seeds\n"
    )
    assert cluster.queue() == {}


@pytest.mark.usefixtures("cluster")
def test_two_clusters_on_one_file_system_do_not_take_the_jobs_of_each_other_for_their_own(table):
    """On the other one there is a job of the same name and number."""
    directory = table({"one": {}, "two": {"seed": 5}}, "schedule.epochs=400")
    given, _ = ablate(*ASKED, "--partition", "first")
    tasks = [cell["task"] for cell in given["cells"]]
    (job,) = {task.partition("_")[0] for task in tasks}
    (record,) = directory.glob(".slurm/*/tasks.json")
    assert list(json.loads(record.read_text())["tasks"].values()) == tasks
    with Cluster("other", first=int(job)) as other:
        other.tell("sbatch", "--job-name=advmix-small", "--array=0-1", "--output=/dev/null", "--wrap=sleep 600")
        assert set(other.queue()) == set(tasks)
        seen, _ = ablate("--status")
        assert [(cell["task"], cell["cluster"]) for cell in seen["cells"]] == [(None, "advmix")] * 2
        assert seen["captions"][1] == (
            f"2 of 2 cells are in job {job} of cluster advmix, and this is cluster other: see there how they stand; to "
            f"run them here, end them there (scancel {job}), and delete {record.parent.relative_to(Path.cwd())}"
        )
        _, said = ablate(*ASKED)
        assert "nothing to submit" in said
        assert set(other.queue()) == set(tasks)
    assert [cell["task"] for cell in ablate("--status")[0]["cells"]] == tasks


def test_the_readme_s_job_saves_at_its_signal_and_goes_on(cluster, tmp_path, monkeypatch):
    """`scancel --batch` reaches what `--signal=B:USR1@120` reaches."""
    readme = (ROOT / "README.md").read_text()
    (line,) = re.findall(r"^    (exec advmix train cifar10-ours --out DIR --resume)$", readme, re.MULTILINE)
    edits = [
        "schedule.epochs=60",
        "model.width=4",
        "evaluators=[]",
        "validation.fraction=0",
        'validation.report="last"',
    ]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = shlex.join(["--device", "cpu", *(word for edit in edits for word in ("--set", edit))])
    advmix = f"{sys.executable} -m advmix_cli"
    line = line.replace("exec advmix", f"exec {advmix}").replace("cifar10-ours", f"digits {words}")
    (tmp_path / "job.sh").write_text(f"#!/bin/sh\n{line.replace('DIR', str(tmp_path / 'run'))}\n")

    def submitted():
        return cluster.tell("sbatch", "--parsable", "-o", str(tmp_path / "log"), str(tmp_path / "job.sh"))

    def ended(job):
        cluster.wait(lambda: job not in cluster.queue())
        return re.search(r"ExitCode=(\d+:\d+)", cluster.tell("scontrol", "show", "job", job))[1]

    first = submitted()
    cluster.wait((tmp_path / "run" / "metrics.jsonl").exists)
    cluster.tell("scancel", "--batch", "--signal=USR1", first)
    assert ended(first) == "138:0"
    assert json.loads((tmp_path / "run" / "results.json").read_text())["finished"] is False
    second = submitted()
    assert ended(second) == "0:0"
    assert json.loads((tmp_path / "run" / "results.json").read_text())["finished"] is True
    assert "resumed at epoch" in (tmp_path / "log").read_text()
