"""Shares with what can be said about them: exact binomial tails and intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from accord.evaluation.intervals import wilson


@dataclass(frozen=True)
class Rate:
    """So many hits of so many tries."""

    hits: int
    count: int
    share: float | None
    """None without a try."""
    low: float | None
    high: float | None
    """Score interval (Wilson 1927)."""
    p_value: float | None = None
    """Exact two-sided binomial probability of a share at least as improbable as this one, where a share was expected."""

    @property
    def words(self) -> str:
        """As in "71 % of the time (63 to 78 %)"."""
        if self.share is None or self.low is None or self.high is None:
            return "never yet"
        return f"{100 * self.share:.0f} % of the time ({100 * self.low:.0f} to {100 * self.high:.0f} %)"


def rate(hits: int, count: int, *, expected: float | None = None, level: float = 0.95) -> Rate:
    """A share with its interval.

    Args:
        expected: the share that chance gives, 0 to 1; None computes no p-value.
        level: coverage, 0 to 1.
    """
    if count == 0:
        return Rate(0, 0, None, None, None)
    interval = wilson(hits / count, count, z=quantile(level))
    p_value = None if expected is None else two_sided(hits, count, expected)
    return Rate(hits, count, hits / count, interval.low, interval.high, p_value)


def quantile(level: float) -> float:
    """How many standard deviations to either side hold this share of a normal distribution; 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)


def two_sided(hits: int, count: int, chance: float) -> float:
    """Exact binomial test: the probability of all outcomes that are no more probable than this one."""
    terms = _probabilities(count, chance)
    return min(1.0, sum(term for term in terms if term <= terms[hits] * (1 + 1e-9)))


def at_least(hits: int, count: int, chance: float) -> float:
    """Probability of `hits` or more of `count` tries."""
    return min(1.0, sum(_probabilities(count, chance)[max(0, hits) :]))


def _probabilities(count: int, chance: float) -> list[float]:
    if chance <= 0.0 or chance >= 1.0:
        return [float(hits == (count if chance >= 1.0 else 0)) for hits in range(count + 1)]
    yes, no, whole = math.log(chance), math.log1p(-chance), math.lgamma(count + 1)
    return [
        math.exp(whole - math.lgamma(hits + 1) - math.lgamma(count - hits + 1) + hits * yes + (count - hits) * no)
        for hits in range(count + 1)
    ]
