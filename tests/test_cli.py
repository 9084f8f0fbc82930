"""The commands: exit codes, what goes to stdout and what to stderr, and that bad input writes nothing."""

import csv
import io
import json
import shlex
import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from made import write_run
from typer.testing import CliRunner

from advmix_cli.ablation.cells import cells
from advmix_cli.ablation.order import kept_order
from advmix_cli.cli import app
from advmix_cli.errors import DivergedError, StoppedError
from advmix_cli.locks import LOCK, held
from advmix_cli.recipe.load import load
from advmix_cli.recipe.schema import Recipe
from advmix_cli.recipe.shipped import recipe_names, table_names
from advmix_cli.recipe.table import load_table
from advmix_cli.report.results import Measured, Results
from advmix_cli.rundir import LAST, METRICS, RECIPE, RESULTS, STATE
from advmix_cli.seals import unsealed

QUICK = [
    "--set", "schedule.epochs=1", "--set", "data.train_limit=160", "--set", "data.test_limit=20",
    "--set", "maximizer.ascent.steps=1", "--set", 'evaluators=[{kind="pristine"}]', "--set", "model.width=2",
    "--set", "validation.limit=5", "--set", "validation.steps=1", "--device", "cpu",
]  # fmt: skip


def names(directory):
    """What is in it."""
    return sorted(path.name for path in directory.iterdir())


def advmix(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory, and what the command that made it printed."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    return directory, advmix("train", "digits", "--out", directory, "--json", *QUICK)


def message(done):
    """The error's text: exit code 2, nothing on stdout, no traceback."""
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    return done.stderr.removeprefix("error: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["train", "digit"], "no shipped recipe is called 'digit'; did you mean 'digits'? (shipped: "),
        (["train", "nothing.toml"], "nothing.toml: no such file"),
        (["train", "."], ".: is not a file"),
        (["train", "digits", "--device", "cuda:7"], "--device cuda:7: not there; torch "),
        (["train", "digits", "--device", "tpu"], "--device tpu: not a device; use auto, cpu, cuda or cuda:N"),
        (["train", "digits", "--device", "meta"], "--device meta: not a device; use auto, cpu, cuda or cuda:N"),
        (["train", "digits", "--device", ""], "--device : not a device; use auto, cpu, cuda or cuda:N"),
        (["train", "digits", "--set", "seed"], "--set seed: write KEY=VALUE"),
        (["train", "digits", "--set", "seeed=1"], "--set seeed=1: unknown key 'seeed' in the file; did you mean"),
        (["eval", "nothing"], "nothing: no such file or directory"),
        (["eval", "."], ".: holds no run"),
        (["ablate", "tabel1"], "no shipped table is called 'tabel1'; did you mean 'table1'?"),
        (["ablate", "--rows", "Atack"], "--rows: 'Atack' is no row of digits; did you mean 'Attack'? (rows: 1"),
        (["ablate", "--rows", "8"], "--rows: '8' is no row of digits (rows: 1 Attack, "),
        (["ablate", "--device", "cuda:7"], "--device cuda:7: not there; torch "),
        (["ablate", "--dry-run", "--set", "seed=-1"], "--set seed=-1: seed = -1 must be greater than or equal to 0"),
        (["recipe", "show", "digits", "--set", "title=x"], "--set title=x: 'x' is not a TOML value; a string"),
        (["recipe", "check", "nothing.toml"], "nothing.toml: no such file"),
    ],
)  # fmt: skip
def test_bad_input_is_exit_2_one_message_and_nothing_written(empty, words, start):
    assert message(advmix(*words)).startswith(start)
    assert names(empty) == []


@pytest.mark.parametrize(
    "words",
    [["trane"], ["train"], ["train", "digits", "--nope"], ["ablate", "--format", "pdf"], ["ablate", "--seeds", "0"],
     ["train", "digits", "--seed", "-1"], ["train", "digits", "--seed", str(2**31)]],
)  # fmt: skip
def test_a_wrong_command_line_is_exit_2(empty, words):
    done = advmix(*words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Usage: " in done.stderr
    assert names(empty) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda _: b"", "not a whole safetensors file"),
        (lambda _: b"<!DOCTYPE html>\n<html><body>404: not found</body></html>\n", "not a whole safetensors file"),
        (lambda content: content[:-10], "not a whole safetensors file"),
        (lambda content: content[:100], "not a whole safetensors file"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "the file was damaged or changed"),
        (lambda content: content.replace(b'\\"schema\\": 2', b'\\"schema\\": 7'), "in another format"),
        (lambda content: content.replace(b'"advmix":"', b'"advmxi":"'), "it carries no recipe"),
        (lambda content: content.replace(b"preact-resnet", b"preact-resent"), "its header is damaged"),
    ],
)
def test_a_checkpoint_that_is_not_one_is_exit_2(trained, empty, damage, said):
    content = (trained[0] / "model.safetensors").read_bytes()
    damaged = damage(content)
    assert damaged != content
    (empty / "x.safetensors").write_bytes(damaged)
    text = message(advmix("eval", "x.safetensors"))
    assert text.startswith("x.safetensors: ")
    assert said in text
    assert names(empty) == ["x.safetensors"]


