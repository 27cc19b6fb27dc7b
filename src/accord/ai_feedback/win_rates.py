"""How often one model beats another by a judge's word: as it is, with answers of equal length, and corrected by what people said of some."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from accord.errors import DataError
from accord.evaluation.intervals import Interval, paired_bootstrap

STRATA = 5


def win_rate(probabilities: Sequence[float], *, seed: int = 0) -> Interval:
    """Mean probability that the first model's answer is better, with a bootstrap interval over comparisons."""
    return paired_bootstrap(probabilities, seed=seed)


def length_controlled(
    probabilities: Sequence[float], first_lengths: Sequence[int], second_lengths: Sequence[int], *, draws: int = 2000, seed: int = 0
) -> tuple[Interval, int]:
    """The win rate if each model's answer had been the longer one equally often, at every size of the difference.

    Comparisons fall into five strata by how far the lengths differ, and one more for equal lengths. In each, those where the first answer
    is longer weigh as much as those where the second is. A judge that sees nothing but lengths gets 0.5, however it uses them. (AlpacaEval
    2 fits a logistic function of the difference, Dubois et al. 2024, arXiv:2404.04475; a judge that always prefers the longer answer is a
    step, which that misses.)

    Returns:
        the rate with its bootstrap interval, and how many comparisons it rests on: a stratum where one model is always the longer says nothing.
    Raises:
        DataError: if no stratum says anything.
    """
    judged, gaps = np.asarray(probabilities, dtype=float), np.asarray(first_lengths, dtype=float) - np.asarray(second_lengths, dtype=float)
    stratum = _strata(gaps)
    value, used = _balanced(judged, gaps, stratum)
    if value is None:
        raise DataError("One model's answers are always the longer ones: no win rate at equal length follows from these comparisons.")
    generator = np.random.default_rng(seed)
    drawn = (generator.integers(len(judged), size=len(judged)) for _ in range(draws))
    found = sorted(one for places in drawn if (one := _balanced(judged[places], gaps[places], stratum[places])[0]) is not None)
    low, high = found[int(0.025 * len(found))], found[min(len(found) - 1, int(0.975 * len(found)))]
    return Interval(value, low, high, len(judged)), used


def prediction_powered(
    judged: Sequence[float], judged_too: Sequence[float], human: Sequence[float], *, level: float = 0.95, weight: float | None = None
) -> Interval:
    """The win rate that people would give, from a judge's word on many comparisons and both on a few (Angelopoulos et al. 2023, arXiv:2301.09633).

    theta = w mean(judged) + mean(human - w judged_too), with the variances of both means: whatever the judge's bias is, the few show it.

    Args:
        judged: the judge's probability that the first model wins, where people said nothing.
        judged_too: the same where people judged too; drawn at random from all.
        human: what people said of those, 0 to 1.
        level: coverage, 0 to 1.
        weight: w, how much of the judge is used. None: the one with the least variance (Angelopoulos et al. 2023, arXiv:2311.01453),
            so that a judge worth nothing costs nothing. 1 is the plain estimate.
    Raises:
        DataError: if there are fewer than two of a kind, or the two lists of the few differ in length.
    """
    many, few, truth = (np.asarray(values, dtype=float) for values in (judged, judged_too, human))
    if len(few) != len(truth) or len(few) < 2 or len(many) < 2:
        raise DataError(
            f"{len(many)} comparisons by the judge, {len(few)} by the judge and {len(truth)} by people: two or more of each are needed."
        )
    used = _least_variance(many, few, truth) if weight is None else weight
    rest = truth - used * few
    value = used * many.mean() + rest.mean()
    deviation = math.sqrt(used**2 * many.var(ddof=1) / len(many) + rest.var(ddof=1) / len(few))
    half = NormalDist().inv_cdf((1 + level) / 2) * deviation
    return Interval(float(value), float(value - half), float(value + half), len(many) + len(few))


def _least_variance(many: np.ndarray, few: np.ndarray, truth: np.ndarray) -> float:
    """w = cov(human, judge) / ((1 + n / N) var(judge)), kept between 0 and 1."""
    variance = float(np.concatenate((many, few)).var(ddof=1))
    shared = float(np.cov(truth, few)[0, 1])
    return min(1.0, max(0.0, shared / ((1 + len(few) / len(many)) * variance))) if variance > 0 else 0.0


def _strata(gaps: np.ndarray) -> np.ndarray:
    """0 for equal lengths, then 1 to 5 with as many comparisons each, by how far the lengths differ."""
    far = np.abs(gaps)
    found = np.zeros(len(gaps), dtype=int)
    unequal = far > 0
    if unequal.any():
        edges = np.quantile(far[unequal], np.arange(1, STRATA) / STRATA)
        found[unequal] = 1 + np.searchsorted(edges, far[unequal], side="left")
    return found


def _balanced(judged: np.ndarray, gaps: np.ndarray, stratum: np.ndarray) -> tuple[float | None, int]:
    """Mean over strata, weighted by their size, of the mean of both sides' means; and how many comparisons stand behind it."""
    total, used = 0.0, 0
    for one in range(STRATA + 1):
        longer, shorter = judged[(stratum == one) & (gaps > 0)], judged[(stratum == one) & (gaps < 0)]
        equal = judged[(stratum == one) & (gaps == 0)]
        sides = [equal] if one == 0 else [longer, shorter]
        if not all(len(side) for side in sides):
            continue
        count = sum(map(len, sides))
        total += count * float(np.mean([side.mean() for side in sides]))
        used += count
    return (total / used if used else None), used
