"""What is said to a user who asks for SLURM where it is not, or with words that mean nothing."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from advmix_cli.ablation.slurm import scheduler, submit
from advmix_cli.ablation.slurm.submissions import Submission
from advmix_cli.cli import app
from advmix_cli.errors import SchedulerError

SLURM = ["--launcher", "slurm", "--time", "4h"]


def ablate(*words, code=2):
    done = CliRunner().invoke(app, ["ablate", "digits", "--rows", "1", *words])
    assert done.exit_code == code, (done.output, done.exception)
    if code:
        assert done.stdout == ""
    return done if code == 0 else " ".join(done.stderr.replace("│", " ").split())


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    if not (tmp_path / "runs" / "digits" / ".slurm").exists():
        assert not (tmp_path / "runs").exists()  # who is refused writes nothing


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without SLURM; bare(name, script) puts a program there."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))

    def put(name, script):
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)

    return put


def test_a_machine_without_slurm(bare):
    pytest.importorskip("submitit")
    assert ablate(*SLURM) == (
        "error: --launcher slurm: this machine has no sbatch, srun, squeue, scontrol; submit from a login node of the "
        "cluster"
    )
    for name in ("sbatch", "squeue", "scontrol"):
        bare(name, "exit 1")
    assert "this machine has no srun; submit" in ablate(*SLURM)
    bare("srun", "exit 1")
    bare("squeue", "echo 'squeue: error: no host' >&2; exit 1")
    assert ablate(*SLURM) == (
        "error: --launcher slurm: no SLURM answers here; submit from a login node (squeue: no host)"
    )


def test_submitit_is_an_extra(monkeypatch):
    monkeypatch.setattr(submit, "find_spec", lambda _: None)
    assert ablate(*SLURM) == "error: --launcher slurm needs submitit: pip install 'advmix[slurm]'"


def test_options_that_mean_nothing():
    assert ablate("--partition", "a", "--gpus", "1", "--time", "4h") == (
        "error: --time, --partition, --gpus: only with --launcher slurm"
    )
    assert ablate("--launcher", "slurm") == (
        "error: --launcher slurm needs --time, how long a task may run at a time: --time 4h"
    )
    assert "--stop-after: only with --launcher local" in ablate(*SLURM, "--stop-after", "9m")
    assert "--jobs: only with --launcher local" in ablate(*SLURM, "--jobs", "2")
    for words in (["--jobs", "2"], ["--dry-run"], ["--stop-after", "5m"], ["--track", "wandb"]):
        assert ablate("--status", *words).startswith("error: --status starts nothing: ")
    assert "'4 hours' is no time; write 90s, 9m or 1.5h" in ablate("--launcher", "slurm", "--time", "4 hours")
    assert "should be less than or equal to 1" in ablate(*SLURM, "--gpus", "2")
    assert "is not one of 'local', 'slurm'" in ablate("--launcher", "pbs")


@pytest.mark.usefixtures("bare")
def test_the_status_of_a_table_that_nobody_submitted():
    """SLURM is not asked, and its columns are not there."""
    found = ablate("--status", code=0)
    assert (found.stderr, "SLURM" in found.stdout) == ("", False)
    assert ["Attack", "0", "waiting", "0/20"] in [line.split() for line in found.stdout.splitlines()]
    cell = json.loads(ablate("--status", "--format", "json", code=0).stdout)["cells"][0]
    assert (cell["row"], cell["state"], cell["epoch"], cell["task"]) == ("Attack", "waiting", 0, None)


def submitted(tasks):
    Submission(Path("runs/digits/.slurm/1"), tasks).save()


def test_the_status_while_the_scheduler_is_gone(bare):
    """The files' word is told; and nothing is submitted that may be in the queue."""
    pytest.importorskip("submitit")
    for name in ("sbatch", "srun", "scontrol"):
        bare(name, "echo never >> called")
    bare("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1")
    submitted({"attack": "7"})
    document = json.loads(ablate("--status", "--format", "json", code=0).stdout)
    assert document["captions"][1] == (
        "SLURM does not answer, and this is what the files say: squeue: slurm_load_jobs error: Unable to contact slurm "
        "controller (connect failure)"
    )
    assert "Unable to contact slurm controller" in ablate(*SLURM)
    assert not Path("called").exists()


@pytest.mark.usefixtures("bare")
def test_a_note_that_is_damaged_is_not_taken_for_none():
    submitted({})
    path = Path("runs/digits/.slurm/1/tasks.json")
    path.write_text(path.read_text()[:-2])
    assert ablate("--status") == (
        f"error: {path} cannot be read, so that nothing is known of what was submitted; end those jobs with scancel, "
        f"and delete {path.parent}"
    )


def test_squeue_is_asked_for_all_and_what_it_says_is_read(bare, monkeypatch):
    monkeypatch.setenv("SQUEUE_USERS", "somebody")
    bare("squeue", 'echo "1_0|RUNNING|n1|None|1-02:00:03"; echo "1_1|PENDING||Resources|0:00"; echo "$SQUEUE_USERS!"')
    assert scheduler.tasks("advmix-t") == {
        "1_0": scheduler.Task("1_0", "RUNNING", "n1", "", "1-02:00:03"),
        "1_1": scheduler.Task("1_1", "PENDING", "", "Resources", "0:00"),
    }
    bare("squeue", 'echo "$SQUEUE_USERS!"')
    assert scheduler.state("1") == "!"
    bare("squeue", "while :; do :; done")
    monkeypatch.setattr(scheduler, "LONGEST", 0.2)
    with pytest.raises(SchedulerError, match=r"squeue has not answered for 0\.2 seconds"):
        scheduler.tasks("advmix-t")
