"""Annotators with a known habit are found by it, and honest ones are not."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.annotation.judgements import LEFT, RIGHT, TIE, Judgement
from accord.annotation.quality import (
    adjudication_queue,
    annotator_report,
    annotator_reports,
    consistency,
    key_chances,
    longest_streak,
    streak_probability,
)

BOTH = ((0, 1), (1, 0))


def swapped_twice(annotator: str, choose, count: int = 30) -> list[Judgement]:
    """Every item shown again with its sides swapped; `choose(item, order)` says which answer is preferred."""
    first = [Judgement(f"i{i}", annotator, choose(i, BOTH[i % 2]), shown_order=BOTH[i % 2]) for i in range(count)]
    again = [replace(one, value=choose(i, BOTH[1 - i % 2]), shown_order=BOTH[1 - i % 2], repeat_of=one.item) for i, one in enumerate(first)]
    return first + again


def test_an_always_left_annotator_is_found() -> None:
    """60 of 60 left: p = 2 * 2^-60. Of 30 swapped repeats all stay left: p = 2 * 2^-30."""
    own = swapped_twice("a", lambda item, order: order[0])
    report = annotator_report(own, key_chances(own))
    assert (
        (report.left.hits, report.left.count) == (60, 60) and report.left.p_value == pytest.approx(2.0**-59) and report.left.p_value < 1e-6
    )
    assert (report.consistency.swapped, report.consistency.stayed_left, report.consistency.stayed_right) == (30, 30, 0)
    assert (
        report.consistency.p_value == pytest.approx(2.0**-29) and report.consistency.p_value < 1e-6 and report.consistency.same.share == 0.0
    )
    assert report.streak.key == LEFT and report.streak.length == 60
    assert "You choose the answer on the left 100 % of the time (94 to 100 %); sides are shuffled, so half is expected." in report.words


def test_a_consistent_annotator_is_not() -> None:
    report = annotator_report(own := swapped_twice("a", lambda item, order: item % 3 == 0), key_chances(own))
    assert report.consistency.same.share == 1.0 and report.consistency.p_value is None and report.left.hits == 30
    assert report.left.p_value == pytest.approx(1.0)


def test_repeats_of_nothing_do_not_count() -> None:
    own = [Judgement("x", "a", 0, repeat_of="y"), Judgement("z", "a", None), Judgement("z", "a", 1, repeat_of="z")]
    assert consistency(own).same.count == 0 and consistency(own).same.share is None


def test_numbers_of_a_report() -> None:
    own = [
        Judgement("a", "ann", 0, seconds=4.0, lengths=(9, 3), gold=0),
        Judgement("b", "ann", 1, seconds=30.0, lengths=(9, 3), gold=0),
        Judgement("c", "ann", TIE, seconds=6.0, lengths=(1, 3)),
        Judgement("d", "ann", 0, lengths=(5, 5)),
        Judgement("e", "ann", None, seconds=1.0),
    ]
    (report,) = annotator_reports(own)
    assert (report.judgements, report.skipped, report.median_seconds) == (4, 1, 6.0)
    assert (report.gold.hits, report.gold.count, report.longer.hits, report.longer.count, report.left.count) == (1, 2, 1, 2, 0)
    assert report.words == (
        "You were right 50 % of the time (9 to 91 %) where the answer is known.",
        "You choose the longer answer 50 % of the time (9 to 91 %).",
    )


def test_streaks_by_hand() -> None:
    """Of 3 fair presses, runs of 3: 2 of 8. Of 4, runs of at least 3: LLLx, xLLL and the same for R, 3 each: 6 of 16."""
    assert streak_probability(3, 3, [0.5, 0.5]) == pytest.approx(2 / 8) and streak_probability(3, 4, [0.5, 0.5]) == pytest.approx(6 / 16)
    assert streak_probability(1, 5, [1.0]) == 1.0 and streak_probability(5, 4, [0.5, 0.5]) == 0.0
    found = longest_streak(["l", "r", "r", "r", "l"], {"l": 0.5, "r": 0.5})
    assert (found.key, found.length) == ("r", 3) and longest_streak([], {}).probability is None


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 6), presses=st.integers(1, 7), weights=st.lists(st.integers(1, 5), min_size=2, max_size=3))
def test_streaks_by_counting(length: int, presses: int, weights: list[int]) -> None:
    """Against every sequence there is."""
    chances = [weight / sum(weights) for weight in weights]
    expected = 0.0
    for keys in product(range(len(chances)), repeat=presses):
        longest = longest_streak(keys, {}).length if length > 1 else 1
        expected += np.prod([chances[key] for key in keys]) if longest >= length else 0.0
    assert streak_probability(length, presses, chances) == pytest.approx(expected if presses >= length else 0.0, abs=1e-12)


def test_a_straight_liner_stands_out_from_the_team() -> None:
    generator = np.random.default_rng(1)
    honest = [
        Judgement(f"i{i}", f"a{a}", int(generator.integers(0, 2)), shown_order=BOTH[int(generator.integers(0, 2))])
        for a in range(3)
        for i in range(100)
    ]
    lazy = [Judgement(f"i{i}", "lazy", order[1], shown_order=order) for i in range(100) for order in [BOTH[int(generator.integers(0, 2))]]]
    reports = {report.annotator: report for report in annotator_reports(honest + lazy)}
    assert reports["lazy"].streak.key == RIGHT and reports["lazy"].streak.length == 100
    assert (reports["lazy"].streak.probability or 0.0) < 1e-25
    assert all((reports[f"a{a}"].streak.probability or 0.0) > 0.01 for a in range(3))


def test_the_queue_begins_with_the_furthest_apart() -> None:
    said = {"even": [0, 0, 1, 1], "all": [0, 0, 0, 0], "lean": [0, 0, 0, 1], "two": [0, 1], "one": [1]}
    judged = [Judgement(item, f"a{a}", value) for item, values in said.items() for a, value in enumerate(values)]
    queue = adjudication_queue(judged)
    assert [found.item for found in queue] == ["two", "even", "lean"]
    assert [found.disagreeing_share for found in queue] == pytest.approx([1.0, 4 / 6, 3 / 6])