def test_several_problems_are_counted(empty):
    (empty / "r.toml").write_text("title = 3\n")
    done = advmix("recipe", "check", "r.toml", "digits", "nothing.toml")
    assert done.exit_code == 2
    assert done.stdout == f"digits: ok, a recipe, digest {load('digits').digest()[:12]}\n"
    lines = done.stderr.split("\n")
    assert lines[0] == "error: 8 problems"
    assert "r.toml:1:1: title = 3: input should be a valid string" in lines
    assert lines[-2:] == ["nothing.toml: no such file", ""]


def test_a_position_is_shown_as_it_is_on_every_line(empty):
    """rich would make an emoji of ":100:"."""
    (empty / "r.toml").write_text("\n" * 99 + "titel = 3\n")
    assert "r.toml:100:1: unknown key 'titel'" in advmix("recipe", "check", "r.toml").stderr


@pytest.mark.usefixtures("empty")
def test_markup_in_a_message_is_shown_literally():
    assert "[red]x[/red] [/].toml: no such file" in advmix("train", "[red]x[/red] [/].toml").stderr


@pytest.mark.usefixtures("empty")
def test_a_traceback_only_with_debug():
    assert "Traceback" not in advmix("train", "digit").stderr
    done = advmix("--debug", "train", "digit")
    assert done.exit_code == 2
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert "error: no shipped recipe is called 'digit'" in done.stderr


@pytest.mark.usefixtures("empty")
def test_show_prints_a_recipe_with_every_field():
    done = advmix("recipe", "show", "digits", "--set", "schedule.epochs=3")
    assert (done.exit_code, done.stderr) == (0, "")
    shown = Recipe.model_validate(tomllib.loads(done.stdout))
    assert shown == load("digits", ["schedule.epochs=3"])
    assert tomllib.loads(done.stdout)["validation"]["on"] == "held-out"


def test_list_names_all_that_ships():
    words = advmix("recipe", "list").stdout.split("\n")
    for name in [*recipe_names(), *table_names()]:
        assert any(line.startswith(f"  {name} ") for line in words)


def test_train_prints_one_json_document_on_stdout(trained):
    directory, done = trained
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document.pop("gap") == {}  # the recipe measures the last epoch alone
    assert document == unsealed(json.loads((directory / "results.json").read_text()))
    (last,) = (entry for entry in document["measured"] if entry["selection"] == "last")
    (outcome,) = last["outcomes"]
    assert (outcome["name"], outcome["n"]) == ("pristine", 20)
    assert outcome["accuracy"] == outcome["correct"] / 20
    assert "epoch 1/1" in done.stderr
    assert f"run directory: {directory}" in done.stderr


def test_train_again_finds_it_done(trained):
    directory, first = trained
    before = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    again = advmix("train", "digits", "--out", directory, "--json", *QUICK)
    assert again.exit_code == 0
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert {path.name: path.stat().st_mtime_ns for path in directory.iterdir()} == before


