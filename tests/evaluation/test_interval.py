"""Outcomes: what is derived from the counts."""

import json

import pytest
import torch

from advmix_cli.evaluation.outcome import Evaluated, Outcome
from advmix_cli.evaluation.verdicts import Verdicts

OUTCOME = Outcome("PGD20", 8, 5, {"clean": 1, "pgd": 2}, 1.25, {"steps": 20}, {"torch": "2"}, "v")


def test_json_holds_counts_fractions_and_settings_and_comes_back():
    document = json.loads(json.dumps(OUTCOME.to_json()))
    assert document["accuracy"] == 0.625
    assert (document["low"], document["high"]) == OUTCOME.interval
    assert Outcome.from_json(document) == OUTCOME


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0, "correct": 0, "broken": {"clean": 0}},
        {"correct": 9, "broken": {"clean": -1}},
        {"correct": -1, "broken": {"clean": 9}},
        {"broken": {"clean": 4, "pgd": -1}},
        {"broken": {"clean": 1, "pgd": 1}},
        {"broken": {"clean": 1, "pgd": 3}},
        {"seconds": -0.5},
        {"seconds": "1.25"},
        {"correct": "5"},
        {"n": 8.0},
    ],
)
def test_what_contradicts_itself_or_is_of_another_type_is_no_outcome(wrong):
    with pytest.raises(ValueError, match=r"is no outcome|are not 8|valid"):
        Outcome.from_json(OUTCOME.to_json() | wrong)


def test_an_outcome_has_the_seconds_to_the_millisecond():
    found = Verdicts(("a",), torch.tensor([True]), torch.tensor([-1], dtype=torch.int8), torch.tensor([1.0]))
    assert Evaluated.of("x", found, torch.tensor([0]), 1.23456, {}, {}).outcome.seconds == 1.235
