"""How a run stands, from its files alone: nothing is written, nobody is refused for it, torch is not imported."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from advmix_cli.errors import RunDirectoryError, printable
from advmix_cli.failures import failure
from advmix_cli.files import read_bytes, read_text
from advmix_cli.locks import LOCK, is_held
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report.metrics import collapsed, collapsed_in, epoch
from advmix_cli.rundir import (
    LAST,
    LONGEST_MANIFEST,
    LONGEST_METRICS,
    LONGEST_RESULTS,
    METRICS,
    RESULTS,
    STATE,
    manifests,
    place,
    reached,
)
from advmix_cli.seals import unsealed

StateName = Literal["waiting", "running", "stopped", "done", "diverged", "failed"]


@dataclass(frozen=True)
class Found:
    """What an evaluator found of one set of weights: `selection` is a checkpoint's, `accuracy` a fraction."""

    selection: str
    evaluator: str
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Standing:
    """`state`: nothing was begun ("waiting"), somebody works in it ("running"), begun and left ("stopped"), "done",
    "diverged", or given up ("failed"). `error` says why, of the last two.

    `epoch` of `epochs` are done, and a resumed training goes on behind them (by the name of its newest state: whether
    that is whole, who resumes finds out); `line` is what metrics.jsonl says of the
    last one, written `since` seconds ago, if that is known; an epoch with its validation takes `pace` seconds, if that
    is. `found` is what has been measured, of `wanted` measurements.
    """

    state: StateName
    epochs: int
    epoch: int = 0
    trained: bool = False
    """Whether the last network is there, so that measuring it is all that is left."""
    line: dict[str, Any] = field(default_factory=dict)
    collapsed: tuple[int, ...] = ()
    """The epochs, of those that are done, in which the accuracy under attack fell by half."""
    since: float | None = None
    pace: float | None = None
    found: tuple[Found, ...] = ()
    wanted: int = 0
    error: str | None = None

    @property
    def ended(self) -> bool:
        """Whether running it again would do nothing."""
        return self.state in ("done", "diverged")

    def warning(self, recipe: Recipe) -> str | None:
        """Of a collapse that did not end the training: one that did is the `error`."""
        is_end = self.state == "diverged" and recipe.schedule.on_collapse == "stop"
        return f"COLLAPSED: {collapsed_in(self.collapsed)}" if self.collapsed and not is_end else None


def standing(recipe: Recipe, directory: Path) -> Standing:
    """How the run of `recipe` in `directory` stands, while others may be writing there; RunDirectoryError names the
    file that is damaged, or that is another recipe's."""
    # Before the files: who ends in between has written what is read then.
    held = is_held(directory)
    results, given_up = _results(recipe, directory / RESULTS), failure(directory)
    # The state before the lines, of which there are never too few for it.
    saved = reached(directory / STATE)
    lines, since = _metrics(recipe, directory / METRICS)
    trained = results is not None and (directory / LAST).is_file()
    diverged = results and results["diverged"]
    pace = _pace(recipe, directory / STATE, lines, results)
    if not trained and not diverged and not (held and _is_of_holder(directory)):
        # A training goes on from its newest state: what was written after that is cut off, and trained anew.
        left = lines[: saved[0] - 1] if saved else []
        lines, since = left, since if left == lines and not held else None
    common = {
        "epochs": recipe.schedule.epochs,
        "epoch": recipe.schedule.epochs if trained else len(lines),
        "trained": trained,
        "line": lines[-1] if lines else {},
        # Of what has ended the results know it too, as reports have it.
        "collapsed": tuple(results.get("collapsed", ()) if results and results["finished"] else collapsed(lines)),
        "since": since,
        "pace": pace,
        "found": _found(recipe, results),
        "wanted": len(recipe.evaluators) * recipe.reports,
    }
    if diverged:
        return Standing("diverged", **common, error=printable(str(diverged)))
    if results and results["finished"]:
        return Standing("done", **common)
    if held:
        return Standing("running", **common)
    if given_up:
        return Standing("failed", **common, error=str(given_up))
    return Standing("stopped" if results or saved or lines else "waiting", **common)