def test_another_recipe_in_the_same_directory_is_refused(trained):
    directory = trained[0].with_name("with a space")
    shutil.copytree(trained[0], directory, dirs_exist_ok=True)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    text = message(advmix("train", "digits", "--out", directory, *QUICK, "--seed", "1"))
    there = f"advmix train '{directory}/recipe.toml' --out '{directory}' --resume"
    assert text == (
        f"{directory} holds another recipe: seed is 0 there, 1 here; choose another directory with --out, or go on "
        f"with what is there: {there}"
    )
    assert advmix(*shlex.split(there)[1:]).exit_code == 0
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("empty")
def test_before_anything_is_saved_nothing_is_said_to_be(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "r")

    monkeypatch.setattr("advmix_cli.run.write_atomically", full)
    done = advmix("train", "digits", "--out", "r", *QUICK)
    assert done.exit_code == 1
    assert done.stderr.endswith("error: r: No space left on device\n")


@pytest.mark.usefixtures("empty")
def test_a_training_that_a_run_beside_has_is_named_before_it_is_done_again():
    assert "is this training" not in advmix("train", "digits", *QUICK).stderr
    (first,) = names(Path("runs"))
    said = (
        f"runs/{first} is this training, measured otherwise. It is done again; this would only measure it:\n"
        f"  advmix eval runs/{first} --set 'evaluators=[...]'\n"
    )
    others = ("--set", 'evaluators=[{kind="pristine", limit=3}]')
    assert advmix("train", "digits", *QUICK, *others).stderr.startswith(said)
    assert "is this training" not in advmix("train", "digits", *QUICK, *others).stderr  # it is done
    assert "is this training" not in advmix("train", "digits", *QUICK, *others, "--out", "chosen").stderr
    assert "is this training" not in advmix("train", "digits", *QUICK, *others, "--seed", "1").stderr


def test_eval_needs_only_the_checkpoint(trained, empty):
    directory, done = trained
    found = advmix("eval", directory / "model.safetensors", "--json")
    assert found.exit_code == 0
    document = json.loads(found.stdout)
    wanted = json.loads(done.stdout)["measured"][0]["outcomes"][0]
    (outcome,) = document["outcomes"]
    assert (outcome["n"], outcome["correct"]) == (wanted["n"], wanted["correct"])
    assert (document["selection"], document["epoch"]) == ("last", 1)
    assert names(empty) == []


def test_eval_prints_a_table_on_stdout_and_progress_on_stderr(trained):
    found = advmix("eval", trained[0], "--limit", "7", "--evaluator", "pristine")
    assert found.exit_code == 0
    row = next(line.split() for line in found.stdout.split("\n") if line.strip().startswith("pristine "))
    # evaluator, accuracy, interval, correct, n, time
    assert row[4] == "7"
    assert "measuring pristine: 7 images" in found.stderr
    assert "measuring" not in found.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--evaluator", "pristin"], "--evaluator 'pristin' is none of the recipe's; did you mean 'pristine'?"),
        (
            ["--set", "seed=1"],
            "--set seed=1: a checkpoint is what it is; only evaluators, data.root and data.test_limit can be set here",
        ),
        (["--set", "evaluators=[]"], "its recipe has no evaluators; give some with --set "),
        (["--device", "cuda:7"], "--device cuda:7: not there"),
    ],
)
def test_eval_refuses_what_the_checkpoint_is_not(trained, words, said):
    before = names(trained[0])
    assert said in message(advmix("eval", trained[0], *words))
    assert names(trained[0]) == before


def dry(form, *words):
    done = advmix("ablate", *words, "--dry-run", "--format", form)
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    return done.stdout


ROWS = [row.name for row in load_table("digits").rows]


