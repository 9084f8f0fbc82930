"""What a count of right and wrong images says, and what a difference between two says.

One network on n images: Wilson's interval. Two networks on the same n images: McNemar's exact test of those on which
they differ, and the bootstrap over images. k networks of k seeds on the same n images: an interval that counts both the
images and the seeds as drawn.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, t

CONFIDENCE = 0.95
RESAMPLES = 10_000


class Interval(NamedTuple):
    """At 95%, fractions."""

    low: float
    high: float


class Paired(NamedTuple):
    """The second of two networks against the first, on the same `n` images: it has `gained` some and `lost` others."""

    n: int
    gained: int
    lost: int

    @classmethod
    def of(cls, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> "Paired":
        """(n,), (n,) -> what was right with one alone."""
        return cls(len(first), int((second & ~first).sum()), int((first & ~second).sum()))

    @property
    def difference(self) -> float:
        """Of the accuracies."""
        return (self.gained - self.lost) / self.n

    @property
    def p(self) -> float:
        """McNemar's exact, two-sided p: how often a fair coin would divide the images on which the two differ so
        unevenly, or more."""
        differ = self.gained + self.lost
        return float(binomtest(self.gained, differ).pvalue) if differ else 1.0

    @property
    def interval(self) -> Interval:
        """Of the difference, by the percentiles of 10,000 resamples of the images, the same every time. A resample of
        images is a draw of the three counts."""
        shares = np.array([self.gained, self.lost, self.n - self.gained - self.lost]) / self.n
        drawn = np.random.default_rng(0).multinomial(self.n, shares, RESAMPLES)
        low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / self.n, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return Interval(float(low), float(high))


def holm(found: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm, 1979), in the same order: where nothing differs, the chance that
    any of them is below 0.05 is at most 0.05, however they depend on each other."""
    order = sorted(range(len(found)), key=lambda index: found[index])
    corrected, largest = [0.0] * len(found), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(found) - rank) * found[index]))
        corrected[index] = largest
    return corrected


def wilson(correct: int, n: int) -> Interval:
    """Of an accuracy."""
    found = binomtest(correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(found.low), float(found.high))


def pooled(values: NDArray[np.float64]) -> Interval:
    """Of the mean of `values` (k seeds, n images), where other seeds and other images could have been drawn.

    The variance of the mean is that of the images' means over n, and that of the seeds' means over k; each holds a
    share of what is left between image and seed, which is so counted twice. Student's t with Satterthwaite's degrees of
    freedom. The variance of two seeds is so uncertain that of two the interval can hold the truth in 87 of 100 cases
    only, of five in 95. ValueError for a single seed.
    """
    mean, half = float(values.mean()), _half(values)
    return Interval(mean - half, mean + half)


def pooled_accuracy(verdicts: NDArray[np.float64]) -> Interval:
    """The same of an accuracy, (k seeds, n images) of 0 and 1, which ends at 0 and 1: Wilson's interval, of as many
    images as would have that variance (Korn and Graubard, 1998). Where nothing varies, of n."""
    mean, half = float(verdicts.mean()), _half(verdicts)
    if not half:
        return wilson(round(mean * verdicts.shape[1]), verdicts.shape[1])
    # z squared over that number of images: z is the quantile of Student's t, which is in `half`.
    share = half**2 / (mean * (1 - mean))
    middle, arm = mean + share / 2, math.sqrt(half**2 + share**2 / 4)
    return Interval((middle - arm) / (1 + share), (middle + arm) / (1 + share))


def _half(values: NDArray[np.float64]) -> float:
    """Half of the width of `pooled`."""
    k, n = values.shape
    if k < 2:
        raise ValueError("one seed says nothing of others")
    by_image = values.mean(axis=0).var(ddof=1) / n if n > 1 else 0.0
    by_seed = values.mean(axis=1).var(ddof=1) / k
    variance = float(by_image + by_seed)
    if not variance:
        return 0.0
    freedom = variance**2 / (by_image**2 / max(n - 1, 1) + by_seed**2 / (k - 1))
    return float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