def _is_of_holder(directory: Path) -> bool:
    """Whether who works in `directory` has written the metrics there: its lock is older."""
    try:
        return (directory / METRICS).stat().st_mtime_ns >= (directory / LOCK).stat().st_mtime_ns
    except OSError:
        return False


def _results(recipe: Recipe, path: Path) -> dict[str, Any] | None:
    """What results.json holds, if it is there; what of it is not used here is not looked at."""
    try:
        known = unsealed(json.loads(read_text(path, LONGEST_RESULTS)))
        theirs = known["digest"]
        _ = known["diverged"], known["finished"], int(known["train_images"]), list(map(int, known.get("collapsed", ())))
        _found(recipe, known)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise RunDirectoryError(f"{path} is damaged or was changed; delete it to measure again") from None
    if theirs != recipe.digest():
        raise RunDirectoryError(f"{path.parent} holds the results of another recipe")
    return known


def _found(recipe: Recipe, results: dict[str, Any] | None) -> tuple[Found, ...]:
    """By the recipe's evaluators, and not the worst case over them, which takes no time."""
    names = {evaluator.name for evaluator in recipe.evaluators}
    return tuple(
        Found(entry["selection"], one["name"], one["correct"] / one["n"], float(one["seconds"]))
        for entry in (results["measured"] if results else ())
        for one in entry["outcomes"]
        if one["name"] in names
    )


def _metrics(recipe: Recipe, path: Path) -> tuple[list[dict[str, Any]], float | None]:
    """The lines of the epochs, and how many seconds ago the last one was written. What follows the last line end is
    being written, or was torn."""
    try:
        since = time.time() - path.stat().st_mtime
        whole = read_bytes(path, LONGEST_METRICS).split(b"\n")[:-1]
        lines = [epoch(text, number) for number, text in enumerate(whole, 1)]
        if len(lines) > recipe.schedule.epochs:
            raise ValueError("more epochs than there are")
        if not all(line["seconds"] >= 0 for line in lines):
            raise ValueError("no time")
    except FileNotFoundError:
        return [], None
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise RunDirectoryError(f"{path} is damaged or was changed; delete {path.parent} to start again") from None
    return lines, since if lines else None


RECENT = 5
"""Epochs whose pace is that of the ones to come: a machine that is shared changes its pace."""


def _pace(recipe: Recipe, states: Path, lines: list[dict[str, Any]], results: dict[str, Any] | None) -> float | None:
    """Seconds of an epoch with its validation. A line has those of its training alone; a state those of all that was
    before it. An epoch in which the training was resumed has only what was left of it, or nothing."""
    longest = max((line["seconds"] for line in lines[-RECENT:]), default=0.0)
    whole = [line["seconds"] for line in lines[-RECENT:] if line["seconds"] > longest / 2]
    if not whole:
        return None
    return sum(whole) / len(whole) * _overhead(recipe, states, lines, results)


def _overhead(recipe: Recipe, states: Path, lines: list[dict[str, Any]], results: dict[str, Any] | None) -> float:
    """How many times as long as its training an epoch with its validation has been, before the newest state."""
    for manifest in manifests(states):
        epoch, done = place(manifest)
        trained = sum(line["seconds"] for line in lines[: epoch - 1])
        batches = max(1, results["train_images"] // recipe.schedule.batch_size) if results else 1
        try:
            # A damaged one is the next training's to tell.
            passed = float(json.loads(read_text(manifest, LONGEST_MANIFEST))["seconds"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue
        share = (epoch - 1) / (epoch - 1 + min(done / batches, 1.0)) if epoch > 1 else 0.0
        if trained and share and passed * share > trained:
            return passed * share / trained
    return 1.0