def test_a_dry_run_in_every_format_names_every_row_and_writes_nothing(empty):
    records = json.loads(dry("json"))["cells"]
    assert [record["row"] for record in records] == ROWS
    lines = list(csv.DictReader(io.StringIO(dry("csv"))))
    assert lines == [{key: str(value) for key, value in record.items()} for record in records]
    rich = dry("rich")
    assert all(Path(record["directory"]).name in rich and record["row"] in rich for record in records)
    assert f"in {Path(records[0]['directory']).parent}" in rich
    assert "7 cells, 0 done; still to run: 140 epochs, 1,820 network passes" in " ".join(rich.split())
    markdown = dry("markdown").split("\n")
    assert [line.split(" (")[0] for line in markdown if line.startswith("| ")][1:] == [f"| {row}" for row in ROWS]
    latex = dry("latex")
    assert latex.count(r"\\") == 15  # the heading, seven rows of two lines
    assert r"Ours, frozen $\lambda$, shared $\delta$ & 0 & to do & 20 & 260 " in latex
    assert names(empty) == []


def test_a_dry_run_tells_done_trained_and_to_do_apart(empty):
    todo = cells(load_table("digits"), 1, empty / "runs" / "digits")
    for cell, finished in ((todo[0], True), (todo[2], False)):
        recipe = cell.row.recipe
        known = Results("", recipe.seed, recipe.digest(), 20, 9, {}, finished=finished)
        known.save(cell.directory)
        (cell.directory / "model.safetensors").write_bytes(b"")
    records = json.loads(dry("json"))["cells"]
    assert [record["state"] for record in records] == ["done", "to do", "trained", *["to do"] * 4]
    assert [record["epochs"] for record in records] == [0, 20, 0, *[20] * 4]


@pytest.mark.usefixtures("empty")
def test_rows_and_seeds_choose_cells():
    records = json.loads(dry("json", "table1", "--rows", "Ours", "--rows", "1", "--seeds", "2"))["cells"]
    assert [(record["row"], record["seed"]) for record in records] == [
        ("Attack", 0), ("Ours", 0), ("Attack", 1), ("Ours", 1),
    ]  # fmt: skip


@pytest.mark.usefixtures("empty")
def test_ablate_fills_a_table_and_does_nothing_twice():
    words = ["ablate", "--rows", "Attack", "--out", "out", *QUICK, "--format"]
    first = advmix(*words, "json")
    assert first.exit_code == 0, first.output
    document = json.loads(first.stdout)
    (record, *_) = document["cells"]
    assert document["finished"]
    assert (record["row"], record["evaluator"], record["n"], record["paper"]) == ("Attack", "pristine", 20, None)
    assert "[1/1] Attack, seed 0" in first.stderr
    second = advmix(*words, "csv")
    assert second.exit_code == 0
    assert float(next(csv.DictReader(io.StringIO(second.stdout)))["accuracy"]) == record["accuracy"]
    assert second.stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "nosuch\x1b[31mred"],
        ["train", "digits", "--device", "\x1b[31mred"],
        ["plan", "digits", "--set", 'data={source="folder", root="/no\\u001b[31mre"}'],
    ],
)
def test_what_a_terminal_would_obey_is_escaped(words):
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "\x1b" not in done.stderr
    assert "\\x1b[31mre" in done.stderr


def test_a_machine_that_cannot_write_is_one_message(tmp_path, monkeypatch):
    def full(*_arguments, **_settings):
        raise OSError(28, "No space left on device", "runs")

    monkeypatch.setattr("advmix_cli.recipe.load.load", full)
    done = CliRunner().invoke(app, ["train", "digits", "--out", str(tmp_path / "run")])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "error: runs: No space left on device\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["bench", "SHIPPED/tables/table1.toml"], "this is a table, and a recipe is wanted"),
        (["ablate", "SHIPPED/cifar10-ours.toml"], "this is a recipe, and a table is wanted"),
        (["plan", "tabel1"], "did you mean 'table1'?"),
    ],
)
def test_a_table_for_a_recipe_and_the_other_way_round_are_told(words, told):
    from advmix_cli.recipe.shipped import ROOT

    done = CliRunner().invoke(app, [word.replace("SHIPPED", str(ROOT)) for word in words])
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in " ".join(done.stderr.split())


