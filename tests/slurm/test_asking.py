"""What is said to a user who asks for SLURM where it is not, or with words that mean nothing."""

import json
import shutil
from pathlib import Path

import pytest
import tomli_w
from typer.testing import CliRunner

from advmix_cli.ablation.cells import cells, select
from advmix_cli.ablation.slurm import scheduler, submit
from advmix_cli.ablation.slurm.submissions import Submission, submissions
from advmix_cli.ablation.slurm.task import Training
from advmix_cli.cli import app
from advmix_cli.errors import SchedulerError
from advmix_cli.failures import Failure
from advmix_cli.files import write_atomically
from advmix_cli.locks import is_held
from advmix_cli.recipe import load
from advmix_cli.recipe.table import load_table
from advmix_cli.report.results import Results

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
    assert ablate("--status", "--partition", "a") == "error: --partition: only with --launcher slurm"
    assert ablate("--launcher", "slurm") == (
        "error: --launcher slurm needs --time, how long a task may run at a time: --time 4h"
    )
    assert "--stop-after: only with --launcher local" in ablate(*SLURM, "--stop-after", "9m")
    assert "--jobs: only with --launcher local" in ablate(*SLURM, "--jobs", "2")
    for words in (["--jobs", "2"], ["--dry-run"], ["--stop-after", "5m"]):
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
    assert cell["collapsed"] == []
    # "The same command with --status", whatever it asked for.
    again = ablate(*SLURM, "--partition", "a", "--gpus", "1", "--track", "wandb", "--status", code=0)
    assert (again.stdout, again.stderr) == (found.stdout, "")


@pytest.mark.usefixtures("bare")
def test_the_status_says_which_cell_has_collapsed():
    (cell,) = cells(select(load_table("digits"), ["1"]), 1, Path("elsewhere/digits"))
    known = Results("t", 0, cell.row.recipe.digest(), 20, 9, {"test": "f"}, collapsed=(3, 7), finished=True)
    known.save(cell.directory)
    said = "Attack, seed 0: COLLAPSED: the validation's accuracy under attack fell by half in epochs 3, 7"
    status = ["--status", "--out", "elsewhere"]
    assert said in " ".join(ablate(*status, code=0).stdout.split())
    (record,) = json.loads(ablate(*status, "--format", "json", code=0).stdout)["cells"]
    assert record["collapsed"] == [3, 7]


def test_a_finished_table_is_shown_where_neither_its_device_nor_slurm_is(bare):
    bare("sbatch", "echo never >> called")
    away = ["--out", "elsewhere", "--device", "cuda:7"]
    (cell,) = cells(select(load_table("digits"), ["1"]), 1, Path("elsewhere/digits"))
    Results("t", 0, cell.row.recipe.digest(), 20, 9, {"test": "f"}, finished=True).save(cell.directory)
    found = ablate(*away, code=0)
    assert "Attack" in found.stdout
    assert ablate(*away, "--jobs", "2", code=0).stdout == found.stdout
    assert ablate(*SLURM, *away, code=0).stdout == found.stdout
    assert ablate(*away, "--seeds", "2").startswith("error: --device cuda:7: not there")
    assert not Path("called").exists()


def test_a_place_that_cannot_be_written_is_refused_before_anything_starts():
    assert ablate("--out", "/proc/nowhere").endswith("/recipe.toml cannot be written: No such file or directory")


def submitted(tasks, cluster=None, stamp="1"):
    Submission(Path("runs/digits/.slurm") / stamp, tasks, cluster).save()


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
    bare(
        "squeue",
        'case "$*" in *--all*) ;; *) exit;; esac; echo "1_0|RUNNING|n1|None|1-02:00:03|/a|b"; '
        'echo "1_1|PENDING||Resources|0:00|/c"; echo "$SQUEUE_USERS!"',
    )
    assert scheduler.tasks("advmix-t") == {
        "1_0": scheduler.Task("1_0", "RUNNING", "n1", "", "1-02:00:03", "/a|b"),
        "1_1": scheduler.Task("1_1", "PENDING", "", "Resources", "0:00", "/c"),
    }
    bare("squeue", 'echo "$SQUEUE_USERS!"')
    assert scheduler.state("1") == "!"
    bare("squeue", "while :; do :; done")
    monkeypatch.setattr(scheduler, "LONGEST", 0.2)
    with pytest.raises(SchedulerError, match=r"squeue has not answered for 0\.2 seconds"):
        scheduler.tasks("advmix-t")


def test_records_of_before_do_not_know_their_cluster():
    path = Path("runs/digits/.slurm/1/tasks.json")
    path.parent.mkdir(parents=True)
    path.write_text('{"attack": "7_0"}')
    submitted({"ours": "8_0"}, "one", "2")
    found = submissions(Path("runs/digits"))
    assert found == [
        Submission(path.parent, {"attack": "7_0"}),
        Submission(path.parent.with_name("2"), {"ours": "8_0"}, "one"),
    ]
    assert [[one.elsewhere(here) for here in ("one", "other", None)] for one in found] == [
        [False, False, False],
        [False, True, False],
    ]


FOREIGN = "echo '7_0|RUNNING|n1|None|1:00|/elsewhere/script.sh'"


@pytest.fixture
def other(bare):
    """A machine of the cluster "other", where another job has the number of ours; called() is what sbatch heard."""
    pytest.importorskip("submitit")
    bare("sbatch", 'echo "$@" >> called; echo "Submitted batch job 9"')
    bare("srun", "exit 1")
    bare("squeue", FOREIGN)
    bare("scontrol", "echo 'ClusterName             = other'; echo 'MaxArraySize            = 1001'")
    return lambda: Path("called").exists()


