"""Whether a training that is killed ends as one that is not: tried here, on this machine, with real processes."""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import tomli_w
import torch
from safetensors.torch import load_file

from advmix_cli.errors import AdvmixError
from advmix_cli.files import write_atomically
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report.results import Results
from advmix_cli.rundir import LAST, METRICS, STATE, reached

TIMINGS = {"seconds", "images_per_second"}


@dataclass(frozen=True)
class Trial:
    """A training that was killed (SIGKILL) `after` so many seconds, and started again. `found`: the newest state that
    was there; `resumed`: it went on from there, as it says itself; `different`: what is not bitwise identical to the
    training that was not killed."""

    number: int
    after: float
    found: str
    resumed: bool
    different: tuple[str, ...]


def trials(recipe: Recipe, count: int, device: str, seed: int) -> Iterator[Trial]:
    """Train once without a kill, then `count` times with one, at a random moment between the first state and the end.
    The states are saved after every batch. AdvmixError if a training fails of itself."""
    recipe = recipe.model_copy(update={"evaluators": ()})
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="advmix-selftest-") as place:
        path = Path(place) / "recipe.toml"
        write_atomically(path, tomli_w.dumps(recipe.resolved()))
        command = [sys.executable, "-m", "advmix_cli", "train", str(path), "--device", device, "--resume"]
        command += ["--save-every", "0s", "--out"]
        whole = Path(place) / "whole"
        with _started([*command, str(whole)], whole) as process:
            began = time.perf_counter()
            process.wait()
            life = time.perf_counter() - began
        _finish(command, whole)
        number = 0
        while number < count:
            part, after = Path(place) / f"part-{time.monotonic_ns()}", moments.uniform(0, life)
            with _started([*command, str(part)], part) as process, suppress(subprocess.TimeoutExpired):
                process.wait(after)
            results = Results.load(part)
            if results and results.finished:
                continue  # the kill came after all was done
            number += 1
            at, ended = reached(part / STATE), (part / LAST).exists()
            said = _finish(command, part)
            resumed = at is not None and f"resumed at epoch {at[0]}, after {at[1]} of" in said
            found = "the end" if ended else f"epoch {at[0]}, batch {at[1]}" if at else "none"
            yield Trial(number, after, found, resumed or ended, tuple(_different(whole, part)))


@contextmanager
def _started(command: list[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, once it has saved its first state, or has ended; it is killed at the end."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as process:
        try:
            while process.poll() is None and not any((directory / STATE).glob("*.json")):
                time.sleep(0.002)
            yield process
        finally:
            process.kill()


def _finish(command: list[str], directory: Path) -> str:
    """What it said."""
    command = [*command, str(directory)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AdvmixError(f"the training ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stderr


def _different(one: Path, other: Path) -> Iterator[str]:
    """What two run directories do not have in common, beside times."""
    files = sorted({path.name for place in (one, other) for path in place.glob("*.safetensors")})
    for file in files:
        if not ((one / file).exists() and (other / file).exists()):
            yield file
            continue
        left, right = load_file(one / file), load_file(other / file)
        names = sorted(left.keys() | right.keys())
        yield from (
            f"{file}: {name}"
            for name in names
            if name not in left or name not in right or not _bitwise(left[name], right[name])
        )
    if _lines(one) != _lines(other):
        yield METRICS
    results = Results.load(other)
    if not (results and results.finished and results.machines) or (other / STATE).exists():
        yield "results.json"


def _bitwise(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.numpy().tobytes() == right.numpy().tobytes()


def _lines(directory: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (directory / METRICS).read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]
