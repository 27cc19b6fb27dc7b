"""A certain task, kept for an annotator who has seen its answers grow: as a lease on it, and only where there is room."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from accord.annotation.refusals import Conflict, LeaseLost, Unknown
from accord.annotation.store import Store
from accord.errors import DataError
from labelling import Clock, pair, say

Opened = Callable[..., Store]


@pytest.fixture
def store(opened: Opened) -> Store:
    found = opened(lease_seconds=60)
    for name in ("ann", "bob"):
        found.add_annotator(name, id=name)
    found.add_tasks([pair(0), pair(1), pair(2)])
    return found


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_task_and_order_asked_for(store: Store, order: tuple[int, int]) -> None:
    found = store.take("ann", pair(2).id, order)
    assert (found.task, found.shown_order, found.purpose) == (pair(2), order, "work")
    made = say(store, "ann", found, 1)
    assert (made.task, made.shown_order, made.value) == (pair(2).id, order, {"choice": 1})


def test_only_where_there_is_room(store: Store, clock: Clock) -> None:
    found = store.take("ann", pair(0).id, (0, 1))
    with pytest.raises(Conflict, match="no room"):
        store.take("bob", pair(0).id, (0, 1))
    again = store.take("ann", pair(0).id, (1, 0))  # the page was loaded anew
    with pytest.raises(LeaseLost):
        say(store, "ann", found)
    say(store, "ann", again)
    for name in ("ann", "bob"):
        with pytest.raises(Conflict, match="no room"):
            store.take(name, pair(0).id, (0, 1))
    store.take("ann", pair(1).id, (0, 1))
    clock.now += 61
    assert store.take("bob", pair(1).id, (0, 1)).task == pair(1)  # the lease has lapsed


def test_what_is_wrong_is_refused(store: Store) -> None:
    with pytest.raises(Unknown):
        store.take("ann", "none", (0, 1))
    with pytest.raises(Unknown):
        store.take("eve", pair(0).id, (0, 1))
    for order in ((0,), (0, 0), (1, 2), (0, 1, 2)):
        with pytest.raises(DataError, match="no order of its 2 answers"):
            store.take("ann", pair(0).id, order)
