"""Trainings that are stopped, and what of them must be the same."""

import json

import pytest
import torch
from safetensors.torch import load_file

from advmix_cli import run
from advmix_cli.errors import StoppedError
from advmix_cli.fit import Keeping
from advmix_cli.stopping import Stop
from advmix_cli.tensors import digest

CPU = torch.device("cpu")
SMALL = ["schedule.epochs=3", "schedule.batch_size=32", "evaluators=[]"]  # 3 epochs of 4 batches


class StopAt(Stop):
    """Asked to stop at its n-th check."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def check(self):
        self.left -= 1
        if self.left == 0:
            self.asked = StoppedError("stopped by a test", 1)
        super().check()


def bits(directory):
    """All that a training leaves, without what it says of time; -0.0 is not 0.0."""
    tensors = {path.name: digest(load_file(path)) for path in directory.glob("*.safetensors")}
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    timeless = [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]
    return tensors, timeless


def same(one, other):
    return one == other


def stopped(recipe, directory, watch, at, every=1e9):
    with pytest.raises(StoppedError, match="stopped by a test"):
        run.execute(recipe, directory, CPU, watch, Keeping(every, StopAt(at)))
