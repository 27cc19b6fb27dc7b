"""Which side and which length was chosen, and that indices lead back to what was said."""

from __future__ import annotations

import pytest

from accord.annotation.judgements import LEFT, RIGHT, TIE, Judgement, counted, tabulate
from accord.errors import DataError


@pytest.mark.parametrize(
    ("value", "order", "side"),
    [
        (0, (0, 1), LEFT),
        (0, (1, 0), RIGHT),
        (1, (0, 1), RIGHT),
        (1, (1, 0), LEFT),
        (TIE, (0, 1), None),
        (1, None, None),
        (0, (0,), None),
        (None, (0, 1), None),
    ],
)
def test_side(value: int | str | None, order: tuple[int, ...] | None, side: str | None) -> None:
    assert Judgement("i", "a", value, shown_order=order).side == side


@pytest.mark.parametrize(
    ("value", "lengths", "longer"),
    [
        (0, (9, 4), True),
        (1, (9, 4), False),
        (0, (4, 4), None),
        (TIE, (9, 4), None),
        (5, (9, 4), None),
        (0, (9,), None),
        (1.0, (1, 2), None),
        (0, None, None),
    ],
)
def test_longer(value: int | str | float, lengths: tuple[int, ...] | None, longer: bool | None) -> None:
    assert Judgement("i", "a", value, lengths=lengths).chose_longer is longer


def test_the_table_leads_back() -> None:
    judged = [
        Judgement("y", "b", 2),
        Judgement("x", "a", 1),
        Judgement("y", "a", 1),
        Judgement("x", "b", None),
        Judgement("x", "c", 2, repeat_of="x"),
    ]
    table = tabulate(counted(judged))
    assert (table.items, table.annotators, table.values) == (("y", "x"), ("a", "b"), (1, 2))
    told = {
        (table.items[i], table.annotators[a], table.values[v]) for i, a, v in zip(table.item, table.annotator, table.value, strict=True)
    }
    assert told == {("y", "b", 2), ("x", "a", 1), ("y", "a", 1)}
    assert table.counts.tolist() == [[1, 1], [1, 0]] and table.per_item.tolist() == [2, 1]


def test_values_keep_their_order() -> None:
    assert tabulate([Judgement("i", "a", value) for value in (10, 9, 2.5)]).values == (2.5, 9, 10)
    assert tabulate([Judgement("i", "a", "high"), Judgement("i", "b", "low")], order=["low", "middle", "high"]).value.tolist() == [0, 2]
    assert tabulate([Judgement("i", "a", 1)], also=[0]).values == (0, 1)
    with pytest.raises(DataError, match='Value "high" is not among the ordered values'):
        tabulate([Judgement("i", "a", "high")], order=["low"])