def test_json_is_whole_whatever_stdout_can_write():
    said = [
        CliRunner(charset=charset).invoke(app, ["recipe", "schema"]).stdout_bytes for charset in ("utf-8", "latin-1")
    ]
    assert "λ".encode() in said[0]
    assert json.loads(said[0].decode()) == json.loads(said[1].decode("ascii"))


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """(recipe, directory) of each training that is begun, and stopped before it has trained anything."""
    monkeypatch.chdir(tmp_path)
    found = []

    def execute(recipe, directory, *_):
        found.append((recipe, directory))
        raise StoppedError("stopped by a test", 143)

    monkeypatch.setattr("advmix_cli.run.execute", execute)
    return found


def test_seed_comes_after_the_settings_and_may_be_0(asked):
    done = advmix("train", "digits", "--set", "seed=3", "--seed", "0")
    assert done.exit_code == 143
    assert done.stderr.endswith("unfinished: stopped by a test; nothing was trained yet\n")
    ((recipe, directory),) = asked
    assert recipe.seed == 0
    assert directory == Path("runs") / f"digits-seed0-{recipe.digest()[:12]}"


@pytest.mark.parametrize("left", [LOCK, METRICS, STATE, LAST])
def test_a_run_s_own_recipe_goes_on_in_its_run_unless_another_place_is_wanted(asked, left):
    run = Path("run")
    write_run(run, load("digits"), [], finished=False)
    for name in (METRICS, RESULTS):
        (run / name).unlink()
    (run / left).touch()
    for words, directory in (([], run), (["--out", "other"], Path("other"))):
        said = advmix("train", run / RECIPE, "--resume", *words).stderr
        assert asked.pop()[1] == directory
        assert said.startswith(f"nothing to go on with yet: {directory}\n")


def test_what_is_known_is_gone_on_with_without_a_word(asked):
    write_run(Path("run"), load("digits"), [], finished=False)
    assert "nothing to go on with yet" not in advmix("train", "digits", "--out", "run", "--resume").stderr
    assert len(asked) == 1


def test_a_training_that_diverged_is_told_so_and_not_to_be_gone_on_with(asked):
    write_run(Path("run"), load("digits"), [], finished=False, diverged="nan")
    (Path("run") / STATE).mkdir()
    advmix("train", "digits", "--out", "run")
    assert len(asked) == 1


def test_an_unfinished_training_that_somebody_works_at_is_said_to_be_in_use(asked):
    write_run(Path("run"), load("digits"), [], finished=False)
    (Path("run") / STATE).mkdir()
    assert "holds an unfinished training" in message(advmix("train", "digits", "--out", "run"))
    with held(Path("run")):
        assert message(advmix("train", "digits", "--out", "run")).startswith("run is in use: process ")
    assert asked == []


def test_runs_beside_that_cannot_be_looked_at_end_no_training(asked, monkeypatch):
    def closed(_):
        raise PermissionError(13, "Permission denied", "runs")

    monkeypatch.setattr("advmix_cli.ablation.trained_before.trainings", closed)
    assert advmix("train", "digits").exit_code == 143
    assert len(asked) == 1


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(("names", "said"), [(["elsewhere/x"], "elsewhere/x"), ([], "r")])
def test_what_cannot_be_written_is_named(monkeypatch, names, said):
    def full(*_):
        raise OSError(28, "No space left on device", *names)

    monkeypatch.setattr("advmix_cli.run.execute", full)
    assert advmix("train", "digits", "--out", "r").stderr.endswith(f"error: {said}: No space left on device\n")


@pytest.mark.usefixtures("asked")
def test_the_document_of_what_is_unfinished_has_what_is_known():
    write_run(Path("run"), load("digits"), [], finished=False)
    found = json.loads(advmix("train", "digits", "--out", "run", "--resume", "--json").stdout)
    known = json.loads(json.dumps(Results.load(Path("run")).to_json()))
    assert found == {**known, "finished": False, "unfinished": "stopped by a test"}
    nothing = json.loads(advmix("train", "digits", "--out", "other", "--json").stdout)
    assert nothing == {"finished": False, "unfinished": "stopped by a test"}


