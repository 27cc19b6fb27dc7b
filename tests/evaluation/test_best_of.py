"""The best-of-n curve: worked out by hand, votes over blocks, and answers that could not be scored."""

from __future__ import annotations

import math
import random

import pytest

from accord.errors import DataError
from accord.evaluation.best_of import ScoredAnswers, best_of_curve, sizes_up_to


def test_sizes() -> None:
    assert [sizes_up_to(count) for count in (1, 2, 3, 4, 6, 16)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4], [1, 2, 4, 6], [1, 2, 4, 8, 16]]


def test_a_curve_by_hand() -> None:
    """Two prompts of three answers. Best of 2 of scores 1, 2, 3: pairs choose 2, 3, 3, worth 1, 0, 0 and, with scores 3, 2, 1 and worths
    1, 1, 0, pairs choose 3, 3, 2, worth 1, 1, 1. So the proxy is 8/3 and the truth (1/3 + 1)/2; of all three 3 and (0 + 1)/2."""
    prompts = [ScoredAnswers((1.0, 2.0, 3.0), (0.0, 1.0, 0.0)), ScoredAnswers((3.0, 2.0, 1.0), (1.0, 1.0, 0.0))]
    one, two, three = best_of_curve(prompts)
    assert [point.n for point in (one, two, three)] == [1, 2, 3]
    assert [point.proxy for point in (one, two, three)] == pytest.approx([2.0, 8 / 3, 3.0])
    assert [point.kl_bound for point in (one, two, three)] == pytest.approx([0.0, math.log(2) - 0.5, math.log(3) - 2 / 3])
    assert one.true and two.true and three.true and two.gain
    assert [one.true.mean, two.true.mean, three.true.mean] == pytest.approx([0.5, 2 / 3, 0.5])
    assert (two.true.low, two.true.high) == pytest.approx((1 / 3, 1.0))  # two prompts: the ends of the interval are theirs
    assert two.gain.mean == pytest.approx(1 / 6) and (two.gain.low, two.gain.high) == pytest.approx((0.0, 1 / 3))
    assert [point.pass_at_n for point in (one, two, three)] == pytest.approx([0.5, (2 / 3 + 1) / 2, 1.0])
    assert one.majority is None and one.weighted is None


def test_without_true_rewards_and_with_others_than_0_and_1() -> None:
    plain = best_of_curve([ScoredAnswers((1.0, 2.0))])
    assert [(point.true, point.gain, point.pass_at_n) for point in plain] == [(None, None, None)] * 2
    some = best_of_curve([ScoredAnswers((1.0, 2.0), (0.5, 1.0))])
    assert some[0].pass_at_n is None and some[1].true is not None and some[1].true.mean == 1.0


def test_answers_without_a_score_are_chosen_last() -> None:
    """Pairs of (none, 1, 0.5): 1, 0.5, 1; the proxy is the mean over these. Alone, the unscored one counts for the truth and not for the proxy."""
    one, two, three = best_of_curve([ScoredAnswers((None, 1.0, 0.5), (9.0, 3.0, 6.0))])
    assert one.true and two.true and three.true
    assert (one.proxy, one.true.mean) == pytest.approx((0.75, 6.0))
    assert (two.proxy, two.true.mean) == pytest.approx((2.5 / 3, 4.0))
    assert (three.proxy, three.true.mean) == pytest.approx((1.0, 3.0))
    with pytest.raises(DataError, match="No answer has a reward"):
        best_of_curve([ScoredAnswers((None, None))])
    with pytest.raises(DataError, match="nothing to choose from"):
        best_of_curve([])


def test_votes_by_hand() -> None:
    """Four answers 7, 8, 8, none; 7 is right. Blocks of 2: (7, 8) ties and the first, 7, is taken, weights 0.2 and 0.9 take 8; (8, none)
    takes 8. All four: the majority is 8; weighted 8 too (0.9 + 0.1 against 0.2)."""
    row = ScoredAnswers((0.2, 0.9, 0.1, 5.0), (1.0, 0.0, 0.0, 0.0), ("7", "8", "8", None))
    points = best_of_curve([row])
    assert [point.majority.mean for point in points if point.majority] == [0.25, 0.5, 0.0]
    assert [point.weighted.mean for point in points if point.weighted] == [0.25, 0.0, 0.0]
    right = ScoredAnswers((0.9, 0.2, 0.3, 0.3), (1.0, 0.0, 0.0, 1.0), ("7", "8", "8", "7"))
    last = best_of_curve([right])[-1]
    assert last.weighted and last.majority and (last.weighted.mean, last.majority.mean) == (1.0, 1.0)
    nothing = ScoredAnswers((0.9, 0.2), (1.0, 0.0), (None, None))
    assert [point.majority.mean for point in best_of_curve([nothing]) if point.majority] == [0.5, 1.0]


def test_a_proxy_that_is_too_good_shows_its_hump() -> None:
    """One answer in 32 fools the proxy and is worth nothing; the others are scored as they are worth, 0 to 30 of 30. By hand: best of n is
    1 - P(the fooling one is in n of 32) = (32 - n)/32 times the mean highest of n of the 31, n (31 + 1)/(n + 1) - 1 of 30."""
    draw = random.Random(3)
    worths = [*(float(i) / 30 for i in range(31)), 0.0]
    rows: list[ScoredAnswers] = []
    for _ in range(5):
        order = draw.sample(range(32), 32)
        rows.append(ScoredAnswers(tuple(2.0 if i == 31 else worths[i] for i in order), tuple(worths[i] for i in order)))
    points = {point.n: point for point in best_of_curve(rows)}
    for n in (1, 2, 4, 8, 16, 32):
        expected = (32 - n) / 32 * ((n * 32 / (n + 1) - 1) / 30) if n < 32 else 0.0
        true = points[n].true
        assert true is not None and true.mean == pytest.approx(expected, abs=1e-9)
    proxies = [points[n].proxy for n in (1, 2, 4, 8, 16, 32)]
    assert proxies == sorted(proxies) and proxies[-1] == pytest.approx(2.0)
