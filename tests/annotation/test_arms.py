"""Which arm chose a pair decides where its label may go: evaluation has chance's alone, and the arms are compared label for label."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from accord.annotation.accuracies import Measured, keep, kept
from accord.annotation.assign import held_out
from accord.annotation.measures import arms
from accord.annotation.panel import judgements_of, panel
from accord.annotation.project import Project
from accord.annotation.snapshot import OPENING, split_prompt
from accord.annotation.store import Store
from accord.data.read import read_examples
from accord.errors import ConfigError, DataError
from accord.types import Annotation, Task
from accord.web.access import Access, server_key
from accord.web.app import create_app
from labelling import given, pair, say, task


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0, heldout=0.25, overlap=2)


def chosen(number: int, arm: str, *, round: int = 0) -> Task:
    made = pair(number, round=round)
    return replace(made, columns={"arm": arm})


def judged(store: Store, found: list[Task], *names: str) -> None:
    """Everybody judges everything; who comes second differs on the rule's pairs with an even number."""
    store.add_tasks(found)
    for name in names:
        store.add_annotator(name, id=name)
        for _ in found:
            held = given(store, name)
            number = int(held.task.prompt[0].content.split()[1].rstrip("?"))
            hard = held.task.columns["arm"] == "selected" and number % 2 == 0
            say(store, name, held, "tie" if number == 1 else int(hard and name != names[0]))


def test_a_rule_s_label_of_a_held_out_prompt_is_frozen_nowhere(project: Project) -> None:
    found = [chosen(number, "selected" if number % 2 else "random") for number in range(40)]
    held = {one.id for one in found if held_out(one.prompt_id, 0.25)}
    with project.open_store() as store:
        judged(store, found, "ann", "bob")
        frozen = project.freeze(store)
    lost = [one for one in found if one.id in held and one.columns["arm"] == "selected"]
    assert lost and frozen.left_out == {"selected": 2 * len(lost)} and frozen.rows == 2 * (40 - len(lost))
    assert frozen.heldout == 2 * (len(held) - len(lost))
    assert {row.columns["arm"] for row in read_examples(f"{project.folder}@heldout")} == {"random"}
    assert Counter(row.columns["arm"] for row in read_examples(str(project.folder)))["selected"] == 2 * (20 - len(lost))


def test_labels_given_elsewhere_are_held_out_by_the_task_s_arm(project: Project) -> None:
    """Another tool does not know which arm chose a pair: its labels say chance's, the task says the rule's."""
    found = [chosen(number, "selected") for number in range(12)]
    held = [one for one in found if held_out(one.prompt_id, 0.25)]
    with project.open_store() as store:
        store.add_tasks(found)
        store.record(Annotation(f"a{number}", one.id, "pair", {"choice": 0}, "tool") for number, one in enumerate(found))
        frozen = project.freeze(store)
    assert held and frozen.heldout == 0 and frozen.left_out == {"selected": len(held)}


def test_arms_are_of_rounds_that_had_both_and_equally_many(project: Project) -> None:
    """Round 0 is chance's alone; round 1 has 20 of the rule's and 8 of chance's, some of them held out."""
    first = [chosen(number, "random") for number in range(20)]
    second = [chosen(100 + number, "selected" if number < 20 else "random", round=1) for number in range(28)]
    with project.open_store() as store:
        for found, name in ((first, "ann"), (second, "bob")):
            judged(store, found, name)
        project.freeze(store, 1)
    parts = {arm: list(read_examples(f"{project.folder}@{arm}")) for arm in ("random", "selected")}
    scarce = sum(not held_out(one.prompt_id, 0.25) for one in second[20:])
    for arm, rows in parts.items():
        assert len(rows) == scarce > 0 and {row.columns["arm"] for row in rows} == {arm} and {row.columns["round"] for row in rows} == {1}
    assert parts["selected"] == list(read_examples(f"{project.folder}@selected"))
    assert {row.columns["task_id"] for row in parts["selected"]} != {one.id for one in second[:scarce]}  # not those that came first


def test_no_arms_and_no_such_split_are_said(project: Project) -> None:
    with project.open_store() as store:
        judged(store, [chosen(number, "random") for number in range(6)], "ann")
        project.freeze(store)
        assert panel(store).measures.arms == ()
    with pytest.raises(DataError, match="has no arms to compare"):
        list(read_examples(f"{project.folder}@random"))
    with pytest.raises(ConfigError, match="@selected"):
        list(read_examples(f"{project.folder}@clever"))


