"""Confidence intervals for paired comparisons: the same prompts answered by two policies."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile-bootstrap interval."""

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
