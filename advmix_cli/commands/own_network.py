"""`advmix eval CHECKPOINT`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from advmix_cli.commands.keeping import keeper
from advmix_cli.commands.measuring import Asked, Opened
from advmix_cli.commands.unfinished import said_once

if TYPE_CHECKING:
    import torch

    from advmix_cli.checkpoint import Checkpoint
    from advmix_cli.diagnosis.diagnose import Diagnosis
    from advmix_cli.evaluation.outcome import Outcome
    from advmix_cli.report.grid import Grid
    from advmix_cli.report.progress import Watcher


@dataclass(frozen=True)
class OwnNetwork:
    """The network of `saved`, which lies at `path`; `settings` edit its evaluators and the place of its data."""

    path: Path
    saved: "Checkpoint"
    settings: Sequence[str]
    place: "torch.device"
    transfer: "Checkpoint | None"

    @classmethod
    def load(cls, place: Path, settings: Sequence[str], device: str, transfer: Path | None) -> Self:
        """CheckpointError for what is none."""
        from advmix_cli import build, checkpoint

        path = checkpoint.find(place)
        saved = checkpoint.load(path)
        other = checkpoint.load(transfer) if transfer else None
        return cls(path, saved, settings, build.device(device), other)

    @property
    def title(self) -> str:
        return str(self.path)

    def guarded(self) -> AbstractContextManager[None]:
        return nullcontext()

    def opened(self, asked: Asked, watch: "Watcher") -> Opened:
        from platformdirs import user_cache_path

        from advmix_cli.evaluation.verdict_files import ADVERSARIAL
        from advmix_cli.measure.asked import recipe_to_measure
        from advmix_cli.measure.evaluate import evaluate_checkpoint
        from advmix_cli.measure.findings import Findings, Known
        from advmix_cli.measure.same_images import images_to_measure

        saved = self.saved
        chosen = recipe_to_measure(saved, self.title, self.settings, asked.evaluators, asked.limit)
        directory = asked.save or (self.path.parent / ADVERSARIAL if asked.save_adversarial else None)
        images = images_to_measure(saved, chosen, self.place, watch.say)
        known = Known(saved.weights, saved.images | {"test": images.test.fingerprint()})
        cache = user_cache_path("advmix") / "findings"
        findings = Findings(cache, known, chosen, self.place, said_once(), images=asked.save_adversarial)
        return Opened(
            evaluated=evaluate_checkpoint(saved, chosen, images, watch, findings.of),
            epsilon=chosen.threat.epsilon,
            keep=keeper(directory, known.weights, known.images, saved.classes, saved.epoch, saved.selection),
            findings=findings,
            document=self._document,
            grid=self._grid,
        )

    def diagnosis(self, limit: int, watch: "Watcher") -> "tuple[Diagnosis, str]":
        from advmix_cli.diagnosis.diagnose import diagnose_checkpoint
        from advmix_cli.measure.asked import edited_to_measure

        chosen = edited_to_measure(self.saved, self.title, self.settings)
        found = diagnose_checkpoint(self.saved, chosen, self.place, watch, limit, self.transfer)
        return found, self.saved.weights

    def _document(self, outcomes: "Sequence[Outcome]") -> dict[str, Any]:
        from advmix_cli.report.results import Measured

        saved = self.saved
        measured = Measured(saved.selection, saved.epoch, saved.weights, tuple(outcomes))
        return {
            "checkpoint": self.title,
            "digest": saved.recipe.digest(),
            "machines": saved.machines,
            "collapsed": saved.collapsed,
            **measured.to_json(),
        }

    def _grid(self, outcomes: "Sequence[Outcome]") -> "Grid":
        from advmix_cli.report.results import Measured
        from advmix_cli.report.tables import outcome_grid

        saved = self.saved
        measured = Measured(saved.selection, saved.epoch, saved.weights, tuple(outcomes))
        return outcome_grid(saved.recipe.title or self.title, measured, saved.machines, saved.collapsed)
