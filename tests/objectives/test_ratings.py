"""Ratings from wins (science T11.3): known answers, the likelihood, and when there are none."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accord.errors import DataError
from accord.objectives.ratings import ELO_POINTS, bradley_terry_strengths, log_likelihood, win_probability

NAMES = ("a", "b", "c", "d")


def test_two_players_are_the_log_of_the_odds() -> None:
    """64 of 100 is 400 log10(64 / 36) = 99.95 points."""
    found = bradley_terry_strengths(torch.tensor([[0.0, 64.0], [36.0, 0.0]]), NAMES[:2])
    assert float(found[0] - found[1]) == pytest.approx(math.log(64 / 36), abs=1e-12)
    assert ELO_POINTS * float(found[0] - found[1]) == pytest.approx(99.95, abs=0.005)
    assert float(win_probability(found[0] - found[1])) == pytest.approx(0.64, abs=1e-12)
    assert float(found.sum()) == pytest.approx(0.0, abs=1e-12)


def test_strengths_come_back_from_their_own_chances() -> None:
    """Wins in exact proportion to known strengths: the likeliest strengths are these, far apart ones too."""
    known = torch.tensor([3.0, 0.5, -0.5, -3.0], dtype=torch.float64)
    wins = torch.sigmoid(known[:, None] - known[None, :]) * torch.tensor([[0, 7, 1, 9], [7, 0, 2, 4], [1, 2, 0, 30], [9, 4, 30, 0]])
    assert bradley_terry_strengths(wins, NAMES).tolist() == pytest.approx(known.tolist(), abs=1e-8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.floats(0.05, 20.0), min_size=12, max_size=12))
def test_nothing_is_likelier_and_names_do_not_matter(counts: list[float]) -> None:
    wins = torch.zeros(4, 4, dtype=torch.float64)
    wins[~torch.eye(4, dtype=torch.bool)] = torch.tensor(counts, dtype=torch.float64)
    found = bradley_terry_strengths(wins, NAMES)
    best = float(log_likelihood(wins, found))
    assert float(log_likelihood(wins, found + 5.0)) == pytest.approx(best)  # a constant says nothing
    for index in range(4):
        for step in (0.01, -0.01):
            moved = found.clone()
            moved[index] += step
            assert float(log_likelihood(wins, moved)) < best
    order = torch.tensor([2, 0, 3, 1])
    assert bradley_terry_strengths(wins[order][:, order], NAMES).tolist() == pytest.approx(found[order].tolist(), abs=1e-7)


def test_one_sided_chances_end_too() -> None:
    """999 of 1,000 from a standing start: Newton would leap far beyond."""
    found = bradley_terry_strengths(torch.tensor([[0.0, 999.0], [1.0, 0.0]]), NAMES[:2])
    assert float(found[0] - found[1]) == pytest.approx(math.log(999), abs=1e-8)


def test_where_there_is_no_likeliest_rating() -> None:
    apart = torch.zeros(4, 4)
    apart[0, 1] = apart[1, 0] = apart[2, 3] = apart[3, 2] = 1.0
    with pytest.raises(DataError, match="a and c, d never met"):
        bradley_terry_strengths(apart, NAMES)
    always = torch.tensor([[0.0, 3.0, 2.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    with pytest.raises(DataError, match="a never lost to the others"):
        bradley_terry_strengths(always, NAMES[:3])
    with pytest.raises(DataError, match="a, b never lost to the others"):
        bradley_terry_strengths(torch.tensor([[0.0, 3.0, 2.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), NAMES[:3])
