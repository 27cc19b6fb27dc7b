"""Coefficients against hand arithmetic and published tables, what leaves them unchanged, and the reasons given where there is none."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from accord.annotation.agreement import (
    Agreement,
    Reason,
    cohen_kappa,
    fleiss_kappa,
    item_disagreements,
    krippendorff_alpha,
    percent_agreement,
)
from accord.annotation.judgements import TIE, Judgement, Value
from accord.errors import DataError

# Three coders and fifteen units; * is missing. The worked example of Krippendorff's alpha on Wikipedia.
CLASSIC = ["* * * * * 3 4 1 2 1 1 3 3 * 3", "1 * 2 1 3 3 4 3 * * * * * * *", "* * 2 1 3 4 4 * 2 1 1 3 3 * 4"]
# Ten subjects, fourteen raters, five categories. The worked example of Fleiss' kappa on Wikipedia.
FLEISS = "0 0 0 0 14/0 2 6 4 2/0 0 3 5 6/0 3 9 2 0/2 2 8 1 1/7 7 0 0 0/3 2 6 3 0/2 5 3 2 2/6 5 2 1 0/0 2 2 3 7"


def classic() -> list[Judgement]:
    rows = [line.split() for line in CLASSIC]
    return [Judgement(f"unit {u}", f"coder {c}", int(v)) for c, row in enumerate(rows) for u, v in enumerate(row) if v != "*"]


def of_matrix(rows: list[list[Value | None]]) -> list[Judgement]:
    """Items down, annotators across."""
    return [Judgement(f"i{i:03}", f"a{a}", value) for i, row in enumerate(rows) for a, value in enumerate(row)]


def square(table: list[list[int]]) -> list[Judgement]:
    """Two annotators from the table of their joint counts."""
    return of_matrix([[i, j] for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)])


def test_cohen_by_hand() -> None:
    """35 of 50 agree; both say yes by chance 25/50 * 30/50 = 0.3, both no 0.5 * 0.4 = 0.2: (0.7 - 0.5) / 0.5."""
    found = cohen_kappa(square([[20, 5], [10, 15]]))
    assert found.value == pytest.approx(0.4, abs=1e-12) and (found.items, found.judgements) == (50, 100)
    assert found.low is not None and found.high is not None and 0.1 < found.low < 0.25 and 0.55 < found.high < 0.7


def test_weighted_cohen_by_hand() -> None:
    """Table (4 2 0 / 1 5 3 / 0 1 4): margins 6 9 5 and 5 8 7 of 20. Linear distance observed 2+3+1+1 = 7, expected (6*8 + 2*6*7 + 9*5 + 9*7 + 2*5*5 + 5*8) / 20
    = 330/20 = 16.5; quadratic observed 7, expected (48 + 4*42 + 45 + 63 + 4*25 + 40) / 20 = 464/20 = 23.2; unweighted the distances are all 1: observed 7,
    expected (48 + 42 + 45 + 63 + 25 + 40) / 20 = 263/20 = 13.15."""
    rows = square([[4, 2, 0], [1, 5, 3], [0, 1, 4]])
    for weights, expected in (("none", 13.15), ("linear", 16.5), ("quadratic", 23.2)):
        assert cohen_kappa(rows, weights=weights).value == pytest.approx(1 - 7 / expected, abs=1e-12)


def test_fleiss_published() -> None:
    table = [[int(count) for count in row.split()] for row in FLEISS.split("/")]
    rows = of_matrix([[place for place, count in enumerate(row) for _ in range(count)] for row in table])
    found = fleiss_kappa(rows)
    assert found.value == pytest.approx(0.209931, abs=5e-7) and (found.items, found.judgements) == (10, 140)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [("nominal", 1 - 25 * 6 / 486), ("interval", 1 - 25 * 12 / 1586), ("ordinal", 1 - 25 * 537.5 / 69524)],
)
def test_krippendorff_by_hand(scale: str, expected: float) -> None:
    """26 values can be paired: seven 1, four 2, ten 3, five 4. Three units are not unanimous: (3 3 4), (1 3), (3 4), each with pairs worth 2 / (m - 1) times their distances.

    Nominal: observed 2 + 2 + 2 = 6, expected 26^2 - (49 + 16 + 100 + 25) = 486. Interval: observed 2 + 8 + 2 = 12, expected 2 (28 + 70 * 4 + 35 * 9 + 40 + 20 * 4 + 50)
    = 1586. Ordinal: distances 5.5^2, 12.5^2, 20^2, 7^2, 14.5^2, 7.5^2 for 12, 13, 14, 23, 24, 34: observed 2 * (56.25 + 156.25 + 56.25) = 537.5, expected
    2 (28 * 30.25 + 70 * 156.25 + 35 * 400 + 40 * 49 + 20 * 210.25 + 50 * 56.25) = 69524. Published: 0.691358 nominal, 0.810845 interval.
    """
    found = krippendorff_alpha(classic(), scale=scale)  # type: ignore[arg-type]
    assert found.value == pytest.approx(expected, abs=1e-12) and (found.items, found.judgements) == (12, 26)
    assert found.low is not None and found.high is not None and found.low < expected < found.high <= 1.0


@pytest.mark.parametrize("scale", ["nominal", "ordinal", "interval"])
def test_krippendorff_package(scale: str) -> None:
    package = pytest.importorskip("krippendorff", reason="the krippendorff package is not installed")
    generator = np.random.default_rng(1)
    data = np.where(
        generator.random((5, 60)) < 0.3, np.nan, np.clip(generator.integers(1, 6, 60) + generator.integers(-1, 2, (5, 60)), 1, 5)
    )
    rows = of_matrix([[None if math.isnan(value) else float(value) for value in column] for column in data.T.tolist()])
    expected = package.alpha(reliability_data=data, level_of_measurement=scale)
    assert krippendorff_alpha(rows, scale=scale, draws=20).value == pytest.approx(expected, abs=1e-10)  # type: ignore[arg-type]


def test_sklearn_kappa() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    first, second = np.random.default_rng(2).integers(0, 4, (2, 80)).tolist()
    for weights in ("none", "linear", "quadratic"):
        expected = metrics.cohen_kappa_score(first, second, weights=None if weights == "none" else weights)
        assert cohen_kappa(of_matrix([list(pair) for pair in zip(first, second)]), weights=weights, draws=20).value == pytest.approx(
            expected, abs=1e-12
        )


def test_percent_agreement_with_and_without_ties() -> None:
    """Item 1: a a tie, one of three pairs agrees, without the tie one of one. Item 2: tie tie, agrees; without ties nobody is left. Item 3: a b, disagrees."""
    rows = of_matrix([["a", "a", TIE], [TIE, TIE, None], ["a", "b", None]])
    with_ties, without = percent_agreement(rows), percent_agreement(rows, without={TIE})
    assert (with_ties.value, with_ties.items, with_ties.judgements) == (pytest.approx(2 / 5), 3, 7)
    assert (without.value, without.items, without.judgements) == (pytest.approx(1 / 2), 2, 4)


def test_named_reasons() -> None:
    def reasons(rows: list[Judgement]) -> list[Reason | None]:
        return [measure(rows).reason for measure in (percent_agreement, cohen_kappa, fleiss_kappa, krippendorff_alpha)]

    assert reasons([]) == [Reason.NO_JUDGEMENTS] * 4 == reasons(of_matrix([[None, None]]))
    assert reasons(of_matrix([[1], [0]])) == [Reason.ONE_ANNOTATOR] * 4
    assert reasons(of_matrix([[1, None], [None, 0]])) == [Reason.NO_OVERLAP] * 4
    assert reasons(of_matrix([[1, 1], [1, 1]])) == [None] + [Reason.NO_VARIATION] * 3
    assert reasons(of_matrix([[1, 1, 0], [1, None, 0]]))[1:3] == [Reason.MORE_THAN_TWO, Reason.UNEQUAL_COUNTS]
    none = krippendorff_alpha([])
    assert none == Agreement(None, None, None, 0, 0, Reason.NO_JUDGEMENTS)
    single = krippendorff_alpha(of_matrix([[1, 0]]))
    assert single.value == pytest.approx(0.0) and single.low is None and single.reason is None


def test_judging_twice_is_an_error_and_a_repeat_is_not() -> None:
    rows = of_matrix([[1, 1], [0, 1]])
    with pytest.raises(
        DataError, match=r'^Annotator "a0" judged item "i000" twice\. Keep the judgement that counts, or mark the second with repeat_of\.$'
    ):
        krippendorff_alpha([*rows, rows[0]])
    assert krippendorff_alpha([*rows, replace(rows[0], value=0, repeat_of="i000")]) == krippendorff_alpha(rows)


def test_words_need_an_order_where_distance_counts() -> None:
    rows = of_matrix([["bad", "fair"], ["fair", "good"], ["good", "good"], ["bad", "bad"]])
    with pytest.raises(DataError, match='Value "bad" has no size'):
        krippendorff_alpha(rows, scale="ordinal")
    with pytest.raises(DataError, match='Value "good" is not among the ordered values'):
        krippendorff_alpha(rows, scale="interval", order=["bad", "fair"])
    numbers = [replace(row, value={"bad": 1, "fair": 2, "good": 3}[str(row.value)]) for row in rows]
    for scale in ("ordinal", "interval"):
        assert krippendorff_alpha(rows, scale=scale, order=["bad", "fair", "good"]).value == pytest.approx(
            krippendorff_alpha(numbers, scale=scale).value
        )


def test_interval_covers() -> None:
    """100 teams of three who each say the truth with probability 0.8, 60 items: alpha of many items is 2 * 0.68 - 1 = 0.36; the 90 % interval holds it in 90 +- 12 of 100 (four deviations)."""
    generator, hits = np.random.default_rng(3), 0
    for seed in range(100):
        truth = generator.integers(0, 2, (60, 1))
        said = np.where(generator.random((60, 3)) < 0.8, truth, 1 - truth)
        found = krippendorff_alpha(of_matrix(said.tolist()), level=0.9, draws=200, seed=seed)
        hits += found.low is not None and found.high is not None and found.low <= 0.36 <= found.high
    assert hits >= 78


def test_items_explain_alpha() -> None:
    """Weighted by its judgements, the mean of item disagreement is 1 - alpha on every scale."""
    for scale in ("nominal", "ordinal", "interval"):
        found = item_disagreements(classic(), scale=scale)
        weights = [sum(item.values.values()) for item in found]
        mean = sum(weight * item.disagreement for weight, item in zip(weights, found)) / sum(weights)
        alpha = krippendorff_alpha(classic(), scale=scale, draws=1).value
        assert alpha is not None and mean == pytest.approx(1 - alpha, abs=1e-12)
    by_item = {item.item: item for item in item_disagreements(classic())}
    assert by_item["unit 5"].values == {3: 2, 4: 1} and by_item["unit 5"].disagreeing_share == pytest.approx(2 / 3)
    assert by_item["unit 6"].disagreement == 0.0 and "unit 0" not in by_item
    assert item_disagreements([]) == []


MATRIX = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(st.sampled_from([None, 1, 2, 3, 5]), min_size=width, max_size=width), min_size=2, max_size=9)
)


@settings(max_examples=30, deadline=None)
@given(rows=MATRIX, random=st.randoms(use_true_random=False))
def test_order_and_names_change_nothing(rows: list[list[Value | None]], random) -> None:
    judged = of_matrix(rows)
    names = {f"a{index}": f"b{place}" for index, place in enumerate(random.sample(range(9), len(rows[0])))}
    moved = [replace(one, annotator=names[one.annotator]) for one in random.sample(judged, len(judged))]
    for measure in (percent_agreement, fleiss_kappa, krippendorff_alpha):
        assert measure(judged, draws=20) == measure(moved, draws=20)
    for scale in ("ordinal", "interval"):
        before, after = (krippendorff_alpha(list_, scale=scale, draws=20) for list_ in (judged, moved))
        assert (before.value, before.low, before.high) == pytest.approx((after.value, after.low, after.high), abs=1e-9)
    pairs = [one for one in judged if one.annotator in ("a0", "a1")]
    turned = [replace(one, annotator={"a0": "a1", "a1": "a0"}[one.annotator]) for one in pairs]
    before, after = cohen_kappa(pairs, draws=2), cohen_kappa(turned, draws=2)
    assert before.reason == after.reason and before.value == (None if after.value is None else pytest.approx(after.value, abs=1e-12))


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.integers(0, 4), min_size=2, max_size=12),
    width=st.integers(2, 4),
    shift=st.integers(-3, 3),
    stretch=st.integers(1, 9),
)
def test_perfect_agreement_is_one_and_scale_does_not_matter(values: list[int], width: int, shift: int, stretch: int) -> None:
    assume(len(set(values)) > 1)
    rows = of_matrix([[value] * width for value in values])
    found = [percent_agreement(rows, draws=20), fleiss_kappa(rows, draws=20)]
    found += [krippendorff_alpha(rows, scale=scale, draws=20) for scale in ("nominal", "ordinal", "interval")]
    found += [cohen_kappa(rows, ("a0", "a1"), weights=weights, draws=20) for weights in ("none", "linear", "quadratic")]
    assert [one.value for one in found] == pytest.approx([1.0] * len(found), abs=1e-9)
    noisy = [replace(one, value=int(one.value or 0) + (one.annotator == "a0" and one.item == "i000")) for one in rows]
    moved = [replace(one, value=stretch * int(one.value or 0) + shift) for one in noisy]
    before, after = (krippendorff_alpha(list_, scale="interval", draws=1).value for list_ in (noisy, moved))
    assert before == pytest.approx(after, abs=1e-9) and before is not None and before < 1
