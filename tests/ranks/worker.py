"""One rank of a few trainings, run as `worker.py DIRECTORY PORT...`: what each left is in DIRECTORY/RANK.json."""

import io
import json
import os
import signal
import sys
import time
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from unittest import mock

import torch
from rich.console import Console

from advmix_cli import build, engine, fit, run, validation
from advmix_cli.commands.train import train as command
from advmix_cli.engine import Difference, Prepared
from advmix_cli.errors import AdvmixError, StoppedError
from advmix_cli.fit import Keeping
from advmix_cli.ranks import joining
from advmix_cli.ranks.joining import joined
from advmix_cli.ranks.team import ALONE
from advmix_cli.ranks.torchrun import launched
from advmix_cli.recipe.load import load
from advmix_cli.report.progress import Lines
from advmix_cli.stopping import stoppable
from advmix_cli.tensors import digest, on_cpu
from advmix_cli.training.batch import OnBatch
from advmix_cli.training.loop import Training
from advmix_cli.validation import Validation

RANK = int(os.environ.get("RANK", "0"))
CPU = torch.device("cpu")


@contextmanager
def at_batch(number, does):
    """On rank 1, `does(x)` gives the images of the batch of that number, counted from 1."""
    inputs, seen = OnBatch.inputs, []

    def own(self, batch):
        x, y = inputs(self, batch)
        seen.append(batch)
        return (does(x) if len(seen) == number else x), y

    with mock.patch.object(OnBatch, "inputs", own) if RANK == 1 else nullcontext():
        yield


def asked_to_stop(x):
    os.kill(os.getpid(), signal.SIGTERM)
    return x


def out_of_memory(_):
    raise torch.OutOfMemoryError("CUDA out of memory")


def ends(_):
    os._exit(9)


def pushed(x):
    """As a GPU of another kind would, in one bit; a lower one would be rounded off."""
    with torch.no_grad():
        TRAINING[-1].network.linear.bias.view(torch.int32)[0] ^= 2**16
    return x


def falls_silent(x):
    time.sleep(SILENCE)
    return x


@contextmanager
def slow_alone():
    """Rank 0 takes longer for what it does alone than one may be late in step: before the first batch, and after an
    epoch."""

    def slow(does):
        def slowly(*args):
            ALONE_FOR.append(SILENCE)
            time.sleep(SILENCE)
            return does(*args)

        return slowly

    with (
        mock.patch.object(validation, "subject_of", slow(validation.subject_of)),
        mock.patch.object(Validation, "accuracies", slow(Validation.accuracies)),
    ):
        yield


@contextmanager
def in_step(meanwhile):
    """A rank may be late by `IN_STEP`."""
    with mock.patch.object(joining, "IN_STEP", IN_STEP), meanwhile:
        yield


def with_another_device():
    """As where rank 1 is given --device cuda:1, and rank 0 the CPU."""
    other = build.kind_of(torch.device("cuda:1"))
    return mock.patch.object(build, "kind_of", return_value=other) if RANK else nullcontext()


def typed(name, directory):
    """`advmix train`."""
    command(
        str(directory / f"{name}.toml"), directory / name, resume=False, seed=None, stop_after=None, save_every=1e9,
        track=None, device="cpu", settings=None, as_json=False,
    )  # fmt: skip


def rehearsed(recipe, images, network, formulation, team):
    """It works on rank 0, and fails on rank 1."""
    if RANK:
        raise RuntimeError("no compiler here")
    made = engine.build.training(recipe, images, network, team=team).within(ALONE)
    return Prepared(made, formulation, "as asked", difference=Difference(0, 0, 0, 0, 0))


def collapsed(before, after, classes):  # noqa: ARG001
    return before is not None


TRAINING, ALONE_FOR = [], []
IN_STEP = timedelta(seconds=10)
SILENCE = 14.0


def train(team, name, directory, found):
    """A training, with the weights after each of its epochs and what was drawn for each batch."""
    with team.together():
        recipe = load(str(directory / f"{name}.toml"), [])
    epochs, drawn = [], []
    run_epochs, draw = Training.run, Training.draw

    def watched(self, *args):
        TRAINING.append(self)
        for epoch in run_epochs(self, *args):
            epochs.append(digest(on_cpu(self.network.state_dict())))
            yield epoch

    def noted(self, *args, **words):
        batch = draw(self, *args, **words)
        drawn.append([batch.indices.tolist(), float(batch.draws.noise.sum()), batch.draws.ratio.tolist()])
        return batch

    said = io.StringIO()
    watch = Lines(Console(file=said, width=300))
    out = directory / name.partition(".")[0]
    with (
        stoppable() as stop,
        mock.patch.object(Training, "run", watched),
        mock.patch.object(Training, "draw", noted),
    ):
        found |= {"epochs": epochs, "drawn": drawn}
        try:
            if team.first:
                run.execute(recipe, out, CPU, watch, Keeping(1e9, stop), team)
            else:
                run.assist(recipe, out, CPU, watch, Keeping(1e9, stop), team)
        finally:
            found["said"] = said.getvalue()


JOBS = {
    "synchronised": nullcontext(),
    "synchronised2": nullcontext(),
    "averaged": nullcontext(),
    "attacked": nullcontext(),
    "whole": nullcontext(),
    "part": at_batch(7, asked_to_stop),
    "part.again": nullcontext(),
    "fewer": at_batch(7, asked_to_stop),
    "more": nullcontext(),
    "indivisible": nullcontext(),
    "graph": nullcontext(),
    "compiled": mock.patch.object(engine, "rehearsed", rehearsed),
    "rollback": mock.patch.object(fit.collapse, "is_collapse", collapsed),
    "infinite": at_batch(6, lambda x: x * torch.inf),
    "apart": at_batch(2, pushed),
    "memory": at_batch(6, out_of_memory),
    "devices": with_another_device(),
    "patient": in_step(slow_alone()),
    "silent": in_step(at_batch(6, falls_silent)),
    "death": at_batch(6, ends),
}


def main(directory, *ports):
    every = {}
    for (name, meanwhile), port in zip(JOBS.items(), ports, strict=True):
        os.environ["MASTER_PORT"] = port
        found = every[name] = {}
        try:
            with meanwhile:
                if name == "devices":
                    typed(name, directory)
                else:
                    with joined(launched()) as team:
                        train(team, name, directory, found)
        except (AdvmixError, StoppedError) as error:
            found |= {
                "error": type(error).__name__,
                "message": str(error),
                "exit_code": error.exit_code,
                "speaks": not getattr(error, "said", RANK > 0),
            }
        found["alone"] = len(ALONE_FOR)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        (directory / f"{RANK}.json").write_text(json.dumps(every))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), *sys.argv[2:])
