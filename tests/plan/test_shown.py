"""What is shown of a plan, and its document, from numbers that nobody measured."""

from dataclasses import replace

import pytest

from advmix_cli.cost import Cost
from advmix_cli.data.outline import Outline
from advmix_cli.plan.estimate import Estimate, Memory
from advmix_cli.plan.forecast import forecast
from advmix_cli.plan.grids import plan_grids
from advmix_cli.plan.largest import Largest
from advmix_cli.plan.lines import Line
from advmix_cli.plan.probe import Evaluation, EvaluatorTime, Probe, Speed
from advmix_cli.plan.records import plan_document
from advmix_cli.recipe.table import Row, Table

ESTIMATE = Estimate(
    Outline((1, 8, 8), 10, 100, 20, 30),
    Cost(
        parameters=1_000, forward=100, attack_forward=100, update_forward=100, inner_steps=2, attack_passes=4,
        update_passes=3, batches=10, batch_size=8, epochs=5,
    ),
    Memory(
        weights=1_000, gradients=2_000, optimizer=3_000, average=4_000, casts=5_000, images=6_000, activations=7_000
    ),
)  # fmt: skip
SPEED = Speed("captured", 12.0, 40.0, 9_000_000, Largest(64, 100, tried=True))
EVALUATION = Evaluation(
    EvaluatorTime("validation", 20, 7, 2.0), (EvaluatorTime("pristine", 30, 1, 3.0), EvaluatorTime("PGD2", 30, 6, 18.0))
)
PROBE = Probe("a device", "one", SPEED, "other", EVALUATION)
EMA = 'averaging={kind="ema"}'


@pytest.fixture
def line(tiny):
    """line(name, probe, *settings): a row of the small recipe that was probed."""

    def made(name, probe, *settings):
        row = Row(name, tiny(*settings), {})
        return Line(row, ESTIMATE, forecast(row, ESTIMATE, probe))

    return made


def shown(*lines):
    return plan_grids(Table("t", "T", tuple(line.row for line in lines)), lines)


def text(grid):
    return [[cell.value for cell in row] for row in grid.rows]


def test_a_recipe_is_shown_with_its_parts(line):
    cost, memory, time = shown(line("row", PROBE, EMA))
    assert text(cost) == [
        ["attack", "0.400 kFLOP", "32.0 kFLOP", "0.160 MFLOP"],
        ["update", "0.300 kFLOP", "24.0 kFLOP", "0.120 MFLOP"],
        ["total", "0.700 kFLOP", "56.0 kFLOP", "0.280 MFLOP"],
    ]
    assert text(memory) == [
        ["weights", "1.00 kB"],
        ["gradients", "2.00 kB"],
        ["optimizer", "3.00 kB"],
        ["average of the weights", "4.00 kB"],
        ["weights in bf16", "5.00 kB"],
        ["150 images", "6.00 kB"],
        ["activations of 8 images", "7.00 kB"],
        ["total", "28.0 kB"],
    ]
    # 80 images an epoch; two networks are validated, and four sets of weights evaluated.
    assert text(time) == [
        ["training", "2.00 s", "10.0 s"],
        ["validation", "~ 4.00 s", "~ 20.0 s"],
        ["pristine", "~ 3.00 s", "~ 12.0 s"],
        ["PGD2", "~ 18.0 s", "~ 72.0 s"],
        ["total", "", "~ 1.90 min"],
    ]
    assert time.title == "Measured on a device"
    assert time.captions[:2] == (
        "training: 40.0 images/s, captured; peak memory 9.00 MB; "
        "largest batch that fits 64 of 100 training images, tried eagerly",
        "compiling and checking it, which is left out: 12.0 s",
    )


@pytest.mark.parametrize(
    ("settings", "judged"),
    [
        ([], "of the last and of the best epoch"),
        ([EMA], "of the last and of the best epoch, as trained and averaged"),
        ([EMA, "validation.report='last'"], "of one epoch, as trained and averaged"),
        (["validation.report='last'"], "of one epoch"),
    ],
)
def test_it_says_which_weights_are_evaluated(line, settings, judged):
    *_, time = shown(line("row", PROBE, *settings))
    assert time.captions[-1].endswith(f"if no image broke; on the weights {judged}")


