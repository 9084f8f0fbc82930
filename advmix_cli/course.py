"""What of a training is kept between its epochs: where it is, what it has found, and how both are written."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from advmix_cli import seals
from advmix_cli.checkpoint import Best
from advmix_cli.errors import RunDirectoryError
from advmix_cli.files import read_bytes
from advmix_cli.report.progress import SEPARATOR
from advmix_cli.rundir import LONGEST_METRICS
from advmix_cli.tensors import digest, on_cpu
from advmix_cli.training.loop import Progress


@dataclass
class Weights:
    """A network that a training makes, its own or the average, and the best epoch of it so far. Its accuracies have
    `prefix` before their names; `selected_last` and `selected_best` are what its checkpoints are."""

    network: nn.Module
    prefix: str
    selected_last: str
    selected_best: str
    best: Best | None = None


@dataclass
class Course:
    """Where a training is between its batches, and what it has found so far."""

    own: Weights
    averaged: Weights | None
    at: Progress = field(default_factory=Progress)
    lines: list[str] = field(default_factory=list)
    """Of metrics.jsonl, of the epochs before `at`."""
    machines: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    """Before this process."""

    def metrics(self) -> str:
        """All of metrics.jsonl."""
        return "".join(f"{line}\n" for line in self.lines)

    def weights(self) -> list[Weights]:
        """Its own, and the average if there is one."""
        return [self.own, self.averaged] if self.averaged else [self.own]


def improved(weights: Weights, line: dict[str, Any]) -> bool:
    """Whether the epoch of this line is the best one so far; then it is noted."""
    accuracy = line.get(f"{weights.prefix}validation_pgd_accuracy", -1.0)
    if accuracy <= (weights.best.accuracy if weights.best else -1.0):
        return False
    weights.best = Best(accuracy, line["epoch"], digest(on_cpu(weights.network.state_dict())))
    return True


def lines_before(path: Path, epoch: int, expected: str) -> list[str]:
    """The lines of the epochs before `epoch`, whose digest is `expected`; what follows them is trained anew.
    RunDirectoryError if they are not what they were."""
    try:
        # A line that was torn can hold anything.
        lines = [line.decode() for line in read_bytes(path, LONGEST_METRICS).split(b"\n")[: epoch - 1]]
    except (FileNotFoundError, ValueError):
        lines = []
    if seals.digest("".join(f"{line}\n" for line in lines)) != expected:
        raise RunDirectoryError(
            f"{path} lacks an epoch that has been trained, or was changed; delete {path.parent} to start again"
        )
    return lines


def epoch_line(line: dict[str, Any], epochs: int) -> str:
    """A line of metrics.jsonl as it is shown."""
    parts = [f"loss {line['loss']:.4f}"]
    if "validation_accuracy" in line:
        parts.append(f"validation {_accuracies(line, '')}")
    if "average_validation_accuracy" in line:
        parts.append(f"average {_accuracies(line, 'average_')}")
    if "inner_loss_before" in line:
        parts.append(f"inner {line['inner_loss_before']:.4f} -> {line['inner_loss_after']:.4f}")
    if line["ratio"] != 1:  # where nothing is mixed there is no λ
        parts.append(f"λ {line['ratio']:.3f}")
    parts += [f"lr {line['lr']:.3g}", f"{line['images_per_second']:,.0f} images/s"]
    return f"epoch {line['epoch']}/{epochs}: {SEPARATOR.join(parts)}"


def _accuracies(line: dict[str, Any], prefix: str) -> str:
    pristine, robust = (100 * line[f"{prefix}{name}"] for name in ("validation_accuracy", "validation_pgd_accuracy"))
    return f"{pristine:.1f} %, under PGD {robust:.1f} %"
