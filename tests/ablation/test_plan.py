"""The plan says what is done and what is left, without running anything."""

from advmix_cli.ablation.cells import cells
from advmix_cli.ablation.plan import plan_grid, plan_records
from advmix_cli.recipe.table import load_table
from advmix_cli.report.results import Results


def known(cell, **changes):
    recipe = cell.row.recipe
    Results(title="", seed=recipe.seed, digest=recipe.digest(), epochs=1, train_images=1, images={}, **changes).save(
        cell.directory
    )


def test_states_epochs_and_passes(tmp_path):
    todo = cells(load_table("table1"), 1, tmp_path)[:5]
    known(todo[1], finished=True)
    known(todo[2])
    (todo[2].directory / "model.safetensors").write_bytes(b"")
    # Results of a training whose weights are gone.
    known(todo[3])
    known(todo[4], diverged="nan")
    (todo[0].directory / "state").mkdir(parents=True)
    for name in ("000010-000200.json", "000009-000380.json", "notes.json"):
        (todo[0].directory / "state" / name).touch()
    epochs = [f'{{"epoch": {number}, "loss": 1, "seconds": 1.0}}\n' for number in range(1, 12)]
    (todo[0].directory / "metrics.jsonl").write_text("".join(epochs))  # two of them behind the state
    records = plan_records(todo)
    assert [record["state"] for record in records] == ["begun", "done", "trained", "begun", "diverged"]
    assert [record["epochs"] for record in records] == [71, 0, 0, 100, 0]
    # Ten passes for five steps of the adversary, three for the update.
    assert [record["passes"] for record in records] == [71 * 13, 0, 0, 100 * 13, 0]
    assert plan_grid("T", todo).captions == (
        "5 cells, 1 done; still to run: 171 epochs, 2,223 network passes over the training images",
        f"in {tmp_path}",
    )


def test_planning_writes_nothing(tmp_path):
    plan_records(cells(load_table("digits"), 2, tmp_path / "runs"))
    assert list(tmp_path.iterdir()) == []


def test_table_3_costs_23_passes_an_epoch(tmp_path):
    records = plan_records(cells(load_table("table3"), 1, tmp_path))
    assert [(record["epochs"], record["passes"]) for record in records] == [(200, 4600)] * 3
