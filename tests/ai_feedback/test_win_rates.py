"""Win rates: at equal length, and corrected by what people said (science T7.1, T7.4)."""

from __future__ import annotations

import numpy as np
import pytest

from accord.ai_feedback.win_rates import length_controlled, prediction_powered, win_rate
from accord.errors import DataError


@pytest.mark.parametrize("hard", [True, False])
def test_a_judge_of_length_has_one_half_at_equal_length(hard: bool) -> None:
    generator = np.random.default_rng(3)
    first, second = generator.lognormal(5.0, 0.6, 1000).astype(int), generator.lognormal(4.6, 0.6, 1000).astype(int)
    gap = first - second
    judged = (gap > 0) + 0.5 * (gap == 0) if hard else 1 / (1 + np.exp(-2 * np.sign(gap)))
    rate, used = length_controlled(judged.tolist(), first.tolist(), second.tolist(), draws=200)
    assert win_rate(judged.tolist()).low > 0.58 and rate.mean == pytest.approx(0.5, abs=1e-9) and used == 1000
    assert rate.low <= 0.5 <= rate.high


def test_quality_remains_at_equal_length() -> None:
    """The first model wins seven times of ten at any length, and its answers are longer: length control leaves the 0.7."""
    generator = np.random.default_rng(0)
    first, second = generator.integers(50, 150, 4000), generator.integers(20, 120, 4000)
    judged = (generator.random(4000) < 0.7).astype(float)
    rate, _ = length_controlled(judged.tolist(), first.tolist(), second.tolist(), draws=200)
    assert rate.mean == pytest.approx(0.7, abs=0.03) and rate.low < 0.7 < rate.high


def test_strata_by_hand() -> None:
    """One stratum only has both sides: gaps of 1, judged 1 and 0.5 where the first is longer, 0 where it is shorter: (0.75 + 0) / 2.
    Equal lengths stand for themselves: 1. Of four comparisons three weigh 0.375 and one weighs 1."""
    rate, used = length_controlled([1.0, 0.5, 0.0, 1.0], [2, 2, 1, 5], [1, 1, 2, 5], draws=10)
    assert rate.mean == pytest.approx((3 * 0.375 + 1.0) / 4) and used == 4


def test_a_model_that_is_always_longer_has_no_rate_at_equal_length() -> None:
    with pytest.raises(DataError, match="always the longer"):
        length_controlled([1.0, 1.0], [5, 6], [1, 2])


def simulated(generator: np.random.Generator, few: int, many: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """People prefer the first with 0.6; the judge's probabilities follow theirs and lie 0.1 too high on average."""
    human = (generator.random(few + many) < 0.6).astype(float)
    judged = np.clip(0.7 + 0.5 * (human - 0.6) + generator.normal(0, 0.1, few + many), 0, None)
    return judged[few:], judged[:few], human[:few]


@pytest.mark.parametrize("weight", [1.0, None])
def test_intervals_cover_the_truth_and_the_naive_ones_do_not(weight: float | None) -> None:
    """A judge that is 0.1 too kind, 200 of 5,000 comparisons judged by people too, 1,000 times: 95 % give or take 2."""
    generator = np.random.default_rng(11)
    covered, naive = 0, 0
    for _ in range(1000):
        judged, too, human = simulated(generator, 200, 4800)
        found = prediction_powered(judged.tolist(), too.tolist(), human.tolist(), weight=weight)
        covered += found.low <= 0.6 <= found.high
        half = 1.96 * float(judged.std(ddof=1)) / np.sqrt(len(judged))
        naive += abs(judged.mean() - 0.6) <= half
    assert 930 <= covered <= 970 and naive < 10


def test_the_judge_narrows_the_interval_and_a_useless_one_does_no_harm() -> None:
    generator = np.random.default_rng(5)
    judged, too, human = simulated(generator, 200, 4800)
    powered = prediction_powered(judged.tolist(), too.tolist(), human.tolist())
    people = 2 * 1.96 * float(human.std(ddof=1)) / np.sqrt(200)
    assert powered.high - powered.low < 0.75 * people
    noise = generator.random(5000)
    useless = prediction_powered(noise[200:].tolist(), noise[:200].tolist(), human.tolist())
    plain = prediction_powered(noise[200:].tolist(), noise[:200].tolist(), human.tolist(), weight=1.0)
    assert useless.high - useless.low < 1.02 * people < plain.high - plain.low


def test_the_plain_estimate_by_hand() -> None:
    """Judge 0.75 on the many, 0.5 too kind on one of two: 0.75 - 0.25."""
    found = prediction_powered([0.5, 1.0], [1.0, 0.5], [0.5, 0.5], weight=1.0)
    assert found.mean == pytest.approx(0.5)


def test_too_few_are_refused() -> None:
    with pytest.raises(DataError, match="two or more of each"):
        prediction_powered([0.5, 0.5], [0.5], [1.0])
