"""Many at once: exactly as many answers on a task as it wants, and every submission once, on both databases."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from accord.annotation.refusals import Conflict, LeaseLost
from accord.annotation.results import Assignment
from accord.annotation.store import Store
from labelling import Clock, given, pair, pairs, reason, submission

Opened = Callable[..., Store]


def work(store: Store, name: str, start: threading.Barrier) -> list[str]:
    """Take and answer tasks until nothing is left, sending each answer twice as after a lost reply; returns the ids that were acknowledged."""
    start.wait()
    acknowledged: list[str] = []
    waits = 0
    while True:
        found = store.next_task(name)
        if not isinstance(found, Assignment):
            if found.reason == "wait" and waits < 200:
                waits += 1
                threading.Event().wait(0.02)
                continue
            return acknowledged
        sent = (name, found.task.id, found.token, submission(), "pair", {"choice": 0})
        made = [store.submit(*sent).id for _ in range(2)]  # type: ignore[arg-type]
        assert made[0] == made[1]
        acknowledged.append(made[0])


def test_exactly_k_answers_from_eight_at_once(opened: Opened) -> None:
    """12 tasks wanting 3 each are 36 answers, by three different annotators each, and every acknowledged one is there once."""
    stores = [opened(overlap=3) for _ in range(8)]
    names = [f"person-{number}" for number in range(8)]
    for name in names:
        stores[0].add_annotator(name, id=name)
    stores[0].add_tasks(pairs(12))
    start = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        acknowledged = [key for part in pool.map(work, stores, names, [start] * 8) for key in part]
    stored = list(stores[0].annotations(valid=False))
    assert sorted(a.id for a in stored) == sorted(acknowledged) and len(stored) == 36
    assert Counter(a.task for a in stored) == {t.id: 3 for t in pairs(12)}
    assert len({(a.task, a.annotator) for a in stored}) == 36
    progress = stores[0].progress()
    assert (progress.closed, progress.answers, progress.missing, progress.held) == (12, 36, 0, 0)


def test_no_more_leases_than_places_at_once(opened: Opened) -> None:
    """8 annotators, 3 tasks wanting 2: exactly 6 hold one, whatever the order."""
    stores = [opened(overlap=2) for _ in range(8)]
    for number in range(8):
        stores[0].add_annotator("x", id=f"person-{number}")
    stores[0].add_tasks(pairs(3))
    start = threading.Barrier(8)

    def take(number: int) -> Any:
        start.wait()
        for _ in range(50):
            found = stores[number].next_task(f"person-{number}")
            if isinstance(found, Assignment):
                return found.task.id
            threading.Event().wait(0.01)
        return None

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(8)))
    assert Counter(taken) == {**{t.id: 2 for t in pairs(3)}, None: 2}


def test_one_annotator_asking_twice_at_once_gets_one_task(opened: Opened) -> None:
    stores = [opened() for _ in range(4)]
    stores[0].add_annotator("Ann", id="ann")
    stores[0].add_tasks(pairs(10))
    start = threading.Barrier(4)

    def ask(store: Store) -> str:
        start.wait()
        return given(store, "ann").token

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, stores))) == 1
    assert stores[0].progress().held == 1


def test_the_same_submission_at_once_is_one_annotation(opened: Opened) -> None:
    stores = [opened() for _ in range(4)]
    stores[0].add_annotator("Ann", id="ann")
    stores[0].add_tasks(pairs(1))
    held = given(stores[0], "ann")
    start = threading.Barrier(4)

    def send(store: Store) -> str:
        start.wait()
        return store.submit("ann", held.task.id, held.token, "the-same", "pair", {"choice": 1}).id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(send, stores))) == 1
    assert len(list(stores[0].annotations(valid=False))) == 1


def test_lapsed_leases_never_make_one_too_many(opened: Opened, clock: Clock) -> None:
    """Two hold the last place one after the other; both send; one is stored, the other is told."""
    store = opened(lease_seconds=60)
    for name in ("ann", "bob"):
        store.add_annotator(name, id=name)
    store.add_tasks(pairs(1))
    anns = given(store, "ann")
    clock.now += 61
    bobs = given(store, "bob")
    clock.now += 61  # both have lapsed: whoever comes first has the place
    store.submit("ann", anns.task.id, anns.token, submission(), "pair", {"choice": 0})
    with pytest.raises((LeaseLost, Conflict)):
        store.submit("bob", bobs.task.id, bobs.token, submission(), "pair", {"choice": 0})
    assert store.progress().answers == 1 and reason(store, "bob") == "done"


def test_what_stands_follows_from_the_record(opened: Opened, clock: Clock) -> None:
    """`standing` and `given` are derived: answers less those superseded, counted here from the record alone."""
    store = opened(overlap=2, repeat_rate=0.2, seed=4)
    for name in ("ann", "bob"):
        store.add_annotator(name, id=name)
    store.add_tasks([*pairs(20), pair(99, gold={"choice": 1})])
    for turn in range(36):
        for name in ("ann", "bob"):
            found = store.next_task(name)
            if isinstance(found, Assignment):
                store.submit(name, found.task.id, found.token, submission(), "pair", {"choice": turn % 2})
        if turn % 5 == 4:
            store.undo("ann", submission())
    record = list(store.annotations(valid=False))
    taken_back = {a.supersedes for a in record}
    valid = [a for a in record if a.kind != "undo" and a.id not in taken_back]
    assert valid == list(store.annotations())
    counted = Counter(a.task for a in valid if a.purpose == "work" and a.kind == "pair")
    with store.database.reading() as connection:
        for row in connection.execute(sa.text("SELECT id, given, wanted, state FROM tasks WHERE role = 'work'")):
            assert row.given == counted[row.id] <= row.wanted and (row.state == "closed") == (row.given == row.wanted)
