"""What `advmix eval` does with a network, whoever made it."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from advmix_cli.commands.console import err, out, print_json
from advmix_cli.commands.diagnosis import DIAGNOSED, told
from advmix_cli.commands.keeping import with_the_worst
from advmix_cli.commands.unfinished import unfinished, with_advice
from advmix_cli.errors import StoppedError
from advmix_cli.stopping import stoppable

if TYPE_CHECKING:
    from advmix_cli.diagnosis.diagnose import Diagnosis
    from advmix_cli.evaluation.outcome import Evaluated, Outcome
    from advmix_cli.measure.findings import Findings
    from advmix_cli.report.grid import Grid
    from advmix_cli.report.progress import Watcher


@dataclass(frozen=True)
class Asked:
    """By the flags: the names of `evaluators`, on `limit` images, and what is kept of them."""

    evaluators: Sequence[str]
    limit: int | None
    save: Path | None
    save_adversarial: bool


@dataclass(frozen=True)
class Opened:
    """A measurement that can begin: `evaluated` begins it. `epsilon` is that of the worst case."""

    evaluated: "Iterable[Evaluated]"
    epsilon: float
    keep: "Callable[[Evaluated], None]"
    findings: "Findings"
    document: "Callable[[Sequence[Outcome]], dict[str, Any]]"
    grid: "Callable[[Sequence[Outcome]], Grid]"


class Network(Protocol):
    """A checkpoint of ours, or a network of others."""

    @property
    def title(self) -> str:
        """For a table."""
        ...

    def guarded(self) -> AbstractContextManager[Any]:
        """Around all that its code does."""
        ...

    def opened(self, asked: Asked, watch: "Watcher") -> Opened:
        """UsageError for what it has not been asked rightly."""
        ...

    def diagnosis(self, limit: int, watch: "Watcher") -> "tuple[Diagnosis, str]":
        """On the first `limit` test images, and the digest of the weights that it is of."""
        ...


def measure(network: Network, asked: Asked, stop_after: float | None, *, as_json: bool) -> None:
    """Measure it, and print what is found; StoppedError after the document of what was found before."""
    from advmix_cli.report.progress import watcher

    opened: Opened | None = None
    outcomes: list[Outcome] = []
    try:
        with network.guarded(), stoppable(stop_after), watcher(err) as watch:
            opened = network.opened(asked, watch)
            for one in with_the_worst(opened.evaluated, opened.epsilon, opened.keep):
                outcomes.append(one.outcome)  # noqa: PERF401 (what was found before a stop stays)
    except StoppedError as stopped:
        if as_json:
            begun = opened.document(outcomes) if opened else {"checkpoint": network.title, "outcomes": []}
            print_json({**begun, **unfinished(stopped)})
        raise with_advice(stopped) from None
    if as_json:
        print_json({**opened.document(outcomes), "finished": True})
    else:
        opened.grid(outcomes).print(out)
    out.file.flush()
    opened.findings.discard()  # it has been told


def diagnose(
    network: Network, limit: int | None, stop_after: float | None, save: Path | None, figures: Path | None, *,
    as_json: bool,
) -> None:  # fmt: skip
    """Print whether its accuracies are to be believed, and keep that in `save`; AdvmixError if not."""
    from advmix_cli.report.progress import watcher

    try:
        with network.guarded(), stoppable(stop_after), watcher(err) as watch:
            diagnosis, weights = network.diagnosis(limit or DIAGNOSED, watch)
    except StoppedError as stopped:
        if as_json:
            print_json(unfinished(stopped))
        raise
    told(network.title, diagnosis, weights, save, figures, as_json=as_json)
