"""By what each epoch of a training is judged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from advmix_cli import build
from advmix_cli.attacked import subject_of
from advmix_cli.course import Weights
from advmix_cli.data.images import Dataset, Images
from advmix_cli.evaluation.outcome import Evaluator
from advmix_cli.evaluation.predict import measured
from advmix_cli.evaluation.pristine import Pristine
from advmix_cli.evaluation.subject import Subject
from advmix_cli.measure.evaluate import share_correct
from advmix_cli.recipe.schema import Recipe

BATCH = 500


@dataclass(frozen=True)
class Validation:
    """The accuracies of each of `weights` on `images`, as they are and under a short PGD."""

    weights: Sequence[Weights]
    subjects: Sequence[Subject]
    judges: Mapping[str, Evaluator]
    images: Images

    @classmethod
    def of(
        cls, recipe: Recipe, dataset: Dataset, weights: Sequence[Weights], epochs: int, say: Callable[[str], None]
    ) -> Self:
        """That of a training of so many epochs. It may compile, of which `say` is told."""
        images = (dataset.test if recipe.validation.on == "test" else dataset.validation).first(recipe.validation.limit)
        judges = {"validation_accuracy": Pristine(batch_size=BATCH), "validation_pgd_accuracy": build.validator(recipe)}
        passes = sum(judge.passes(len(dataset.classes)) for judge in judges.values()) * len(images) * epochs
        subjects: list[Subject] = []
        for one in weights:
            with measured(one.network):
                subjects.append(subject_of(recipe, one.network, images.first(BATCH), passes, say))
        return cls(weights, subjects, judges, images)

    def accuracies(self) -> dict[str, float]:
        """As they are now, by their names in metrics.jsonl; none without images. EvaluationError where a network gives
        no numbers."""
        found: dict[str, float] = {}
        for weights, subject in zip(self.weights, self.subjects, strict=True) if len(self.images) else ():
            with measured(weights.network):
                for name, judge in self.judges.items():
                    found[f"{weights.prefix}{name}"] = share_correct(judge, subject, self.images)
        return found
