"""Frozen labels: one hash whatever the order, held out by prompt, read by training, refused when they are not what was frozen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accord.annotation.project import Project
from accord.annotation.snapshot import freeze
from accord.annotation.store import Store
from accord.data.annotation_examples import examples_of
from accord.data.check import check
from accord.data.read import read_examples
from accord.data.snapshots import RECORD, ROWS, snapshot_hash
from accord.errors import ConfigError, DataError
from accord.types import Annotation, Task
from labelling import Clock, answer, given, label, pairs, submission, task


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0, heldout=0.25)


def annotate(store: Store, count: int, *names: str) -> None:
    for name in names:
        store.add_annotator(name, id=name)
    store.add_tasks(pairs(count))
    for name in names:
        for number in range(count):
            label(store, name, number % 2, strength=2)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / ROWS).read_text("utf-8").splitlines()]


def test_the_hash_does_not_depend_on_the_order(project: Project, tmp_path: Path, clock: Clock) -> None:
    with project.open_store(clock=clock) as store:
        annotate(store, 6, "ann")
        first = project.freeze(store)
        again = project.freeze(store)
        assert (first.hash, first.rows) == (again.hash, 6) and len(first.hash) == 64
        record = list(store.export_annotations())
        tasks = list(store.tasks())
    rows = rows_of(first.folder)
    assert snapshot_hash(rows) == snapshot_hash(rows[::-1]) == first.hash
    with Store(tmp_path / "copy.sqlite", clock=clock) as copy:  # the same labels, stored backwards
        copy.add_tasks(tasks[::-1])
        copy.record(record[::-1])
        assert freeze(copy, tmp_path / "rounds", 0, heldout=0.25).hash == first.hash
    assert (tmp_path / "rounds" / ROWS).read_bytes() == (first.folder / ROWS).read_bytes()
    changed = [{**rows[0], "annotation": {**rows[0]["annotation"], "strength": 4}}, *rows[1:]]
    assert snapshot_hash(changed) != first.hash


def test_prompts_are_held_out_whole_and_stay_so(project: Project) -> None:
    """Of 60 prompts a quarter, 15 with standard deviation 3.4, is held out."""
    with project.open_store() as store:
        annotate(store, 60, "ann")
        first = project.freeze(store)
        split = {row["task"]["id"]: row["split"] for row in rows_of(first.folder)}
        assert 4 < first.heldout < 26
        store.add_tasks([task("pair", t.prompt[0].content, answer("other a"), answer("other b"), round=1) for t in pairs(60)])
        for _ in range(60):
            label(store, "ann")
        second = project.freeze(store)
        assert second.folder.name == "1" and second.rows == 120
        by_prompt: dict[str, set[str]] = {}
        for row in rows_of(second.folder):
            assert split.get(row["task"]["id"], row["split"]) == row["split"]
            by_prompt.setdefault(row["task"]["prompt"][0]["content"], set()).add(row["split"])
        assert all(len(splits) == 1 for splits in by_prompt.values())
    train = {e.prompt_id for e in read_examples(project.folder)}
    held = {e.prompt_id for e in read_examples(f"{project.folder}@heldout")}
    assert train and held and not train & held
    assert len(list(read_examples(f"{project.folder}@all"))) == 120
    assert len(list(read_examples(f"{first.folder}@all"))) == 60


def test_training_reads_what_was_frozen(project: Project) -> None:
    """By hand: the examples of a row are those of its annotation, with the snapshot's hash; rationales are not frozen."""
    with project.open_store() as store:
        store.add_annotator("Ann", id="ann")
        store.add_tasks(
            [*pairs(2), task("ranking", "Which?", answer("a"), answer("b"), answer("c")), task("rating", "Good?", answer("fine"))]
        )
        values = {"pair": {"choice": 1}, "ranking": {"ranks": [2, 1, 3]}, "rating": {"rating": 7}}
        said: list[tuple[Annotation, Task]] = []
        for _ in range(4):
            found = given(store, "ann")
            kind = found.task.kind
            made = store.submit("ann", found.task.id, found.token, submission(), kind, values[kind], rationale="Private.")
            said.append((made, found.task))
        snapshot = project.freeze(store)
    assert snapshot.examples == {"preference": 2, "ranking": 1, "labelled": 1}
    assert "Private" not in (snapshot.folder / ROWS).read_text("utf-8")
    read = {e.columns["annotation_id"]: e for e in read_examples(f"{project.folder}@all")}
    for annotation, on in said:
        (wanted,) = examples_of(annotation, on, snapshot=snapshot.hash, where=read[annotation.id].where)
        assert read[annotation.id] == wanted
    assert {e.where.split(" ")[0] for e in read.values()} == {"rounds/0/snapshot.jsonl"}
    assert [e.kind for e in read_examples(f"{project.folder}@all", kind="preference")].count("preference") == 2 + 3
    assert check(f"{project.folder}@all").kinds == {"preference": 2, "ranking": 1, "labelled": 1}


