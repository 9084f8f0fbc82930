"""An exponential moving average of a network, kept beside it: a <- decay·a + (1 - decay)·w after each update of w.

Against robust overfitting: Gowal et al. 2020, "Uncovering the Limits of Adversarial Training against Norm-Bounded
Adversarial Examples" (arXiv 2010.03593), whose decay and warm-up these are.

The running statistics of the batch norms are averaged as the weights are. They are of activations under the attacks of
the very updates that the averaged weights come from, and to first order the mean over w of statistics μ(w) is μ of the
mean w. The newest ones would be those of other weights; to compute them anew would take an epoch of attacks.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Decay:
    """The share of itself that an average keeps at an update."""

    most: float
    warmup: bool
    """min(most, (1 + t) / (10 + t)) after t updates: the first weights, which are noise, are soon forgotten."""

    def __call__(self, updates: int) -> float:
        """At the update that comes after so many."""
        return min(self.most, (1 + updates) / (10 + updates)) if self.warmup else self.most


class Average:
    """`network`, in eval mode, is the average of the one that is trained, whose tensors stay where they are in memory.
    How many updates it has seen is for the training to say, so that it has no state but its tensors."""

    def __init__(self, trained: nn.Module, decay: Decay) -> None:
        self.network = deepcopy(trained).eval().requires_grad_(False)
        self._decay = decay
        pairs = list(zip(self.network.state_dict().values(), trained.state_dict().values(), strict=True))
        self._means, self._weights = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def follow(self, updates: int) -> None:
        """Take in the weights and buffers as an update has left them that came after so many others; a count is taken
        as it is. Nothing waits for the device, and a captured batch has its graph to itself."""
        torch._foreach_lerp_(self._means, self._weights, 1 - self._decay(updates))  # pyright: ignore[reportPrivateImportUsage]
        for own, count in self._counts:
            own.copy_(count, non_blocking=True)
