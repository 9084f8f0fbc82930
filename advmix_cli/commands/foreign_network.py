"""`advmix eval --model`."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli.commands.console import say
from advmix_cli.commands.keeping import keeper
from advmix_cli.commands.measuring import Asked, Opened
from advmix_cli.commands.unfinished import said_once
from advmix_cli.errors import AdvmixError, ForeignModelError, StoppedError, UsageError, first_line

if TYPE_CHECKING:
    import torch

    from advmix_cli.diagnosis.diagnose import Diagnosis
    from advmix_cli.evaluation.outcome import Outcome
    from advmix_cli.foreign_model import Foreign
    from advmix_cli.recipe.measurement import Measurement
    from advmix_cli.report.grid import Grid
    from advmix_cli.report.progress import Watcher


@dataclass(frozen=True)
class ForeignNetwork:
    """What the factory of `described` makes, with the weights in `file` or its own."""

    described: "Measurement"
    file: Path | None
    place: "torch.device"

    @property
    def title(self) -> str:
        return str(self.file or self.described.model.factory)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """What its code prints goes to stderr; whatever it raises is one message, an exit among them: it would pass
        for a success."""
        try:
            with redirect_stdout(sys.stderr):
                yield
        except (AdvmixError, StoppedError, KeyboardInterrupt):
            raise
        except BaseException as error:
            factory = self.described.model.factory
            raise ForeignModelError(f"{factory}: its code ended the measurement: {first_line(error)}") from error

    def opened(self, asked: Asked, watch: "Watcher") -> Opened:
        from platformdirs import user_cache_path

        from advmix_cli.evaluation.verdict_files import ADVERSARIAL
        from advmix_cli.measure.asked import wanted
        from advmix_cli.measure.evaluate import evaluate
        from advmix_cli.measure.findings import Findings

        judges = wanted(self.described.evaluators, "the measurement", asked.evaluators, asked.limit)
        chosen = self.described.model_copy(update={"evaluators": judges})
        directory = asked.save or (self.file.parent / ADVERSARIAL if asked.save_adversarial and self.file else None)
        if asked.save_adversarial and directory is None:
            raise UsageError("--save-adversarial without a file of weights wants a directory: --save DIR")
        made = self._made(chosen, watch)
        known = made.known()
        cache = user_cache_path("advmix") / "findings"
        findings = Findings(cache, known, chosen, self.place, said_once(), images=asked.save_adversarial)
        return Opened(
            evaluated=evaluate(judges, chosen, made.network, made.images, watch, findings.of),
            epsilon=chosen.threat.epsilon,
            keep=keeper(
                directory,
                made.weights,
                known.images,
                made.images.classes,
                identity=known.weights,
                network=made.described(chosen),
            ),
            findings=findings,
            document=lambda outcomes: self._document(chosen, made, outcomes),
            grid=lambda outcomes: self._grid(chosen, made, outcomes),
        )

    def diagnosis(self, limit: int, watch: "Watcher") -> "tuple[Diagnosis, str]":
        from advmix_cli.diagnosis.diagnose import diagnosed
        from advmix_cli.recipe.measurement import of_the_field

        # It has its own attacks, whoever judges.
        judges = of_the_field(self.described.threat)
        made = self._made(self.described.model_copy(update={"evaluators": judges}), watch)
        return diagnosed(made.network, made.images, self.described, 0, watch, limit, None), made.weights

    def _made(self, chosen: "Measurement", watch: "Watcher") -> "Foreign":
        from advmix_cli.foreign_model import prepared

        made = prepared(chosen, self.file, self.place, watch)
        for suspicion in made.suspicions:
            say(f"warning: {chosen.model.factory}: {suspicion}")
        return made

    def _document(self, chosen: "Measurement", made: "Foreign", outcomes: "Sequence[Outcome]") -> dict[str, Any]:
        return {
            "checkpoint": None if self.file is None else str(self.file),
            "weights": made.weights,
            "measurement": chosen.resolved(),
            "images": made.images.fingerprints(),
            "suspicions": made.suspicions,
            "outcomes": [outcome.to_json() for outcome in outcomes],
        }

    def _grid(self, chosen: "Measurement", made: "Foreign", outcomes: "Sequence[Outcome]") -> "Grid":
        from advmix_cli.report.tables import outcomes_grid

        fingerprints = made.images.fingerprints()
        splits = dict.fromkeys(one.split for one in chosen.evaluators)
        images = ", ".join(f"{chosen.data.source} {split} {fingerprints[split][:16]}" for split in splits)
        captions = [
            *(f"SUSPICIOUS: {one}" for one in made.suspicions),
            f"network: {chosen.model}",
            f"weights {made.weights[:16]} of {self.file or 'its factory'}",
            f"images: {images}",
        ]
        return outcomes_grid(self.title, outcomes, captions)