def test_a_project_without_a_snapshot_says_which_command_makes_one(project: Project) -> None:
    with pytest.raises(DataError, match=f"Freeze them with: accord project snapshot {project.folder}"):
        list(read_examples(project.folder))
    with project.open_store() as store, pytest.raises(DataError, match="There are no labels to freeze"):
        project.freeze(store)


def test_a_changed_snapshot_is_refused(project: Project) -> None:
    with project.open_store() as store:
        annotate(store, 3, "ann")
        snapshot = project.freeze(store)
    path = snapshot.folder / ROWS
    whole = path.read_text("utf-8")
    for damaged in (whole.replace('"choice": 1', '"choice": 0'), "".join(whole.splitlines(keepends=True)[1:])):
        path.write_text(damaged, "utf-8")
        with pytest.raises(DataError, match="is not what was frozen"):
            list(read_examples(project.folder))
    path.write_text(whole, "utf-8")
    with pytest.raises(ConfigError, match='no split "test"'):
        list(read_examples(f"{project.folder}@test"))


def test_other_labels_do_not_replace_a_snapshot_unasked(project: Project) -> None:
    with project.open_store() as store:
        annotate(store, 3, "ann")
        before = project.freeze(store)
        store.undo("ann", submission())
        label(store, "ann", "tie")
        with pytest.raises(DataError, match="Freeze into another round, or replace it with --replace"):
            project.freeze(store)
        after = project.freeze(store, replace_old=True)
    assert before.hash != after.hash == json.loads((after.folder / RECORD).read_text("utf-8"))["hash"]


def test_labels_that_teach_nothing_are_counted(project: Project) -> None:
    """Ratings 4 and 7, and a solution without a judged step: three rows, one example."""
    values: dict[str, list[dict[str, Any]]] = {"rating": [{"rating": 4}, {"rating": 7}], "steps": [{"labels": [None, None]}]}
    with project.open_store() as store:
        store.add_annotator("Ann", id="ann")
        store.add_tasks([task("rating", f"How good {n}?", answer("fine")) for n in range(2)] + [task("steps", "2+2?", answer("4", "So 4"))])
        for _ in range(3):
            found = given(store, "ann")
            store.submit("ann", found.task.id, found.token, submission(), found.task.kind, values[found.task.kind].pop())
        snapshot = project.freeze(store)
    assert (snapshot.rows, snapshot.examples, snapshot.no_example, snapshot.left_out) == (3, {"labelled": 1}, {"rating": 1, "steps": 1}, {})
    assert json.loads((snapshot.folder / RECORD).read_text("utf-8"))["no_example"] == {"rating": 1, "steps": 1}
    assert [e.columns["rating"] for e in read_examples(f"{project.folder}@all")] == [7]


def test_what_other_tools_said_is_not_frozen(project: Project) -> None:
    (asked,) = pairs(1)
    with project.open_store() as store:
        store.add_tasks([asked])
        store.record(
            [Annotation("x1", asked.id, "pair", {"choice": 0}, "ann", created="2024-05-01T12:00:00.000Z", columns={"worker": "Ada"})]
        )
        assert next(store.annotations()).columns == {"worker": "Ada"}
        snapshot = project.freeze(store)
    (row,) = rows_of(snapshot.folder)
    assert "columns" not in row["annotation"] and "Ada" not in json.dumps(row)


def test_what_is_left_out_is_counted(project: Project) -> None:
    with project.open_store() as store:
        annotate(store, 3, "ann")
        store.set_guideline("New words.", old_labels="flagged")
        store.add_tasks([task("edit", "Say hello.", answer("Helo.")), task("pair", "Skip me", answer("a"), answer("b"))])
        store.add_annotator("Bob", id="bob")
        for _ in range(2):
            found = given(store, "bob")
            kind, value = ("edit", {"of": 0, "text": "Hello."}) if found.task.kind == "edit" else ("skip", {"reason": "Dull."})
            store.submit("bob", found.task.id, found.token, submission(), kind, value)  # type: ignore[arg-type]
        disputed = pairs(3)[0].id
        store.adjudicate("bob", disputed, submission(), {"choice": "tie"})
        store.erase("bob")
        snapshot = project.freeze(store)
    assert snapshot.left_out == {"skip": 1, "erased": 1, "settled": 1} and snapshot.rows == 3
    record = json.loads((snapshot.folder / RECORD).read_text("utf-8"))
    assert record["erasures"][0]["annotations"] == 3 and record["erasures"][0]["texts"] == 2 and record["guideline"]["version"] == 2
    found = {e.columns["task_id"]: e for e in read_examples(f"{project.folder}@all")}
    assert found[disputed].probability == 0.5 and "old_guideline" not in found[disputed].columns
    assert [e.columns.get("old_guideline") for key, e in found.items() if key != disputed] == [True, True]
