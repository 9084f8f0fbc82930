"""metrics.jsonl, read back."""

import json

import pytest

from advmix_cli.report import metrics
from advmix_cli.report.metrics import Gap, Read


def line(epoch, **more):
    return {"epoch": epoch, "loss": 1.0, "lr": 0.1, **more}


def written(tmp_path, *texts, end="\n"):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(texts) + end)
    return path


def test_every_epoch_is_there_and_a_line_that_is_being_written_is_none(tmp_path):
    lines = [line(1), line(2, validation_accuracy=0.5)]
    whole = [json.dumps(one) for one in lines]
    assert metrics.read(written(tmp_path, *whole)) == Read(tuple(lines))
    assert metrics.read(written(tmp_path, *whole, '{"epoch": 3, "lo', end="")) == Read(tuple(lines))


def test_without_the_file_there_is_no_epoch(tmp_path):
    assert metrics.read(tmp_path / "nothing") == Read(())


@pytest.mark.parametrize(
    "bad", ["", "x", "[]", "3", "null", '{"epoch": 3}', '{"epoch": 2, "loss": "1"}', '{"epoch": 2, "loss": NaN}',
            '{"epoch": 2, "lr": true}', '{"epoch": 2, "loss": 1e999}', "[" * 100_000, "\ud800"],
)  # fmt: skip
def test_the_epochs_before_a_damaged_line_are_kept_and_it_is_said(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    content = [json.dumps(line(1)).encode(), bad.encode(errors="surrogatepass"), json.dumps(line(3)).encode(), b""]
    path.write_bytes(b"\n".join(content))
    found = metrics.read(path)
    assert found.epochs == (line(1),)
    assert found.damage == f"{path}:2: damaged: this is not epoch 2; it and those after it are left out"


def test_what_is_no_file_is_said(tmp_path):
    assert metrics.read(tmp_path) == Read((), f"{tmp_path} cannot be read: not a file")


def test_the_gap_is_the_first_best_minus_the_last():
    values = [0.1, 0.5, 0.5, 0.3]
    found = metrics.gap([line(n, validation_pgd_accuracy=v) for n, v in enumerate(values, 1)], metrics.ROBUST)
    assert found == Gap(2, 0.5, 4, 0.3)
    assert found.value == pytest.approx(0.2)
    assert metrics.gap([line(1)], metrics.ROBUST) is None


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.1] * 3 + [0.01] * 3 + [0.001], [4, 7]), ([0.1, 0.01], [2]), ([0.1, 0.09, 0.05, 0.02, 0.005], []),
        ([0.1], []), ([], []), ([0.1, 0.1, 0.06], []), ([0.1, 0.1, 0.05], [3]),
    ],
)  # fmt: skip
def test_a_drop_is_half_or_less_of_what_was_constant(rates, expected):
    assert metrics.drops([line(n, lr=rate) for n, rate in enumerate(rates, 1)]) == expected
