"""Accuracy on the images as they are."""

from dataclasses import dataclass
from typing import Any

from advmix_cli.data.images import Images
from advmix_cli.evaluation.notebook import Notebook
from advmix_cli.evaluation.outcome import Tick
from advmix_cli.evaluation.predict import judge_all
from advmix_cli.evaluation.subject import Subject
from advmix_cli.evaluation.verdicts import Tally, Verdicts


@dataclass(frozen=True)
class Pristine:
    """The images as they are, in fp32."""

    batch_size: int

    def settings(self, classes: int) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def passes(self, classes: int) -> int:  # noqa: ARG002
        return 1

    def __call__(self, subject: Subject, images: Images, tick: Tick, notes: Notebook) -> Verdicts:  # noqa: ARG002 (one pass is not worth a note)
        clean = judge_all(subject.judge, images, self.batch_size)
        tick(len(images), "")
        return Tally((), clean, None).verdicts
