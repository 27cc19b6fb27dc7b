"""Choosing among answers: closed forms against every subset written out, known answers, and what ties do."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from accord.errors import ShapeError
from accord.objectives.selection import best_of_n, best_of_n_kl, best_of_n_weights, majority_vote, pass_at_k, votes, weighted_vote

SIZES = [(count, n) for count in range(1, 7) for n in range(1, count + 1)]


def d(*rows: list[float]) -> Tensor:
    return tensor(rows, dtype=torch.float64)


def by_hand(scores: list[float], values: list[float], n: int) -> float:
    """Every subset of n in turn: the mean value of those of its answers that share its highest score."""
    found = []
    for subset in combinations(range(len(scores)), n):
        highest = max(scores[i] for i in subset)
        chosen = [values[i] for i in subset if scores[i] == highest]
        found.append(sum(chosen) / len(chosen))
    return sum(found) / len(found)


@pytest.mark.parametrize(("k", "expected"), [(1, 0.3), (2, 0.533333), (5, 0.916667)])
def test_pass_at_k_golden(k: int, expected: float) -> None:
    """Three of ten right: 3/10; 1 - C(7,2)/C(10,2) = 1 - 21/45; 1 - C(7,5)/C(10,5) = 1 - 21/252."""
    right = d([1.0] * 3 + [0.0] * 7)
    assert float(pass_at_k(right, k=k)) == pytest.approx(expected, abs=1e-6)
    assert float(pass_at_k(right, k=k)) == pytest.approx(1 - math.comb(7, k) / math.comb(10, k), abs=1e-14)
    assert float(pass_at_k(right.bool().flip(1), k=k)) == float(pass_at_k(right, k=k))


def test_pass_at_k_at_its_ends() -> None:
    assert pass_at_k(d([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]), k=3).tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(("count", "n"), SIZES)
def test_best_of_n_is_the_mean_over_all_subsets(count: int, n: int) -> None:
    """Without ties, with some, and all equal."""
    for scores in ([0.3 * i * i - i for i in range(count)], [float(i % 3) for i in range(count)], [2.0] * count):
        values = [math.sin(3.0 * i) for i in range(count)]
        assert float(best_of_n(d(scores), d(values), n=n)) == pytest.approx(by_hand(scores, values, n), abs=1e-13)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(-2, 2), st.floats(-3, 3)), min_size=1, max_size=7), data=st.data())
def test_best_of_n_with_any_ties(rows: list[tuple[int, float]], data: st.DataObject) -> None:
    scores, values = [float(score) for score, _ in rows], [value for _, value in rows]
    n = data.draw(st.integers(1, len(rows)))
    assert float(best_of_n(d(scores), d(values), n=n)) == pytest.approx(by_hand(scores, values, n), abs=1e-12)
    weights = best_of_n_weights(d(scores), n=n)
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12) and bool((weights >= 0).all())
    order = data.draw(st.permutations(range(len(rows))))
    moved = best_of_n(d([scores[i] for i in order]), d([values[i] for i in order]), n=n)
    assert float(moved) == pytest.approx(float(best_of_n(d(scores), d(values), n=n)), abs=1e-12)


def test_pass_at_k_is_the_best_of_k_by_a_true_score() -> None:
    right = d([1.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0])
    for k in range(1, 6):
        assert torch.allclose(best_of_n(right, right, n=k), pass_at_k(right, k=k), rtol=0, atol=1e-14)


def test_choosing_by_the_opposite_of_what_counts() -> None:
    """The best of n by -x among 1, 2, 3 is the lowest: (1 + 1 + 2) / 3 of the pairs, 1 of all three; one answer is the mean."""
    x = d([1.0, 2.0, 3.0])
    assert [float(best_of_n(-x, x, n=n)) for n in (1, 2, 3)] == pytest.approx([2.0, 4 / 3, 1.0], abs=1e-14)


def test_what_has_no_score_is_chosen_last() -> None:
    """Two of three without a score: the third is in 2 of the 3 pairs; in the pair without it the other two share."""
    weights = best_of_n_weights(d([-math.inf, 0.5, -math.inf]), n=2)
    assert torch.allclose(weights, d([1 / 6, 2 / 3, 1 / 6]), rtol=0, atol=1e-14)


def test_many_answers_stay_exact() -> None:
    """N = 512: the highest of 256 of the scores 0..511 is on average n (N + 1) / (n + 1) - 1, a known mean of order statistics."""
    scores = torch.arange(512, dtype=torch.float64)[None]
    assert float(best_of_n(scores, scores, n=256)) == pytest.approx(256 * 513 / 257 - 1, rel=1e-12)


def test_the_estimate_is_unbiased() -> None:
    """Over every table of 4 draws from three answers with probabilities 1/2, 1/3, 1/6, the mean estimate is the exact best of n."""
    scores, values, odds = [0.0, 1.0, 1.0], [5.0, -1.0, 2.0], [1 / 2, 1 / 3, 1 / 6]

    def exact(draws: int) -> dict[tuple[int, ...], float]:
        found: dict[tuple[int, ...], float] = {(): 1.0}
        for _ in range(draws):
            found = {(*drawn, i): chance * odds[i] for drawn, chance in found.items() for i in range(3)}
        return found

    for n in (1, 2, 3):
        expected = sum(p * by_hand([scores[i] for i in drawn], [values[i] for i in drawn], n) for drawn, p in exact(n).items())
        mean = sum(p * float(best_of_n(d([scores[i] for i in drawn]), d([values[i] for i in drawn]), n=n)) for drawn, p in exact(4).items())
        assert mean == pytest.approx(expected, abs=1e-12)


def test_kl_bound() -> None:
    """log 4 - 3/4, and the exact KL of the best of n among m equally likely answers with different scores comes near it from below.

    The answer of rank i (of m) is chosen with probability (i/m)^n - ((i-1)/m)^n."""
    assert best_of_n_kl(1) == 0.0 and best_of_n_kl(4) == pytest.approx(1.386294361 - 0.75, abs=1e-9)
    for n in (2, 4, 16):
        kls = []
        for m in (3, 30, 3000):
            chosen = [(i / m) ** n - ((i - 1) / m) ** n for i in range(1, m + 1)]
            kls.append(sum(p * math.log(p * m) for p in chosen if p > 0))
        assert kls[0] < kls[1] < kls[2] <= best_of_n_kl(n) and kls[2] == pytest.approx(best_of_n_kl(n), abs=0.01)


def test_votes() -> None:
    answers, scores = ["7", None, "8", "8", "7", "9"], [0.9, 5.0, 0.2, 0.3, 0.1, 0.7]
    assert votes(answers) == {"7": 2.0, "8": 2.0, "9": 1.0}
    assert majority_vote(answers) == "7" and majority_vote(answers[1:]) == "8"  # of a tie the first
    assert weighted_vote(answers, scores) == "7" and weighted_vote(answers[1:], scores[1:]) == "9"
    assert votes(answers, scores)["8"] == pytest.approx(0.5)
    assert majority_vote([None, None]) is None and weighted_vote([], []) is None


def test_what_cannot_be_chosen_is_an_error() -> None:
    for n in (0, 4):
        with pytest.raises(ShapeError, match="take 1 to 3"):
            best_of_n_weights(d([1.0, 2.0, 3.0]), n=n)
        with pytest.raises(ShapeError, match="take 1 to 3"):
            pass_at_k(d([1.0, 0.0, 1.0]), k=n)
    with pytest.raises(ShapeError, match="NaN"):
        best_of_n_weights(d([1.0, math.nan]), n=1)
    with pytest.raises(ShapeError, match="same shape"):
        best_of_n(d([1.0, 2.0]), d([1.0]), n=1)
    with pytest.raises(ShapeError, match="a table"):
        pass_at_k(tensor([1.0]), k=1)
    with pytest.raises(ShapeError, match="one weight an answer"):
        votes(["a"], [])