@pytest.mark.usefixtures("empty")
def test_without_evaluators_nothing_is_shown_and_that_is_said(monkeypatch):
    def execute(recipe, directory, *_):
        write_run(directory, recipe, [Measured("last", 5, "w", ())])
        return Results.load(directory)

    monkeypatch.setattr("advmix_cli.run.execute", execute)
    done = advmix("train", "digits", "--out", "run", "--set", "evaluators=[]")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "nothing was measured: the recipe has no evaluators\nrun directory: run\n"


def test_a_training_is_shown_under_its_own_title(trained):
    directory, _ = trained
    again = advmix("train", "digits", "--out", directory, *QUICK)
    title = Results.load(directory).title
    assert title
    assert f"{title} · last epoch (1)" in again.stdout


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("jobs", [[], ["--jobs", "1"]])
def test_a_table_that_is_stopped_is_shown_and_knows_the_order_of_all_its_rows(monkeypatch, jobs):
    def run_jobs(*_):
        raise StoppedError("stopped by a test", 143)

    monkeypatch.setattr("advmix_cli.ablation.jobs.run_jobs", run_jobs)
    done = advmix("ablate", "--rows", "Ours", "--device", "cpu", "--format", "json", *jobs)
    assert done.exit_code == 143
    assert done.stderr.endswith("unfinished: stopped by a test; the same command does what is left\n")
    assert json.loads(done.stdout)["finished"] is False
    assert kept_order(Path("runs/digits")) == [row.name for row in load_table("digits").rows]


@pytest.mark.usefixtures("empty")
def test_who_submits_some_rows_keeps_the_order_of_all(monkeypatch):
    monkeypatch.setattr("advmix_cli.commands.ablate.requested", lambda *_, **__: "a request")
    monkeypatch.setattr("advmix_cli.commands.ablate.launch", lambda *_: Path("runs/digits").mkdir(parents=True))
    assert advmix("ablate", "--rows", "Ours", "--launcher", "slurm").exit_code == 0
    assert kept_order(Path("runs/digits")) == [row.name for row in load_table("digits").rows]


@pytest.mark.usefixtures("empty")
def test_the_rows_that_diverged_are_named_after_the_table(monkeypatch):
    def execute(recipe, directory, *_):
        if recipe.title == "Attack":
            write_run(directory, recipe, [], diverged="nan", finished=False)
            raise DivergedError("nan")
        write_run(directory, recipe, [])

    monkeypatch.setattr("advmix_cli.run.execute", execute)
    done = advmix("ablate", "--rows", "1", "--rows", "2", "--device", "cpu", "--format", "json")
    assert done.stderr.endswith("diverged: Attack (seed 0); the other rows are measured\n")
    assert (done.exit_code, json.loads(done.stdout)["finished"]) == (3, True)
    done = advmix("ablate", "--rows", "1", "--device", "cpu", "--format", "json")
    assert done.stderr.endswith("diverged: Attack (seed 0)\n")


@pytest.mark.usefixtures("empty")
def test_bench_asks_for_what_it_was_asked(monkeypatch):
    measured, stopped = [], StoppedError("stopped by a test", 143)

    def bench(recipe, place, rounds, _watch, wanted, *, profiled):
        measured.append((recipe.seed, place.type, rounds, wanted, profiled))
        return SimpleNamespace(to_json=lambda: {"rounds": rounds}, race=SimpleNamespace(stopped=stopped))

    monkeypatch.setattr("advmix_cli.bench.bench.bench", bench)
    done = advmix("bench", "digits", "--device", "cpu", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (143, {"rounds": 7})
    words = ["--rounds", "2", "--arm", "eager", "--arm", "delta-only", "--profile", "--set", "seed=3"]
    advmix("bench", "digits", "--device", "cpu", "--json", *words)
    assert measured == [(0, "cpu", 7, [], False), (3, "cpu", 2, ["eager", "delta-only"], True)]
