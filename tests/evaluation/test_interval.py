"""Outcomes: what is derived from the counts."""

import json

from advmix_cli.evaluation.outcome import Outcome


def test_json_holds_counts_fractions_and_settings_and_comes_back():
    outcome = Outcome("PGD20", 8, 5, {"clean": 1, "pgd": 2}, 1.25, {"steps": 20}, {"torch": "2"}, "v")
    document = json.loads(json.dumps(outcome.to_json()))
    assert document["accuracy"] == 0.625
    assert (document["low"], document["high"]) == outcome.interval
    assert Outcome.from_json(document) == outcome
