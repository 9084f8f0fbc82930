"""On which images each epoch of a training is judged, by what, and which is the best."""

import pytest
import torch
from interrupted import CPU
from torch import nn

from advmix_cli import build
from advmix_cli.course import Weights, improved
from advmix_cli.validation import Validation


class Says(nn.Module):
    """Takes every image for a `label`; if it is `fragile`, only as long as the corner pixel, which is 0 in all digits,
    stays so."""

    def __init__(self, label, *, fragile=False):
        super().__init__()
        self.label, self.fragile = label, fragile

    def forward(self, x):
        assert not self.training
        logits = torch.zeros(len(x), 10)
        logits[:, self.label] = 1e-3
        return logits - nn.functional.one_hot(torch.tensor(self.label), 10) * x[:, 0, 0, :1] * self.fragile


@pytest.mark.parametrize(
    ("setting", "part"),
    [("validation={on='test', limit=29}", "test"), ("validation={fraction=0.5, limit=29}", "validation")],
)
def test_each_network_is_judged_on_the_first_images_as_they_are_and_under_attack(tiny, setting, part):
    recipe = tiny(setting)
    images = build.dataset(recipe, CPU, print)
    labels = images.part(part).labels[:29]

    def share(label, labels=labels):
        return (labels == label).double().mean().item()

    assert len({share(label, these) for label in (3, 4) for these in (labels, images.part(part).labels)} - {0.0}) == 4
    own, average = Says(3, fragile=True).train(), Says(4).train()
    networks = [Weights(own, "", "", ""), Weights(average, "average_", "", "")]
    assert Validation.of(recipe, images, networks, 1, print).accuracies() == {
        "validation_accuracy": share(3),
        "validation_pgd_accuracy": 0,
        "average_validation_accuracy": share(4),
        "average_validation_pgd_accuracy": share(4),
    }
    assert own.training
    assert average.training


def test_the_best_epoch_is_the_first_of_the_highest_accuracy_even_if_that_is_nothing():
    weights = Weights(Says(3), "average_", "last", "best")
    found = [
        improved(
            weights, {"epoch": number, "average_validation_pgd_accuracy": accuracy, "validation_pgd_accuracy": 1.0}
        )
        for number, accuracy in enumerate([0.0, 0.0, 0.5, 0.5, 0.4], 1)
    ]
    assert found == [True, False, True, False, False]
    assert (weights.best.epoch, weights.best.accuracy) == (3, 0.5)
    assert not improved(Weights(Says(3), "", "last", "best"), {"epoch": 1})
