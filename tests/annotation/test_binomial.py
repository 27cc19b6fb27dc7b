"""Tails by hand and by summing them another way."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.annotation.binomial import at_least, quantile, rate, two_sided


def test_by_hand() -> None:
    """8 heads of 10: (45 + 10 + 1) / 1024 to this side, twice that to both. 1 of 3 at one third is the likeliest outcome, so nothing is less probable."""
    assert at_least(8, 10, 0.5) == pytest.approx(56 / 1024) and two_sided(8, 10, 0.5) == pytest.approx(112 / 1024)
    assert two_sided(1, 3, 1 / 3) == pytest.approx(1.0) and two_sided(5, 10, 0.5) == pytest.approx(1.0)
    assert two_sided(60, 60, 0.5) == pytest.approx(2.0**-59, rel=1e-9)
    assert (at_least(0, 5, 0.2), at_least(1, 5, 0.0), at_least(5, 5, 1.0)) == (pytest.approx(1.0), 0.0, 1.0)
    assert quantile(0.95) == pytest.approx(1.959964, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 40), hits=st.integers(0, 40), chance=st.integers(1, 9))
def test_exact_sums(count: int, hits: int, chance: int) -> None:
    """Against fractions, which do not round."""
    hits, share = min(hits, count), Fraction(chance, 10)
    terms = [comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]
    assert at_least(hits, count, chance / 10) == pytest.approx(float(sum(terms[hits:])), rel=1e-9)
    assert two_sided(hits, count, chance / 10) == pytest.approx(float(sum(term for term in terms if term <= terms[hits])), rel=1e-9)


def test_words() -> None:
    assert rate(71, 100).words == "71 % of the time (61 to 79 %)"
    assert rate(0, 0, expected=0.5) == rate(0, 0) and rate(0, 0).words == "never yet"
    assert rate(8, 10).p_value is None and rate(8, 10, expected=0.5).p_value == pytest.approx(112 / 1024)