def the_cell(*words):
    (cell,) = json.loads(ablate(*words, "--format", "json", code=0).stdout)["cells"]
    return cell


HELD = (
    "1 of 1 cells are in job 7 of cluster one, and this is cluster other: see there how they stand; to run them here, "
    "end them there (scancel 7), and delete runs/digits/.slurm/1"
)


def test_job_numbers_of_another_cluster_mean_nothing(other, bare):
    """Neither is its task seen as running here, nor is it taken for over and submitted anew."""
    name = Path(the_cell("--status")["directory"]).name
    submitted({name: "7_0"}, "one")
    cell = the_cell("--status")
    assert (cell["cluster"], cell["task"], cell["state"]) == ("one", None, "waiting")
    document = json.loads(ablate("--status", "--format", "json", code=0).stdout)
    assert document["captions"][1] == HELD
    row = next(line for line in ablate("--status", code=0).stdout.splitlines() if "Attack" in line)
    assert row.split()[-5:] == ["0/20", "7_0", "on", "cluster", "one"]
    said = ablate(*SLURM, code=0)
    assert "nothing to submit" in said.stderr
    assert not other()
    assert HELD in " ".join(said.stdout.split())
    # What is over there is free; and the other cluster's record stays.
    recipe = load_table("digits", []).rows[0].recipe
    write_atomically(Path("runs/digits") / name / "recipe.toml", tomli_w.dumps(recipe.resolved()))
    Failure(2, 1, "it said so").save(Path("runs/digits") / name)
    bare("squeue", "exit 0")
    assert the_cell(*SLURM)["cluster"] == "other"
    assert other()
    assert not (Path("runs/digits") / name / "failure.json").exists()
    assert [(one.cluster, dict(one.tasks)) for one in submissions(Path("runs/digits"))] == [
        ("one", {name: "7_0"}), ("other", {name: "9"}),
    ]  # fmt: skip


def test_jobs_of_a_record_without_a_name_are_this_clusters(other):
    name = Path(the_cell("--status")["directory"]).name
    path = Path("runs/digits/.slurm/1/tasks.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({name: "7_0"}))
    assert (the_cell("--status")["task"], the_cell("--status")["state"]) == ("7_0", "running")
    ablate(*SLURM, code=0)
    assert not other()


def test_a_job_whose_record_was_lost_is_not_submitted_twice(other, bare, tmp_path):
    bare("squeue", f"echo '7_0|PENDING||None|0:00|{tmp_path}/runs/digits/.slurm/1/.submission_file_x.sh'")
    assert ablate(*SLURM) == (
        "error: job 7 was submitted from runs/digits, and no record of it is there: that was interrupted or deleted. "
        "End it (scancel 7), then give the same command again"
    )
    assert not other()


def test_an_interrupt_waits_until_the_job_is_known(other, bare):
    """A terminal sends Ctrl-C to sbatch as well, which would end without a word of the job that it has submitted."""
    bare("sbatch", "kill -INT $PPID; kill -INT $$; echo 'Submitted batch job 9'; echo x >> called")
    found = CliRunner().invoke(app, ["ablate", "digits", "--rows", "1", *SLURM])
    assert found.exit_code == 130
    assert "submitted as job 9: 1 of 1 cells" in found.stderr
    assert found.stderr.endswith("stopped by SIGINT\n")
    assert other()
    assert [list(one.tasks.values()) for one in submissions(Path("runs/digits"))] == [["9"]]


@pytest.mark.usefixtures("other")
def test_what_is_submitted_is_what_was_asked_for(tmp_path, monkeypatch):
    """By one process at a time, with all that the cells need; what is over is no longer known."""
    sent, taken, place = [], [], Path("runs/digits/.slurm")

    def submitting(left, request, training, here):
        assert is_held(place)
        assert [load.read(cell.directory / "recipe.toml").recipe() for cell in left] == [left[0].row.recipe]
        sent.append((request.minutes, training, here.name))
        return Submission(place / "2", {left[0].directory.name: "9"}, here.name)

    monkeypatch.setattr(submit, "submit", submitting)
    monkeypatch.setattr("advmix_cli.ablation.trained_before.take_over", lambda cells, _: taken.extend(cells))
    monkeypatch.setattr("advmix_cli.report.tracking.check", lambda _: None)
    submitted({"old": "5_0"}, "other")
    ablate(*SLURM, "--save-every", "90s", "--track", "wandb", "--device", "cpu", code=0)
    assert sent == [(240, Training(str(tmp_path), "cpu", 90.0, ("wandb",)), "other")]
    assert [cell.row.name for cell in taken] == ["Attack"]
    assert submissions(Path("runs/digits")) == []


def test_a_directory_that_holds_something_else_is_not_submitted(other):
    directory = Path(the_cell("--status")["directory"])
    directory.mkdir(parents=True)
    (directory / "mine").touch()
    assert ablate(*SLURM) == f"error: {directory} is not empty and holds no run; choose another directory with --out"
    assert not other()
    shutil.rmtree("runs")


def test_after_an_interrupt_nothing_is_submitted_any_more(other, bare):
    """It comes while SLURM is asked for the second time, within the lock."""
    bare("squeue", "[ -e asked ] && kill -INT $PPID; : >> asked")
    found = CliRunner().invoke(app, ["ablate", "digits", "--rows", "1", *SLURM])
    assert (found.exit_code, found.stderr) == (130, "stopped by SIGINT\n")
    assert not other()
