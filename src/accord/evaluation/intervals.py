"""Confidence intervals: of paired differences (the same prompts answered by two policies) and of shares."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean with its interval."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def paired_bootstrap(differences: Sequence[float], *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """Mean of paired differences and its percentile bootstrap interval (Efron 1979), resampling prompts.

    Args:
        differences: after minus before, one a prompt.
        level: coverage, 0 to 1.
    """
    count = len(differences)
    if count == 0:
        return Interval(0.0, 0.0, 0.0, 0)
    generator = random.Random(seed)
    means = sorted(sum(generator.choices(differences, k=count)) / count for _ in range(draws))
    tail = (1 - level) / 2
    low, high = means[int(tail * draws)], means[min(draws - 1, int((1 - tail) * draws))]
    return Interval(sum(differences) / count, low, high, count)


def wilson(share: float, count: int, *, z: float = 1.959964) -> Interval:
    """A share of `count` trials and its score interval (Wilson 1927), which stays inside 0 to 1 and is honest near the ends.

    Args:
        share: successes over trials, 0 to 1.
        z: normal quantile; 1.96 gives 95 %.
    """
    if count == 0:
        return Interval(share, 0.0, 1.0, 0)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half), count)
