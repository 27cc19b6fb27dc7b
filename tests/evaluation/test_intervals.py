"""Intervals cover what they say they cover, and equal what can be worked out by hand."""

from __future__ import annotations

import random

import pytest

from accord.evaluation.intervals import paired_bootstrap, wilson


def test_known_answers() -> None:
    same = paired_bootstrap([0.5] * 20)
    assert (same.mean, same.low, same.high, same.count) == (0.5, 0.5, 0.5, 20) and same.excludes_zero
    assert paired_bootstrap([]).count == 0 and not paired_bootstrap([]).excludes_zero
    one = paired_bootstrap([-1.0])
    assert (one.low, one.high) == (-1.0, -1.0) and one.excludes_zero


def test_two_differences_by_hand() -> None:
    """The mean of two draws from {0, 1} is 0, 1/2, 1 with probability 1/4, 1/2, 1/4: 2.5 % and 97.5 % are the ends, 30 % and 70 % the middle."""
    whole, middle = paired_bootstrap([0.0, 1.0]), paired_bootstrap([0.0, 1.0], level=0.4)
    assert (whole.low, whole.high, whole.excludes_zero) == (0.0, 1.0, False)
    assert (middle.low, middle.high) == (0.5, 0.5)


def test_close_to_the_normal_interval() -> None:
    """For 400 differences the percentile interval is mean +- 1.96 s / sqrt(n), up to Monte Carlo error."""
    generator = random.Random(3)
    values = [generator.gauss(0.2, 1.0) for _ in range(400)]
    mean = sum(values) / 400
    half = 1.96 * (sum((value - mean) ** 2 for value in values) / 400) ** 0.5 / 20
    found = paired_bootstrap(values)
    assert found.mean == pytest.approx(mean, abs=1e-12)
    assert found.low == pytest.approx(mean - half, abs=0.1 * half) and found.high == pytest.approx(mean + half, abs=0.1 * half)


def test_sign_and_shift() -> None:
    generator = random.Random(4)
    values = [generator.random() - 0.4 for _ in range(60)]
    found, moved = paired_bootstrap(values), paired_bootstrap([value + 3 for value in values])
    turned = paired_bootstrap([-value for value in values])
    assert moved.low == pytest.approx(found.low + 3) and moved.high == pytest.approx(found.high + 3)
    assert turned.low == pytest.approx(-found.high, abs=0.01) and turned.high == pytest.approx(-found.low, abs=0.01)


def test_coverage() -> None:
    """Over 200 data sets of 40 differences with true mean 0.1, the 90 % interval holds it in about 90 % (within four binomial deviations, 2.1 points each)."""
    generator = random.Random(5)
    hits = 0
    for index in range(200):
        found = paired_bootstrap([generator.gauss(0.1, 1.0) for _ in range(40)], level=0.9, draws=300, seed=index)
        hits += found.low <= 0.1 <= found.high
    assert 0.815 <= hits / 200 <= 0.975


def test_wilson_by_hand() -> None:
    """With z = 2 and 8 of 16: middle (0.5 + 2/16) / (1 + 4/16) = 0.5; half width 2 / 1.25 * sqrt(0.25/16 + 4/1024) = 1.6 * sqrt(5) / 16."""
    found = wilson(0.5, 16, z=2.0)
    half = 1.6 * 5**0.5 / 16
    assert (found.low, found.high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))
    assert wilson(1.0, 16, z=2.0).low == pytest.approx(16 / 20) and wilson(1.0, 16, z=2.0).high == 1.0  # n / (n + z^2)
    assert (wilson(0.3, 0).low, wilson(0.3, 0).high) == (0.0, 1.0)
