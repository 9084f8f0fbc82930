"""metrics.jsonl, mirrored for other programs to look at while a training goes on.

The file is the truth. A process that trains begins its mirrors anew with what the file has after its first epoch, and
then adds line by line; so whatever stopped the one before it, each epoch is there once. What goes wrong with a mirror
ends that mirror, with a warning, and nothing else.
"""

import io
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, assert_never

from advmix_cli.errors import UsageError, first_line
from advmix_cli.files import append_bytes, write_atomically
from advmix_cli.recipe.schema import Recipe
from advmix_cli.report.progress import Watcher

if TYPE_CHECKING:
    from advmix_cli.report.results import Results

Kind = Literal["tensorboard", "wandb"]


def check(kinds: Sequence[Kind]) -> None:
    """UsageError, with what to do, if a package is missing."""
    for kind in kinds:
        try:
            distribution(kind)  # and not a directory of that name, which an import would take
        except PackageNotFoundError:
            raise UsageError(f"--track {kind} needs a package that is missing: pip install 'advmix[{kind}]'") from None


@contextmanager
def tracked(kinds: Sequence[Kind], recipe: Recipe, directory: Path, metrics: str, watch: Watcher) -> Iterator[Watcher]:
    """Yields who watches a run in `directory`, and mirrors its file `metrics` after each epoch; at the end, the results
    too."""
    if not kinds:
        yield watch
        return
    from advmix_cli.report.results import Results  # with torch, which who names a Kind can do without

    mirrors: dict[Kind, Mirror] = {kind: _mirror(kind, recipe, directory) for kind in kinds}
    following = _Following(directory / metrics, mirrors, watch)
    try:
        yield following
        following.results(Results.load(directory))
    finally:
        following.close()


class Mirror(Protocol):
    """What another program reads."""

    def begin(self) -> None:
        """Anew: what an earlier process has left is removed."""
        ...

    def add(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """The numbers of an epoch, which ended at `wall_time`, in seconds since 1970."""
        ...

    def result(self, step: int, values: Mapping[str, float]) -> None:
        """What was found of the weights that an epoch ended with, any epoch."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


def _mirror(kind: Kind, recipe: Recipe, directory: Path) -> Mirror:
    match kind:
        case "tensorboard":
            return TensorBoard(directory / "tensorboard")
        case "wandb":
            return Wandb(directory / "wandb", recipe)
        case _:
            assert_never(kind)


class _Following:
    """A watcher that reads what a training has added to its metrics whenever an epoch has ended: then the process has
    the directory for itself, and the file holds no epoch that is to be trained again."""

    def __init__(self, path: Path, mirrors: Mapping[Kind, Mirror], watch: Watcher) -> None:
        self._path, self._mirrors, self._watch = path, dict(mirrors), watch
        self._read: int | None = None
        """Bytes; None before the first epoch."""

    def begin(self, what: str, total: int, unit: str) -> None:
        self._watch.begin(what, total, unit)

    def advance(self, done: int, note: str = "") -> None:
        self._watch.advance(done, note)

    def say(self, line: str) -> None:
        self._watch.say(line)

    def epoch(self, line: str) -> None:
        self._follow()
        self._watch.epoch(line)

    def results(self, known: "Results | None") -> None:
        """What the evaluators found, as SPLIT/SELECTION/EVALUATOR."""
        self._follow()
        for entry in known.measured if known else ():
            found = {
                f"{outcome.settings['split']}/{entry.selection}/{outcome.name}": outcome.accuracy
                for outcome in entry.outcomes
            }
            self._each(lambda mirror, step=entry.epoch, found=found: mirror.result(step, found))

    def close(self) -> None:
        if self._read is not None:
            self._each(lambda mirror: mirror.close())

    def _follow(self) -> None:
        if self._read is None:
            self._each(lambda mirror: mirror.begin())
        try:
            lines = self._new_lines()
        except (OSError, ValueError) as error:
            self._each(lambda _, error=error: _raise(error))
            return
        # As if the epochs that are there already had just been trained, one after the other.
        wall_time = time.time() - sum(line.get("seconds", 0.0) for line in lines)
        for line in lines:
            wall_time += line.get("seconds", 0.0)
            numbers = {name: float(value) for name, value in line.items() if name != "epoch" and _is_number(value)}
            self._each(lambda mirror, step=line["epoch"], numbers=numbers, at=wall_time: mirror.add(step, numbers, at))

    def _new_lines(self) -> list[dict[str, Any]]:
        with self._path.open("rb") as stream:
            stream.seek(self._read or 0)
            whole = stream.read().rpartition(b"\n")
        self._read = (self._read or 0) + len(whole[0]) + len(whole[1])
        return [json.loads(line) for line in whole[0].split(b"\n") if line]

    def _each(self, do: Callable[[Mirror], None]) -> None:
        for kind, mirror in list(self._mirrors.items()):
            try:
                do(mirror)
            except Exception as error:
                del self._mirrors[kind]
                self._watch.say(f"warning: --track {kind} has ended: {first_line(error)}; {self._path} has all of it")


def _raise(error: Exception) -> None:
    raise error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse_a_link(directory: Path) -> None:
    if directory.is_symlink():
        raise OSError(f"{directory} is a link, and what it points to would be removed")


class TensorBoard:
    """An event file, written by us: its package writes in a thread, where an error is nobody's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path: Path | None = None

    def begin(self) -> None:
        _refuse_a_link(self._directory)
        earlier = list(self._directory.glob("events.out.tfevents.*.advmix"))
        # Another name every time: TensorBoard goes on reading a file that it has open.
        self._path = self._directory / f"events.out.tfevents.{time.time():.6f}.advmix"
        write_atomically(self._path, _record(wall_time=time.time(), file_version="brain.Event:2"))
        for path in earlier:
            path.unlink(missing_ok=True)

    def add(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        from tensorboard.compat.proto import summary_pb2

        summaries: Any = summary_pb2
        assert self._path
        found = [summaries.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        summary = summaries.Summary(value=found)
        append_bytes(self._path, _record(wall_time=wall_time, step=step, summary=summary))

    def result(self, step: int, values: Mapping[str, float]) -> None:
        self.add(step, values, time.time())

    def close(self) -> None:
        """Each record is on the disk."""


def _record(**fields: Any) -> bytes:
    """An event, as its file has it."""
    from tensorboard.compat.proto import event_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    events: Any = event_pb2
    stream = io.BytesIO()
    RecordWriter(stream).write(events.Event(**fields).SerializeToString())
    return stream.getvalue()


class Wandb:
    """An offline run, which `wandb sync` can send once the training has ended; nothing is sent from here."""

    def __init__(self, directory: Path, recipe: Recipe) -> None:
        self._directory, self._recipe = directory, recipe
        self._run: Any = None

    def begin(self) -> None:
        import wandb

        _refuse_a_link(self._directory)
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)  # or it would write to a directory for temporary files
        self._run = wandb.init(
            mode="offline",
            dir=self._directory.parent,
            project="advmix",
            name=self._recipe.title or self._directory.parent.name,
            config={"digest": self._recipe.digest(), **self._recipe.resolved()},
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, save_code=False, x_disable_stats=True,
                x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False,
            ),
        )  # fmt: skip

    def add(self, step: int, values: Mapping[str, float], wall_time: float) -> None:  # noqa: ARG002 (it has its own)
        self._run.log(dict(values), step=step)

    def result(self, step: int, values: Mapping[str, float]) -> None:  # noqa: ARG002 (its steps only go forward)
        self._run.summary.update(dict(values))

    def close(self) -> None:
        self._run.finish()
