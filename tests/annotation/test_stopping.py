"""Sample sizes by arithmetic, and an interval that may be looked at after every comparison."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.annotation.stopping import always_valid, decide, log_mixture, pairs_for_always_valid_width, pairs_for_power, pairs_for_width
from accord.evaluation.intervals import wilson


def test_sizes_by_hand() -> None:
    """1.96^2 * 0.25 / 0.05^2 = 384.1; (1.96 * 0.5 + 0.8416 * sqrt(0.24))^2 / 0.1^2 = 1.39227^2 * 100 = 193.8."""
    assert pairs_for_width(0.05) == 385 and pairs_for_width(0.05, share=0.9) == 139  # 1.96^2 * 0.09 / 0.0025 = 138.3
    assert pairs_for_power(0.6) == 194 == pairs_for_power(0.4)
    assert pairs_for_power(0.55) == pytest.approx(4 * 194, abs=8) and pairs_for_power(0.6, power=0.9) > 194


def test_power_is_what_it_says() -> None:
    """4,000 experiments of 194 comparisons at a win rate of 0.6: 80 % (four deviations are 2.5 points) reject one half."""
    wins = np.random.default_rng(1).binomial(194, 0.6, 4000)
    assert np.mean(np.abs(wins / 194 - 0.5) > 1.959964 * 0.5 / math.sqrt(194)) == pytest.approx(0.8, abs=0.03)


def test_the_mixture_by_hand() -> None:
    """One win against one half with an even mixture: B(2, 1) / B(1, 1) / 0.5 = 0.5 / 0.5 = 1. Two wins: (1/3) / 0.25. One of each: (1/6) / 0.25."""
    assert [log_mixture(wins, count, 0.5, weight=1.0) for wins, count in ((0, 0), (1, 1), (2, 2), (1, 2))] == pytest.approx(
        [0.0, 0.0, math.log(4 / 3), math.log(2 / 3)]
    )
    assert log_mixture(1, 2, 0.0) == math.inf == log_mixture(1, 2, 1.0)


@settings(max_examples=40, deadline=None)
@given(wins=st.integers(0, 60), losses=st.integers(0, 60), share=st.integers(1, 99), weight=st.sampled_from([1.0, 10.0]))
def test_the_mixture_is_a_martingale(wins: int, losses: int, share: int, weight: float) -> None:
    """One more comparison leaves its expectation where it was if the rate is the true one; half a win for a tie never raises it."""
    rate, count = share / 100, wins + losses
    won, lost = (math.exp(log_mixture(wins + more, count + 1, rate, weight=weight)) for more in (1, 0))
    now = math.exp(log_mixture(wins, count, rate, weight=weight))
    assert rate * won + (1 - rate) * lost == pytest.approx(now, rel=1e-9)
    tied = math.exp(log_mixture(wins + 0.5, count + 1, rate, weight=weight))
    assert tied <= (won + lost) / 2 * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(wins=st.integers(0, 80), losses=st.integers(0, 80), tied=st.booleans())
def test_the_ends_are_where_the_mixture_says(wins: int, losses: int, tied: bool) -> None:
    won, count = wins + 0.5 * tied, wins + losses + tied
    found, bound = always_valid(won, count), math.log(20)
    if count == 0:
        assert (found.low, found.high) == (0.0, 1.0)
        return
    assert 0.0 <= found.low <= found.mean <= found.high <= 1.0
    for edge, inside in ((found.low, 1e-6), (found.high, -1e-6)):
        if 1e-9 < edge < 1 - 1e-9:
            assert log_mixture(won, count, edge) >= bound - 1e-6 > log_mixture(won, count, edge + inside) - 2e-6
    other = always_valid(count - won, count)
    assert (other.low, other.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-9)


@pytest.mark.parametrize(("win", "tie"), [(0.5, 0.0), (0.6, 0.0), (0.4, 0.3)])
def test_looking_after_every_comparison(win: float, tie: float) -> None:
    """150 runs of 300 comparisons, looked at after each: the always-valid interval misses the rate at some look in at most 5 % of runs (four deviations: 12 %);
    an interval for one look misses it in a fifth and more."""
    generator, missed, fooled = np.random.default_rng(2), 0, 0
    rate = win + tie / 2
    for _ in range(150):
        drawn = generator.random(300)
        scores = np.cumsum(np.where(drawn < win, 1.0, np.where(drawn < win + tie, 0.5, 0.0)))
        missed += any(log_mixture(float(won), count, rate) >= math.log(20) for count, won in enumerate(scores, 1))
        looks = [wilson(float(won) / count, count) for count, won in enumerate(scores, 1) if count >= 10]
        fooled += any(not look.low <= rate <= look.high for look in looks)
    assert missed / 150 <= 0.12
    if not tie:
        assert fooled / 150 >= 0.2


def test_the_width_costs_looking() -> None:
    count = pairs_for_always_valid_width(0.05)
    here, before = always_valid(count / 2, count), always_valid((count - 1) / 2, count - 1)
    assert here.high - here.low <= 0.1 < before.high - before.low and 2 * 385 < count < 3 * 385


def test_decisions() -> None:
    assert decide(60, 0, 20).stop and decide(60, 0, 20).words.startswith("Stop: the new model wins 75 % of 80")
    assert decide(20, 0, 60).stop and "loses" in decide(20, 0, 60).words
    alike = decide(520, 0, 520)
    assert alike.stop and alike.interval.low < 0.5 < alike.interval.high and "small" in alike.words
    early = decide(6, 2, 4)
    assert (
        not early.stop
        and early.words.startswith("Go on: after 12 comparisons")
        and f"about {pairs_for_always_valid_width(0.05) - 12} more" in early.words
    )
    assert not decide(0, 0, 0).stop
