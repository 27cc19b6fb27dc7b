"""Nobody judges a task after reading what others said of it, on either database."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from accord.annotation.refusals import Conflict, LeaseLost, Unknown
from accord.annotation.store import Store
from labelling import given, label, pair, pairs, reason, say, submission

Opened = Callable[..., Store]


def people(store: Store) -> None:
    for name in ("ann", "bob", "root"):
        store.add_annotator(name, "admin" if name == "root" else "annotator", id=name)


def test_who_has_read_is_not_asked(opened: Opened) -> None:
    store = opened(overlap=2)
    store.add_tasks(pairs(3))
    people(store)
    said = label(store, "ann")
    assert store.readable("root", [said.task]) == store.readable("bob", [said.task]) == set() and store.readable("ann", [said.task])
    store.read("root", [said.task])
    assert store.readable("root", [said.task]) == {said.task}
    assert {label(store, "root").task for _ in range(2)} == {pair(number).id for number in range(3)} - {said.task}
    assert reason(store, "root") == "done"
    assert label(store, "bob").task in {pair(number).id for number in range(3)}
    with pytest.raises(Conflict, match="no room"):
        store.take("root", said.task, (0, 1))
    with pytest.raises(Unknown):
        store.read("root", ["nothing"])


def test_what_is_held_goes_to_others_and_cannot_be_answered(opened: Opened) -> None:
    store = opened()
    store.add_tasks(pairs(1))
    people(store)
    held = given(store, "root")
    store.save_draft("root", held.task.id, held.token, {"half": 1})
    assert reason(store, "bob") == "wait"
    store.read("root", [held.task.id])
    with pytest.raises(LeaseLost):
        say(store, "root", held)
    assert given(store, "bob").task == held.task


def test_an_answer_stays_once_the_others_were_read(opened: Opened) -> None:
    store = opened(overlap=2)
    store.add_tasks(pairs(2))
    people(store)
    first = label(store, "root")
    store.read("root", [first.task])
    with pytest.raises(Conflict, match="have read what others said"):
        store.undo("root", submission())
    assert list(store.annotations()) == [first]
    settled = store.adjudicate("root", first.task, submission(), {"choice": 1})
    assert store.undo("root", submission(), settled.id) is None


def test_calibration_and_repeats_too(opened: Opened) -> None:
    store = opened(repeat_rate=0.9, overlap=2)
    store.add_tasks(pairs(40))
    people(store)
    store.begin_calibration(0, 3)
    store.read("root", [task.id for task in store.tasks(role="calibration")])
    assert reason(store, "root") == "calibration" and given(store, "ann").purpose == "calibration"
    store.set_phase(0, "work")
    work = []
    while len(work) < 12:
        held = given(store, "root")
        if held.purpose == "work":
            work.append(held.task.id)
        say(store, "root", held)
    store.read("root", work)
    later = [given(store, "root")]
    for _ in range(12):
        say(store, "root", later[-1])
        later.append(given(store, "root"))
    assert not {held.task.id for held in later} & set(work)


def test_a_guideline_that_asks_again_asks_everybody(opened: Opened) -> None:
    store = opened()
    store.add_tasks(pairs(2))
    people(store)
    store.set_guideline("first")
    said = [label(store, "ann").task, label(store, "ann").task]
    store.read("root", said)
    store.set_guideline("second", old_labels="relabel")
    assert store.readable("root", said) == set() and given(store, "root").task.id in said
