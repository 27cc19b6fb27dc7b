"""One answer of one annotator to one question: what every statistic of this folder reads."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from accord.errors import DataError

Value = str | int | float
"""What was said: which of two answers (0 or 1), a category, a rating."""

TIE = "tie"
"""The value of a comparison in which neither answer was preferred."""

LEFT, RIGHT = "left", "right"
_PART = re.compile(r":(?:(turn|step)(\d+)|(\d+)-(\d+))$")
"""What a panel adds to a task's id, which may have colons of its own: a turn of a conversation, a step of a solution, or two answers of a ranking."""


@dataclass(frozen=True)
class Judgement:
    """One annotator's answer about one item. Lists of them are in the order in which they were given."""

    item: str
    """What was judged."""
    annotator: str
    value: Value | None
    """Of a comparison: the index of the preferred answer, in the item's own order, however it was shown; or TIE. None: skipped, counted nowhere."""
    seconds: float | None = None
    """From shown to answered."""
    shown_order: tuple[int, ...] | None = None
    """Answers by their index, from left to right: (1, 0) shows the item's second answer on the left. None: not recorded."""
    lengths: tuple[int, ...] | None = None
    """Length of each answer in the item's own order, in any unit. None: not recorded."""
    gold: Value | None = None
    """The known right value of a test item."""
    repeat_of: str | None = None
    """The item that this one shows again to see whether the annotator says the same. Repeats say nothing about agreement with others."""

    @property
    def side(self) -> str | None:
        """LEFT or RIGHT, where one of two answers was chosen and the order is known."""
        if self.shown_order is None or len(self.shown_order) != 2 or self.value not in self.shown_order:
            return None
        return LEFT if self.shown_order[0] == self.value else RIGHT

    @property
    def chose_longer(self) -> bool | None:
        """Whether the longer of two answers was chosen; None without a choice, and where they are equally long."""
        if self.lengths is None or len(self.lengths) != 2 or not isinstance(self.value, int) or self.value not in (0, 1):
            return None
        chosen, other = self.lengths[self.value], self.lengths[1 - self.value]
        return None if chosen == other else chosen > other


@dataclass(frozen=True)
class Part:
    """What of a task an item is."""

    task: str
    words: str
    """"" where it is the whole."""
    answers: tuple[int, int] = (0, 1)
    """Of a comparison: which answers."""


def part_of(item: str) -> Part:
    """The part of a task that an item of a panel is."""
    found = _PART.search(item)
    if found is None:
        return Part(item, "")
    task, name = item[: found.start()], found[1]
    if name is not None:
        return Part(task, f"{name} {int(found[2]) + 1}")
    first, second = int(found[3]), int(found[4])
    return Part(task, f"answers {first + 1} and {second + 1}", (first, second))


@dataclass(frozen=True)
class Table:
    """Judgements as indices, those of an item together: item[j], annotator[j] and value[j] point into the three tuples of names."""

    items: tuple[str, ...]
    annotators: tuple[str, ...]
    values: tuple[Value, ...]
    item: np.ndarray
    annotator: np.ndarray
    value: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """How often each value was given to each item. (items, values), int64"""
        flat = np.bincount(self.item * len(self.values) + self.value, minlength=len(self.items) * len(self.values))
        return flat.reshape(len(self.items), len(self.values))

    @property
    def per_item(self) -> np.ndarray:
        """Judgements of each item. (items,), int64"""
        return np.bincount(self.item, minlength=len(self.items))


def counted(judgements: Iterable[Judgement], *, without: Collection[Value] = ()) -> list[Judgement]:
    """Judgements that say something about agreement: neither skipped nor repeats, and not of a value in `without`.

    Raises:
        DataError: if an annotator judged an item twice and neither is marked as a repeat.
    """
    kept = [one for one in judgements if one.value is not None and one.repeat_of is None]
    seen: set[tuple[str, str]] = set()
    for one in kept:
        if (one.item, one.annotator) in seen:
            raise DataError(
                f'Annotator "{one.annotator}" judged item "{one.item}" twice. Keep the judgement that counts, or mark the second with repeat_of.'
            )
        seen.add((one.item, one.annotator))
    return [one for one in kept if one.value not in without]


def tabulate(
    judgements: Sequence[Judgement], *, order: Sequence[Value] | None = None, numeric: bool = False, also: Iterable[Value] = ()
) -> Table:
    """The judgements that `counted` leaves, as indices.

    Args:
        order: every value that can occur, lowest first. None: the values found, numbers by size, anything else by name.
        numeric: True refuses values that are not numbers unless `order` ranks them; False takes any.
        also: values that can occur besides those found.
    Raises:
        DataError: a value that is not in `order`, or that has no size where one is needed.
    """
    found = {one.value for one in judgements if one.value is not None} | set(also)
    if order is not None:
        values = tuple(order)
        if strange := sorted(map(str, found - set(values))):
            raise DataError(
                f'Value "{strange[0]}" is not among the ordered values ({", ".join(map(str, values))}). Add it to order, or correct it.'
            )
    elif all(isinstance(value, (int, float)) for value in found):
        values = tuple(sorted(found, key=float))
    elif numeric:
        word = sorted(str(value) for value in found if isinstance(value, str))[0]
        raise DataError(f'Value "{word}" has no size. Name all values from lowest to highest with order, or use scale="nominal".')
    else:
        values = tuple(sorted(found, key=lambda value: (str(value), type(value).__name__)))
    items = tuple(dict.fromkeys(one.item for one in judgements))
    annotators = tuple(sorted({one.annotator for one in judgements}))
    places = [{name: index for index, name in enumerate(names)} for names in (items, annotators, values)]
    rows = np.array(
        [(places[0][j.item], places[1][j.annotator], places[2][j.value]) for j in judgements if j.value is not None], dtype=np.int64
    )
    rows = rows.reshape(-1, 3)
    rows = rows[np.lexsort((rows[:, 2], rows[:, 0]))]
    return Table(items, annotators, values, rows[:, 0], rows[:, 1], rows[:, 2])