def test_what_was_said_of_each_arm(project: Project) -> None:
    """Twelve pairs each, judged twice: of the rule's the six with an even number are disputed, one of chance's is a tie for both."""
    found = [chosen(number, "random") for number in range(12)] + [chosen(100 + number, "selected") for number in range(12)]
    with project.open_store() as store:
        judged(store, found, "ann", "bob")
        random, selected = panel(store).measures.arms
        annotations = list(store.annotations())
    assert (random.arm, random.judgements, random.ties.hits, random.same.value) == ("random", 24, 2, 1.0)
    assert (selected.arm, selected.judgements, selected.ties.hits, selected.same.value) == ("selected", 24, 0, 0.5)
    by_id = {one.id: one for one in found}
    again = [replace(one, purpose="repeat", id=f"r{one.id}") for one in annotations]
    assert arms(judgements_of([*annotations, *again], by_id), [*annotations, *again]) == [random, selected]


def test_the_page_compares_the_arms(project: Project) -> None:
    """What was said of each, and what a reward model made of each is worth, once it was measured."""
    found = [chosen(number, "random") for number in range(4)] + [chosen(100 + number, "selected") for number in range(4)]
    with project.open_store() as store:
        judged(store, found, "ann", "bob")
        access = Access(store, server_key(project.folder), True, frozenset({"testserver"}))
        site = TestClient(create_app(store, access, title="Test", folder=project.folder))
        site.get("/")
        rows = re.findall(r"<tr><td>(chance|the rule)</td>(.*?)</tr>", site.get("/quality").text, re.DOTALL)
        assert [name for name, _ in rows] == ["chance", "the rule"] and all("not measured" in row for _, row in rows)
        keep(project.round_folder(0), [Measured(40, 0.55, 50, "runs/s", "selected"), Measured(40, 0.6, 50, "runs/r", "random")])
        page = site.get("/quality").text
        rows = re.findall(r"<tr><td>(chance|the rule)</td>(.*?)</tr>", page, re.DOTALL)
        assert "0.60" in rows[0][1] and "0.55" in rows[1][1] and "40 labels, 50 held-out pairs" in rows[1][1]
        assert "No reward model was measured on these labels yet" in page


def test_the_first_tasks_keep_their_arm(project: Project) -> None:
    """What everybody labels first is drawn from all tasks, those of the rule too."""
    with project.open_store() as store:
        store.add_tasks([chosen(number, "selected" if number % 2 else "random") for number in range(12)])
        store.begin_calibration(0, 12)
        store.add_annotator("Ann", id="ann")
        for _ in range(12):
            say(store, "ann", given(store, "ann"))
        labels = list(store.annotations())
        assert {one.purpose for one in labels} == {"calibration"}
        assert all(one.arm == store.task(one.task).columns["arm"] for one in labels) and {one.arm for one in labels} == {
            "random",
            "selected",
        }
        took = store.add_tasks([chosen(99, "selected")])
        assert took.added == 1 and store.take("ann", chosen(99, "selected").id, (1, 0)).arm == "selected"


def test_a_conversation_is_held_out_whole() -> None:
    first, second = task("pair", "Hello?"), task("pair", "And then?")
    assert split_prompt(first) == first.prompt_id
    assert split_prompt(replace(second, columns={OPENING: first.prompt_id})) == first.prompt_id
    assert split_prompt(replace(second, columns={OPENING: ["no", "id"]})) == second.prompt_id


def test_accuracies_of_an_arm_are_no_point_of_the_curve(tmp_path: Path) -> None:
    keep(tmp_path / "rounds" / "0", [Measured(100, 0.6, 50, "runs/all"), Measured(40, 0.55, 50, "runs/s", "selected")])
    assert [one.by for one in kept(tmp_path)] == ["runs/all"] and [one.arm for one in kept(tmp_path, arms=True)] == ["selected"]
    path = tmp_path / "rounds" / "0" / "accuracy.json"
    older = json.loads(path.read_text("utf-8"))
    for one in older["measured"]:
        del one["arm"]
    path.write_text(json.dumps(older), encoding="utf-8")
    assert len(kept(tmp_path)) == 2  # as releases wrote it that knew no arms


def test_annotations_of_one_task_keep_its_arm(project: Project) -> None:
    with project.open_store() as store:
        judged(store, [chosen(0, "selected")], "ann")
        (stored,) = store.annotations()
    assert isinstance(stored, Annotation) and stored.arm == "selected"
