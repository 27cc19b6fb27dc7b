"""How long an annotator waits for the next task when there are many."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from accord.annotation.results import Assignment
from accord.annotation.store import Store
from labelling import pairs, say


@pytest.mark.slow
def test_next_task_among_a_hundred_thousand_takes_under_a_tenth_of_a_second(opened: Callable[..., Store]) -> None:
    """p95 of 300 requests, by five annotators of whom one has answered 200 tasks alone, on tasks that want three."""
    store = opened(overlap=3, gold_rate=0.05, repeat_rate=0.05)
    store.add_tasks(pairs(100_000))
    names = [f"person-{number}" for number in range(5)]
    for name in names:
        store.add_annotator(name, id=name)
    taken: list[float] = []
    for turn in range(300):
        name = names[0] if turn < 200 else names[turn % 5]
        begun = time.perf_counter()
        found = store.next_task(name)
        taken.append(time.perf_counter() - begun)
        assert isinstance(found, Assignment)
        say(store, name, found)
    p95 = sorted(taken)[int(0.95 * len(taken))]
    print(f"next_task: median {sorted(taken)[150] * 1000:.1f} ms, p95 {p95 * 1000:.1f} ms, longest {max(taken) * 1000:.1f} ms")
    assert p95 < 0.1
