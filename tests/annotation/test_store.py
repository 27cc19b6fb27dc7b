"""The store on both databases: answers once and for good, leases, drafts, gold and repeats, calibration, guidelines, erasure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from accord.annotation import assign
from accord.annotation.refusals import Conflict, LeaseLost, Unknown
from accord.annotation.results import Added
from accord.annotation.store import Store
from accord.errors import DataError
from accord.types import Annotation
from labelling import Clock, answer, given, label, pair, pairs, reason, say, submission, task

Opened = Callable[..., Store]


def people(store: Store, *names: str) -> None:
    for name in names:
        store.add_annotator(name.title(), id=name)


def test_an_answer_is_stored_as_it_was_given(opened: Opened, clock: Clock) -> None:
    store = opened(seed=3)
    people(store, "ann")
    store.set_guideline("Be kind.")
    assert store.add_tasks([pair(1)]) == Added(1, 0)
    assignment = given(store, "ann")
    assert assignment.task == pair(1) and sorted(assignment.shown_order) == [0, 1] and assignment.expires == clock.now + 1800
    made = say(store, "ann", assignment, 1, strength=3, seconds=12.5, rationale="Shorter.\x00\u2028")
    wanted = Annotation(
        made.id,
        pair(1).id,
        "pair",
        {"choice": 1},
        "ann",
        strength=3,
        shown_order=assignment.shown_order,
        seconds=12.5,
        rationale="Shorter.\x00\u2028",
        guideline_version=1,
        created="2023-11-14T22:13:20.000Z",
    )
    assert made == wanted == store.annotation(made.id) == next(store.annotations())
    assert reason(store, "ann") == "done"
    assert store.progress().by_annotator == {"ann": 1}


def test_what_an_annotator_sees_hides_authors_gold_and_purpose(opened: Opened) -> None:
    store = opened(gold_rate=0.99)
    people(store, "ann")
    store.add_tasks([task("pair", "Q?", answer("A", model="secret"), answer("B"), gold={"choice": 0})])
    shown = given(store, "ann").shown()
    assert "secret" not in str(shown) and "gold" not in str(shown)
    assert [a[0]["content"] for a in shown["answers"]] == [["A", "B"][i] for i in shown["shown_order"]]


def test_a_submission_sent_again_is_the_same_annotation(opened: Opened) -> None:
    store = opened()
    people(store, "ann")
    store.add_tasks(pairs(2))
    first = given(store, "ann")
    send = ("ann", first.task.id, first.token, "once-1", "pair", {"choice": 0})
    assert store.submit(*send) == store.submit(*send)
    assert len(list(store.annotations(valid=False))) == 1
    with pytest.raises(Conflict, match="used for another answer"):
        store.submit(*send[:5], {"choice": 1})
    second = given(store, "ann")
    with pytest.raises(Conflict, match="used for another answer"):
        store.submit("ann", second.task.id, second.token, "once-1", "pair", {"choice": 0})
    assert store.progress().answers == 1


def test_nobody_answers_twice_or_with_anothers_lease(opened: Opened) -> None:
    store = opened(overlap=2)
    people(store, "ann", "bob")
    store.add_tasks(pairs(1))
    mine = given(store, "ann")
    for who, token in (("ann", "0" * 32), ("ann", ""), ("ann", "\udc00"), ("bob", mine.token)):
        with pytest.raises(LeaseLost, match="not with you now"):
            store.submit(who, mine.task.id, token, submission(), "pair", {"choice": 0})
    with pytest.raises(DataError, match='"choice" is 9'):
        store.submit("ann", mine.task.id, mine.token, submission(), "pair", {"choice": 9})
    for who, what in (("eve", mine.task.id), ("ann", "none"), ("ann", "x'; DROP TABLE tasks; --"), ("a\x00", "\x00")):
        with pytest.raises(Unknown):
            store.submit(who, what, mine.token, submission(), "pair", {"choice": 0})
    with pytest.raises(DataError, match="is no id"):
        store.submit("ann", mine.task.id, mine.token, "a b", "pair", {"choice": 0})
    say(store, "ann", mine)
    with pytest.raises(LeaseLost):
        say(store, "ann", mine)
    assert store.progress().answers == 1


def test_annotations_cannot_be_changed_or_removed(opened: Opened) -> None:
    store = opened()
    people(store, "ann")
    store.add_tasks(pairs(1))
    before = label(store, "ann")
    for statement in ("UPDATE annotations SET strength = 4", "DELETE FROM annotations"):
        with pytest.raises(sa.exc.DatabaseError, match="append-only"), store.database.writing() as connection:
            connection.execute(sa.text(statement))
    assert list(store.annotations()) == [before]


def test_a_lease_keeps_the_place_until_it_lapses(opened: Opened, clock: Clock) -> None:
    store = opened(lease_seconds=60)
    people(store, "ann", "bob")
    store.add_tasks(pairs(1))
    anns = given(store, "ann")
    assert reason(store, "bob") == "wait"
    clock.now += 59
    assert given(store, "ann").token == anns.token  # asked again: renewed
    clock.now += 59
    assert reason(store, "bob") == "wait"
    clock.now += 1
    bobs = given(store, "bob")
    assert bobs.task == anns.task and reason(store, "ann") == "wait"
    with pytest.raises(LeaseLost, match="was kept for you until 2023-11-14T22:15:19.000Z; others have answered it"):
        say(store, "ann", anns)
    say(store, "bob", bobs)
    assert [a.annotator for a in store.annotations(valid=False)] == ["bob"] and reason(store, "ann") == "done"


def test_a_late_answer_counts_while_there_is_room(opened: Opened, clock: Clock) -> None:
    store = opened(lease_seconds=60)
    people(store, "ann")
    store.add_tasks(pairs(1))
    anns = given(store, "ann")
    clock.now += 600
    assert say(store, "ann", anns).annotator == "ann" and store.progress().missing == 0


def test_a_task_given_back_is_free_at_once(opened: Opened) -> None:
    store = opened()
    people(store, "ann", "bob")
    store.add_tasks(pairs(1))
    anns = given(store, "ann")
    store.release("ann", anns.task.id, anns.token)
    assert given(store, "bob").task == anns.task


def test_everybody_gets_each_task_once_in_an_order_of_their_own(opened: Opened) -> None:
    """40 tasks, 2 annotators: of 40 fair coin tosses between 10 and 30 come up heads, but for one case in a thousand."""
    store = opened(overlap=2, seed=5)
    people(store, "ann", "bob")
    store.add_tasks(pairs(40))
    orders: dict[str, list[tuple[int, ...]]] = {"ann": [], "bob": []}
    seen: dict[str, list[str]] = {"ann": [], "bob": []}
    for _ in range(40):
        for name in orders:
            found = label(store, name)
            seen[name].append(found.task)
            orders[name].append(found.shown_order)
    assert seen["ann"] == seen["bob"] and sorted(seen["ann"]) == sorted(t.id for t in pairs(40)) != seen["ann"]
    assert all(10 <= order.count((1, 0)) <= 30 for order in orders.values()) and orders["ann"] != orders["bob"]
    assert reason(store, "ann") == reason(store, "bob") == "done"
    assert store.progress().closed == 40


def test_drafts_are_saved_keep_the_task_and_come_back(opened: Opened, clock: Clock) -> None:
    store = opened(lease_seconds=60)
    people(store, "ann", "bob")
    store.add_tasks(pairs(2))
    anns = given(store, "ann")
    clock.now += 50
    assert store.save_draft("ann", anns.task.id, anns.token, {"text": "half a th"}) == clock.now + 60
    clock.now += 50
    store.save_draft("ann", anns.task.id, anns.token, {"text": "half a thought"})
    bobs = given(store, "bob")
    assert bobs.task != anns.task and bobs.draft is None
    with pytest.raises(LeaseLost):
        store.save_draft("bob", anns.task.id, bobs.token, {"text": "mine"})
    clock.now += 1000  # the tab was killed; the next one finds task and draft
    back = opened(lease_seconds=60).next_task("ann")
    assert (back.task, back.draft, back.token) == (anns.task, {"text": "half a thought"}, anns.token)
    say(store, "ann", back)
    assert given(store, "ann").draft is None
    with pytest.raises(DataError, match="at most 1000000 characters"):
        store.save_draft("ann", bobs.task.id, "", {"text": "x" * 1_000_001})


def test_a_draft_of_a_lost_lease_is_kept_and_said(opened: Opened, clock: Clock) -> None:
    store = opened(lease_seconds=60)
    people(store, "ann", "bob")
    store.add_tasks(pairs(1))
    anns = given(store, "ann")
    clock.now += 61
    given(store, "bob")
    with pytest.raises(LeaseLost, match="others have it now. The draft is kept"):
        store.save_draft("ann", anns.task.id, anns.token, {"text": "late"})
    clock.now += 61
    assert given(store, "ann").draft == {"text": "late"}


def test_undo_is_a_row_of_its_own_and_brings_the_task_back(opened: Opened) -> None:
    store = opened()
    people(store, "ann", "bob")
    store.add_tasks(pairs(1))
    old = label(store, "ann", 1, strength=2)
    with pytest.raises(Unknown, match="no answer of yours"):
        store.undo("bob", submission())
    with pytest.raises(Unknown, match="no answer of yours"):
        store.undo("bob", submission(), old.id)
    back = store.undo("ann", "undo-1")
    assert back is not None and store.undo("ann", "undo-1") == back
    assert back.shown_order == old.shown_order
    assert back.draft == {"kind": "pair", "value": {"choice": 1}, "strength": 2, "rationale": None}
    assert list(store.annotations()) == [] and reason(store, "bob") == "wait" and store.progress().missing == 1
    new = say(store, "ann", back, 0)
    rows = list(store.annotations(valid=False))
    assert [(row.kind, row.supersedes) for row in rows] == [("pair", None), ("undo", old.id), ("pair", None)]
    assert rows[0] == old and list(store.annotations()) == [new] and store.progress().missing == 0
    with pytest.raises(Unknown):
        store.undo("ann", submission(), old.id)


def test_skips_and_flags_pass_the_task_on_and_edits_stand_beside(opened: Opened) -> None:
    store = opened()
    people(store, "ann", "bob", "eve")
    store.add_tasks(pairs(1))
    for name, kind in (("ann", "skip"), ("bob", "flag")):
        found = given(store, name)
        store.submit(name, found.task.id, found.token, submission(), kind, {"reason": "Not for me."})
        assert reason(store, name) == "done"
    found = given(store, "eve")
    for text in ("Better.", "Best."):
        store.submit("eve", found.task.id, found.token, submission(), "edit", {"of": 0, "text": text})
    assert store.undo("eve", submission()) is None
    assert given(store, "eve").token == found.token
    say(store, "eve", found)
    standing = [(a.annotator, a.kind, a.value) for a in store.annotations()]
    assert standing[:3] == [
        ("ann", "skip", {"reason": "Not for me."}),
        ("bob", "flag", {"reason": "Not for me."}),
        ("eve", "edit", {"of": 0, "text": "Better."}),
    ]
    assert standing[3] == ("eve", "pair", {"choice": 0}) and store.progress().answers == 1


def test_gold_and_repeats_come_at_their_rates(opened: Opened) -> None:
    """150 of 400 tasks at rates 0.2 and 0.15: 30 gold and 22.5 repeats, with standard deviations 4.9 and 4.4; three of them are allowed."""
    store = opened(gold_rate=0.2, repeat_rate=0.15, seed=1)
    people(store, "ann")
    store.add_tasks([*pairs(150), *(pair(number, gold={"choice": 0}) for number in range(200, 270))])
    made = [label(store, "ann") for _ in range(150)]
    counts = Counter(annotation.purpose for annotation in made)
    assert 15 <= counts["gold"] <= 45 and 9 <= counts["repeat"] <= 36
    assert len({a.task for a in made if a.purpose == "gold"}) == counts["gold"]
    first = {a.task: (index, a) for index, a in enumerate(made) if a.purpose == "work"}
    again = [(index, a) for index, a in enumerate(made) if a.purpose == "repeat"]
    assert len({a.task for _, a in again}) == counts["repeat"]
    for index, annotation in again:
        before, original = first[annotation.task]
        assert annotation.shown_order == original.shown_order[::-1] and index - before >= 10
    assert store.progress().answers == counts["work"]


def test_calibration_comes_first_and_holds_the_round(opened: Opened) -> None:
    store = opened(overlap=1)
    people(store, "ann", "bob")
    store.add_tasks(pairs(6))
    with pytest.raises(DataError, match="Round 0 has 6 tasks that nobody has begun; a calibration of 7"):
        store.begin_calibration(0, 7)
    assert store.begin_calibration(0, 2) == 2
    for name in ("ann", "bob"):
        assert [label(store, name).purpose for _ in range(2)] == ["calibration"] * 2
        assert reason(store, name) == "calibration"
    by_task = Counter(a.task for a in store.annotations(purpose="calibration"))
    assert sorted(by_task.values()) == [2, 2]
    store.set_phase(0, "work")
    assert label(store, "ann").purpose == "work"
    people(store, "new")
    assert [label(store, "new").purpose for _ in range(3)] == ["calibration", "calibration", "work"]
    store.set_phase(0, "ended")
    assert reason(store, "bob") == "ended"


def test_a_new_guideline_says_what_becomes_of_old_labels(opened: Opened) -> None:
    store = opened()
    people(store, "ann")
    store.add_tasks(pairs(3))
    assert store.set_guideline("One.").version == 1 and store.set_guideline("One.").version == 1
    label(store, "ann")
    assert store.set_guideline("Two.", old_labels="kept").version == 2
    second = label(store, "ann")
    assert second.guideline_version == 2 and store.progress().answers == 2
    assert store.set_guideline("Three.", old_labels="relabel").version == 3
    assert store.progress().answers == 0 and list(store.annotations()) == [] and len(list(store.annotations(valid=False))) == 2
    assert sorted(label(store, "ann").task for _ in range(3)) == sorted(t.id for t in pairs(3))
    assert [g.old_labels for g in store.guidelines()] == ["kept", "kept", "relabel"] and store.guideline().text == "Three."
    with pytest.raises(DataError, match='not "burned"'):
        store.set_guideline("Four.", old_labels="burned")  # type: ignore[arg-type]


def test_an_adjudication_is_one_more_row(opened: Opened) -> None:
    store = opened(overlap=2)
    people(store, "ann", "bob")
    store.add_tasks(pairs(1))
    label(store, "ann", 0)
    label(store, "bob", 1)
    settled = store.adjudicate("ann", pair(1 - 1).id, "settle-1", {"choice": 1}, strength=1)
    assert store.adjudicate("ann", pair(0).id, "settle-1", {"choice": 1}, strength=1) == settled
    assert settled.purpose == "adjudication" and len(list(store.annotations())) == 3
    with pytest.raises(Conflict, match="settled already"):
        store.adjudicate("bob", pair(0).id, submission(), {"choice": 0})
    assert store.undo("ann", submission(), settled.id) is None
    store.adjudicate("bob", pair(0).id, submission(), {"choice": 0})


def test_labels_of_models_take_nobodys_place_and_come_once(opened: Opened) -> None:
    store = opened()
    people(store, "ann")
    store.add_tasks(pairs(2))
    judged = [Annotation(f"j{n}", pair(n).id, "pair", {"choice": 0}, "judge", source="ai", probability=0.9) for n in range(2)]
    assert store.record(judged) == Added(2, 0) and store.record(judged) == Added(0, 2)
    assert store.progress().answers == 0 and store.annotator("judge").role == "program"
    label(store, "ann")
    wrong = [replace(judged[0], id="j9", annotator="other"), replace(judged[0], id="j8", value={"choice": 7})]
    with pytest.raises(DataError, match='"choice" is 7'):
        store.record(wrong)
    with pytest.raises(Unknown):
        store.annotation("j9")  # all or none


def test_the_record_of_another_copy_comes_with_its_undos(opened: Opened, tmp_path: Any, clock: Clock) -> None:
    store = opened()
    people(store, "ann")
    store.add_tasks(pairs(3))
    label(store, "ann")
    store.undo("ann", submission())
    label(store, "ann", 1)
    label(store, "ann", "tie")
    record = list(store.export_annotations())
    with Store(tmp_path / "copy.sqlite", clock=clock) as copy:
        copy.add_tasks(store.tasks())
        assert copy.record(record) == Added(4, 0) and copy.record(record) == Added(0, 4)
        assert list(copy.annotations(valid=False)) == record and list(copy.annotations()) == list(store.annotations())
        assert copy.progress().answers == 2
        with pytest.raises(Unknown, match="supersedes"):
            copy.record([replace(record[1], id="other", supersedes="gone")])


def test_erasure_leaves_a_tombstone(opened: Opened) -> None:
    store = opened(overlap=2)
    store.add_annotator("Ann Other", id="ann", secret="s3cret")
    people(store, "bob")
    store.add_tasks([*pairs(1), task("edit", "Say hello.", answer("Helo."))])
    for name in ("ann", "bob"):
        for _ in range(2):
            found = given(store, name)
            value: Any = {"choice": 0} if found.task.kind == "pair" else {"of": 0, "text": f"Hello from {name}"}
            store.submit(name, found.task.id, found.token, submission(), found.task.kind, value, rationale=f"I am {name}")
    assert store.annotator_of_secret("s3cret") == store.annotator("ann")
    erased = store.erase("ann")
    assert (erased.annotations, erased.texts) == (2, 2) and store.erase("ann") == erased == store.erasures()[0]
    mine = {a.kind: a for a in store.annotations(annotator="ann")}
    assert mine["pair"].value == {"choice": 0} and mine["edit"].value == {"erased": True}
    assert all(a.rationale is None for a in mine.values()) and store.annotator("ann").name == "(erased)"
    assert store.annotator_of_secret("s3cret") is None
    assert all(a.rationale == "I am bob" for a in store.annotations(annotator="bob"))
    with store.database.reading() as connection:
        for table in ("annotations", "annotation_texts", "annotators", "drafts"):
            rows = str(connection.execute(sa.text(f"SELECT * FROM {table}")).all())
            assert "Ann Other" not in rows and "I am ann" not in rows and "Hello from ann" not in rows
    for call in (lambda: store.next_task("ann"), lambda: store.undo("ann", submission())):
        with pytest.raises(Unknown):
            call()
    assert len(list(store.annotations(valid=False))) == 4


def test_pseudonyms_are_steady_and_tell_nothing(opened: Opened) -> None:
    store = opened()
    people(store, "ann", "bob")
    store.add_tasks(pairs(3))
    label(store, "ann", rationale="Because.")
    label(store, "bob")
    label(store, "ann")
    assert list(store.annotations(newest=2)) == list(store.annotations())[:0:-1]
    names = [a.annotator for a in store.export_annotations(pseudonyms=True)]
    assert names[0] == names[2] != names[1] and not {"ann", "bob"} & set(names)
    assert names == [a.annotator for a in store.export_annotations(pseudonyms=True)]
    assert [a.rationale for a in store.export_annotations(rationales=False)] == [None] * 3


def test_people_are_found_by_id_and_secret(opened: Opened) -> None:
    store = opened()
    made = store.add_annotator("  Ann ", "admin", secret="abc")
    assert made.name == "Ann" and made.id.startswith("a-") and store.annotator(made.id) == made
    assert store.annotators() == [made] and store.annotator_of_secret("ABC") is None
    for bad in ("", "a\nb", "x" * 201):
        with pytest.raises(DataError, match="1 to 200 printable characters"):
            store.add_annotator(bad)
    with pytest.raises(DataError, match='no role "boss"'):
        store.add_annotator("Bob", "boss")
    with pytest.raises(Conflict, match="already"):
        store.add_annotator("Bob", id=made.id)


def test_tasks_are_added_once_all_or_none(opened: Opened) -> None:
    store = opened()
    assert store.add_tasks(pairs(3)) == Added(3, 0) and store.add_tasks(pairs(4)) == Added(1, 3)
    with pytest.raises(DataError, match="pair task has 2 answers"):
        store.add_tasks([pair(9), task("pair", "Q", answer("a"))])
    with pytest.raises(Conflict, match="with another prompt or other answers"):
        store.add_tasks([replace(pair(8), id=pair(0).id)])
    assert list(store.tasks()) == pairs(4) and store.task(pair(2).id) == pair(2)
    store.retire(pair(0).id)
    assert [t.id for t in store.tasks(state="retired")] == [pair(0).id]
    people(store, "ann")
    assert len({label(store, "ann").task for _ in range(3)} - {pair(0).id}) == 3 and reason(store, "ann") == "done"


def test_the_next_task_is_found_by_walking_one_index(opened: Opened) -> None:
    """SQLite says how it would answer: no scan of the tasks, no sorting, so the time does not grow with their number."""
    store = opened()
    if store.database.file is None:
        pytest.skip("PostgreSQL plans by the number of rows; test_speed.py times it")
    query = assign.candidates(1, 0, 0.0, assign.FIRST, 8).compile(store.database.engine, compile_kwargs={"literal_binds": True})
    with store.database.reading() as connection:
        plan = [row.detail for row in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {query}"))]
    assert plan[0] == "SEARCH tasks USING INDEX ix_tasks_next (round=? AND role=? AND state=? AND position>?)"
    assert not [line for line in plan if "SCAN" in line or "TEMP B-TREE" in line], plan


def test_the_newest_round_is_the_one_at_work(opened: Opened) -> None:
    store = opened()
    people(store, "ann")
    assert reason(store, "ann") == "empty"
    store.add_tasks([*pairs(2), pair(7, round=1)])
    assert label(store, "ann").round == 1 and reason(store, "ann") == "done"
    assert store.next_task("ann", round=0).task.round == 0  # type: ignore[union-attr]


def test_a_selector_orders_what_may_be_asked_and_chance_keeps_its_share(opened: Opened) -> None:
    """A selector that wants the highest number first, half of the time: the arms say which is which, and only its own follow it."""

    def highest(annotator: str, found: Any) -> Any:
        return sorted(found, key=lambda t: -int(t.prompt[0].content.split()[1][:-1]))

    store = opened(selector=highest, random_share=0.5, seed=2)
    people(store, "ann")
    store.add_tasks(pairs(30))
    left = {t.id: n for n, t in enumerate(pairs(30))}
    arms: Counter[str] = Counter()
    for _ in range(24):
        made = label(store, "ann")
        arms[made.arm] += 1
        if made.arm == "selected":
            assert left[made.task] == max(left.values())
        del left[made.task]
    assert 4 <= arms["selected"] <= 20 and arms["random"] == 24 - arms["selected"]