def test_a_table_is_shown_with_all_that_was_measured(line):
    guessed = replace(SPEED, preparation_seconds=3.0, peak_bytes=None, largest=Largest(32, 100, tried=False))
    unvalidated = replace(EVALUATION, validation=EvaluatorTime("validation", 0, 7, 0.0))
    other = Probe("a device", "other", guessed, "other", unvalidated)
    first = replace(PROBE, judged="one")
    cost, time, evaluators = shown(line("one", first), line("other", other), line("third", first))
    assert text(cost)[0] == ["one", "32.0", "24.0", "5", "0.280", "28.0 kB"]
    assert text(cost)[-1] == ["total", "", "", "15", "0.840", ""]
    assert text(time) == [
        ["one", "40.0", "2.00 s", "20.0 s", "~ 42.0 s"],
        ["other", "40.0", "2.00 s", "10.0 s", "~ 42.0 s"],
        ["third", "40.0", "2.00 s", "20.0 s", "~ 42.0 s"],
        ["total", "", "", "50.0 s", "~ 2.10 min"],
    ]
    fits = "largest batch that fits {} of 100 training images, {}"
    assert time.captions[1:] == (
        "measured once for rows that take the same time: one, other",
        f"one: captured; peak memory 9.00 MB; {fits.format(64, 'tried eagerly')}",
        f"other: captured; {fits.format(32, 'estimated from the free memory')}",
        "compiling and checking what was measured, which is left out: 15.0 s",
    )
    assert text(evaluators) == [
        ["one: validation", "20", "7", "~ 2.00 s"],
        ["one: pristine", "30", "1", "~ 3.00 s"],
        ["one: PGD2", "30", "6", "~ 18.0 s"],
        ["other: pristine", "30", "1", "~ 3.00 s"],
        ["other: PGD2", "30", "6", "~ 18.0 s"],
    ]


def test_what_is_the_same_for_all_rows_is_said_without_their_names(line):
    _, time, evaluators = shown(line("one", PROBE), line("other", PROBE))
    assert any(caption.startswith("captured; peak memory") for caption in time.captions)
    assert [row[0] for row in text(evaluators)] == ["validation", "pristine", "PGD2"]


def test_the_document_has_every_number_in_its_place(line):
    found = plan_document(Table("t", "T", ()), [line("row", PROBE, EMA)])
    (row,) = found["rows"]
    assert row["estimated_memory"] == {
        "weights_bytes": 1_000, "gradients_bytes": 2_000, "optimizer_bytes": 3_000, "average_bytes": 4_000,
        "casts_bytes": 5_000, "images_bytes": 6_000, "activations_bytes": 7_000, "total_bytes": 28_000,
    }  # fmt: skip
    assert row["probe"] == {
        "device": "a device",
        "training_measured_on": "one",
        "formulation": "captured",
        "preparation_seconds": 12.0,
        "images_per_second": 40.0,
        "peak_memory_bytes": 9_000_000,
        "largest_batch": 64,
        "largest_batch_is": "tried",
        "epoch_seconds": 2.0,
        "validation_network_seconds_per_epoch": 4.0,
        "training_seconds": 30.0,
        "evaluation_measured_on": "other",
        "evaluators": [
            {"name": "pristine", "images": 30, "passes_per_image": 1, "network_seconds": 3.0},
            {"name": "PGD2", "images": 30, "passes_per_image": 6, "network_seconds": 18.0},
        ],
        "reports": 4,
        "evaluation_network_seconds": 84.0,
    }
    assert (row["parameters"], row["forward_flops_per_image"], row["batches_per_epoch"]) == (1_000, 100, 10)
    assert (found["totals"]["training_seconds"], found["totals"]["evaluation_network_seconds"]) == (30.0, 84.0)
