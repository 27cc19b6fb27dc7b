"""Labels from other tools and back to them: every label is there with who gave it, a bad row is one line, and the way back gives the same rows."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accord.annotation.agreement import fleiss_kappa
from accord.annotation.export_labels import export_labels, format_names
from accord.annotation.import_labels import IMPORTED, LabelsImported, import_labels
from accord.annotation.panel import judgements_of, panel
from accord.annotation.project import Project
from accord.annotation.store import Store
from accord.cli import main
from accord.data.files import read_rows
from accord.data.read import read_examples
from accord.errors import DataError
from accord.types import Annotation, Task, content_hash
from foreign_labels import FILES, Foreign, assistant, user
from labelling import answer, given, pair, submission, talk, task

Row = dict[str, Any]
EACH = pytest.mark.parametrize("foreign", FILES, ids=lambda foreign: foreign.format)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0, heldout=0.0, overlap=3)


def brought(project: Project, path: Path, **more: Any) -> LabelsImported:
    with project.open_store() as store:
        return import_labels(store, path, **more)


def rows_in(path: Path) -> list[Row]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return [dict(row) for row in csv.DictReader(file)]
    return [dict(row) for row, _ in read_rows(path)]


def counted(rows: list[Row]) -> Counter[str]:
    """Rows whatever their order and that of their columns."""
    return Counter(json.dumps(row, sort_keys=True) for row in rows)


def best(store: Store, annotation: Annotation) -> str | None:
    """The text of the answer that a label prefers; None for a tie."""
    answers = store.task(annotation.task).completions
    if annotation.kind == "ranking":
        ranks: list[int] = annotation.value["ranks"]
        return None if ranks.count(1) > 1 else answers[ranks.index(1)].text
    choice = annotation.value["choice"]
    return None if choice == "tie" else answers[choice].text


@EACH
def test_every_label_is_there_with_who_gave_it(project: Project, tmp_path: Path, foreign: Foreign) -> None:
    found = brought(project, foreign.write(tmp_path))
    assert (found.layout, found.annotations.added, found.annotations.known, found.bad) == (foreign.format, len(foreign.said), 0, ())
    with project.open_store() as store:
        names = {person.id: person.name for person in store.annotators()}
        labels = list(store.annotations())
        said = [(names[one.annotator] if who else None, best(store, one)) for one, (who, _) in zip(labels, foreign.said, strict=True)]
        assert said == foreign.said and {one.source for one in labels} == {foreign.source}
        for one, (who, _) in zip(labels, foreign.said, strict=True):
            assert re.fullmatch("p-[0-9a-f]{12}", one.annotator) if who else one.annotator.startswith("import:")
        if foreign.shown_first:
            first = [store.task(one.task).completions[one.shown_order[0]].text for one in labels]
            assert first == foreign.shown_first
        for number, row in enumerate(labels):
            assert row.columns[IMPORTED]["layout"] == foreign.format and row.columns[IMPORTED]["row"], number
    again = brought(project, tmp_path / f"{foreign.format}{foreign.suffix}")
    assert (again.tasks.added, again.annotations.added, again.annotations.known) == (0, 0, len(foreign.said))


@EACH
def test_the_way_back_gives_the_same_rows(project: Project, tmp_path: Path, foreign: Foreign) -> None:
    path, back = foreign.write(tmp_path), tmp_path / f"back{foreign.suffix}"
    brought(project, path)
    with project.open_store() as store:
        found = export_labels(store, back, foreign.format, names=True)
        assert (found.labels, found.not_held, found.left_out, found.personal) == (len(foreign.said), {}, {}, ())
        assert counted(rows_in(back)) == counted(rows_in(path)) and not found.report.lost
        without = tmp_path / f"keys{foreign.suffix}"
        export_labels(store, without, foreign.format)
        keys = {person.name: person.id for person in store.annotators()}
    text, original = without.read_text("utf-8"), path.read_text("utf-8")
    for who in {who for who, _ in foreign.said if who is not None}:
        written = who if foreign.suffix == ".csv" else f'"{who}"'
        assert who.isdigit() or (written in original and written not in text)
        assert keys[who] in text
    assert len(rows_in(without)) == len(rows_in(path))
    other = Project.new(tmp_path / "other", gold_rate=0.0, repeat_rate=0.0)
    brought(other, without)
    with other.open_store() as store:
        labels = list(store.annotations())
        assert Counter(best(store, one) for one in labels) == Counter(text for _, text in foreign.said)
        assert {one.annotator for one in labels if one.annotator.startswith("p-")} == {
            keys[who] for who, _ in foreign.said if who is not None
        }


def stored(on: Task, value: Row, annotator: str, **more: Any) -> Annotation:
    """A label as another copy of the project would bring it."""
    identity = content_hash([on.id, annotator])
    return Annotation(identity, on.id, on.kind, value, annotator, created="2024-05-01T12:00:00.000Z", **more)


NATIVE = [
    "trl",
    "hh",
    "ultrafeedback",
    "openai_preference",
    "openai_comparisons",
    "argilla",
    "argilla_flat",
    "label_studio",
    "potato",
    "csv",
]


@pytest.mark.parametrize("format", [*NATIVE, "label_studio_ranker"])
def test_labels_made_here_leave_in_every_format_and_come_back(project: Project, tmp_path: Path, format: str) -> None:
    """Two people on two pairs with strengths and one tie; a ranking of three by one of them where the format is one of rankings."""
    ranking = task("ranking", "Which?", answer("a"), answer("b"), answer("c"))
    choices: dict[str, tuple[Any, Any]] = {"a-000000000000": (0, 1), "a-000000000001": (0, "tie")}
    made = [
        stored(asked, {"choice": choice}, key, strength=None if choice == "tie" else 3, seconds=5.0)
        for key, both in choices.items()
        for asked, choice in zip((pair(0), pair(1)), both, strict=True)
    ]
    if format == "label_studio_ranker":
        made.append(stored(ranking, {"ranks": [2, 3, 1]}, "a-000000000000"))
    with project.open_store() as store:
        store.add_tasks([pair(0), pair(1), *([ranking] if format == "label_studio_ranker" else [])])
        for key in choices:
            store.add_annotator(f"{key} the annotator", id=key)
        store.record(made)
        path = tmp_path / f"out{'.csv' if format == 'csv' else '.jsonl'}"
        exported = export_labels(store, path, format)
        before = {(one.annotator, best(store, one)): one for one in store.annotations()}
    no_tie = format in ("hh", "openai_preference", "openai_comparisons", "label_studio", "label_studio_ranker")
    assert exported.not_held == ({"tie": 1} if no_tie else {}) and exported.labels == len(before) - no_tie
    assert "the annotator" not in path.read_text("utf-8")
    other = Project.new(tmp_path / "other", gold_rate=0.0, repeat_rate=0.0)
    brought(other, path)
    with other.open_store() as store:
        after = {(one.annotator, best(store, one)): one for one in store.annotations()}
        assert after.keys() == {key for key in before if not (no_tie and key[1] is None)}
        for key, one in after.items():
            if format in ("trl", "hh", "openai_preference", "csv"):
                assert (one.strength, one.seconds, one.created, one.id) == (before[key].strength, 5.0, before[key].created, before[key].id)
            if format == "potato":
                assert one.strength == before[key].strength


def test_what_a_format_has_no_place_for_is_counted(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both bad, a tie, a rating of 4, a skip and a conversation: HH takes the choices, and the conversation is one."""
    talked = task("pair", "Hi", answer("4"), answer("5"))
    asked = [pair(0), pair(1), task("rating", "Good?", answer("fine")), pair(2), pair(3), talked]
    values: list[Row] = [{"choice": "both_bad"}, {"choice": "tie"}, {"rating": 4}, {"reason": "Dull."}, {"choice": 0}, {"choice": 1}]
    with project.open_store() as store:
        store.add_tasks(asked)
        said = [stored(one, value, "ann") for one, value in zip(asked, values, strict=True)]
        store.record([replace(one, kind="skip") if "reason" in one.value else one for one in said])
    assert main(["project", "export", str(project.folder), str(tmp_path / "out.jsonl"), "--format", "hh"]) == 0
    told = capsys.readouterr().out
    assert "Wrote 2 labels in 2 rows" in told and "No place in this format: 1 both bad, 1 rating of 4, 1 tie." in told
    assert "Not labels to pass on: 1 skip." in told
    assert main(["project", "export", str(project.folder), str(tmp_path / "out.jsonl"), "--format", "labelled"]) == 0
    assert len(rows_in(tmp_path / "out.jsonl")) == 2 and "4 pair" not in capsys.readouterr().out
    assert main(["project", "export", str(project.folder), str(tmp_path / "out.jsonl"), "--format", "steps"]) == 3
    assert "No label of the project fits into the format steps" in capsys.readouterr().err
    assert main(["project", "export", str(project.folder), str(tmp_path / "out.jsonl"), "--format", "xml"]) == 2
    assert "trl" in format_names() and 'no format "xml" for labels' in capsys.readouterr().err


def test_rewrites_and_turns_leave_as_conversational_rows(project: Project, tmp_path: Path) -> None:
    """A rewrite of the second turn of a conversation: a preference and a demonstration, their prompts the conversation up to there."""
    asked = task("chat", "Hi", talk("Hello.", "2+2?", "5"))
    with project.open_store() as store:
        store.add_tasks([asked])
        store.add_annotator("Ann", id="ann")
        found = given(store, "ann")
        store.submit("ann", asked.id, found.token, submission(), "chat", {"turns": [{"turn": 1, "text": "4"}]})
        export_labels(store, tmp_path / "pairs.jsonl", "trl")
        export_labels(store, tmp_path / "sft.jsonl", "prompt_completion")
    (pairs,), (sft,) = rows_in(tmp_path / "pairs.jsonl"), rows_in(tmp_path / "sft.jsonl")
    turns = [user("Hi"), assistant("Hello."), user("2+2?")]
    assert (pairs["prompt"], pairs["chosen"], pairs["rejected"], pairs["turn"]) == (turns, [assistant("4")], [assistant("5")], 1)
    assert (sft["prompt"], sft["completion"], sft["annotator"]) == (turns, [assistant("4")], "ann")


BAD: list[tuple[str, Row, str]] = [
    ("label_studio.json", {"id": 1, "data": {"prompt": "Hi?", "answer1": "a", "answer2": "b"}, "annotations": []}, "has no annotation with a pairwise or ranker result"),
    ("argilla.jsonl", {"id": "r", "fields": {"prompt": "Hi?"}, "responses": {}, "status": "pending"}, "has no response with a ranking"),
    ("potato.jsonl", {"prompt": "Hi?", "responses": ["a", "b"], "preference": {"selection": "C"}}, '"preference" selects "C"'),
    ("openai.jsonl", {"info": {"post": "x"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 2}, 'field "choice" is 2'),
    ("pairs.jsonl", {"prompt": "Hi?", "chosen": "a", "rejected": 5}, 'field "rejected" must be text'),
    ("same.jsonl", {"prompt": "Hi?", "chosen": "a", "rejected": "a"}, "has the same answer twice"),
    ("talk.jsonl", {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}, "is a demonstration, which judges no answer"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "message"), BAD, ids=[name for name, _, _ in BAD])
def test_a_bad_row_is_one_line_and_nothing_is_stored(project: Project, tmp_path: Path, name: str, row: Row, message: str) -> None:
    path = tmp_path / name
    path.write_text(json.dumps([row]) if name.endswith(".json") else json.dumps(row) + "\n", "utf-8")
    with pytest.raises(DataError) as caught:
        brought(project, path)
    told = str(caught.value)
    assert told.startswith((f"{name} line 1", f"{name} row 1")) and message in told and "\n" not in told
    with project.open_store() as store:
        assert list(store.tasks()) == [] and list(store.annotations()) == []


def test_bad_rows_are_left_out_by_name_where_that_is_asked(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {"prompt": "Hi?", "responses": ["a", "b"], "preference": {"selection": "A"}, "annotator": "ada"}
    path = tmp_path / "mixed.jsonl"
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in (good, {**good, "preference": {"selection": "C"}}, {**good, "prompt": "Hey?"})), "utf-8"
    )
    arguments = ["project", "import-labels", str(project.folder), str(path)]
    assert main(arguments) == 3
    assert "mixed.jsonl line 2" in capsys.readouterr().err
    assert main([*arguments, "--skip-bad"]) == 0
    told = capsys.readouterr().out
    assert "2 labels of 1 annotators added (potato), 0 were there; 2 tasks are new." in told
    assert "Left out: mixed.jsonl line 2" in told and "1 rows were left out." in told


def test_labels_land_on_tasks_that_are_there_whatever_their_order(project: Project, tmp_path: Path) -> None:
    row = {"prompt": [user("Question 1?")], "chosen": [assistant("no 1")], "rejected": [assistant("yes 1")], "annotator": "ada"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    with project.open_store() as store:
        store.add_tasks([pair(1)])
    found = brought(project, tmp_path / "a.jsonl")
    assert (found.tasks.added, found.tasks.known) == (0, 1)
    with project.open_store() as store:
        (label,) = store.annotations()
        assert (label.task, label.value) == (pair(1).id, {"choice": 1}) and store.progress().answers == 1
        assert panel(store).judgements == 1
        project.freeze(store)
    (example,) = read_examples(f"{project.folder}@all")
    assert [c.text for c in example.completions] == ["no 1", "yes 1"]


VOTES = {"annotator1": 2, "annotator2": 1, "annotator3": 0}


def voted(instruction: str, **votes: int) -> Row:
    return {"idx": 1, "instruction": instruction, "input": "", "response1": "One.", "response2": "Two.", **votes}


def test_annotators_who_share_a_row_are_as_many_labels(project: Project, tmp_path: Path) -> None:
    """Three votes on one pair by three people, one pair with one vote, and back again as two rows. The vote of somebody who was erased leaves alone."""
    path, back = tmp_path / "pandalm.json", tmp_path / "back.json"
    path.write_text(json.dumps([voted("Count.", **VOTES), voted("Add.", annotator1=2)]), "utf-8")
    found = brought(project, path)
    assert (found.layout, found.tasks.added, found.annotations.added) == ("pandalm", 2, 4)
    assert (again := brought(project, path)).annotations.added == 0 and again.annotations.known == 4
    with project.open_store() as store:
        names = {person.id: person.name for person in store.annotators()}
        said = {names[one.annotator]: best(store, one) for one in store.annotations()}
        assert said == {"annotator1": "Two.", "annotator2": "One.", "annotator3": None, "pandalm, not named": "Two."}
        assert all(one.probability in (None, 0.5) and one.columns["idx"] == 1 for one in store.annotations())
        assert panel(store).judgements == 3
        for readable in (True, False):
            assert export_labels(store, back, "pandalm", names=readable).not_held == {}
            assert counted(rows_in(back)) == counted(rows_in(path))
        store.erase(next(key for key, name in names.items() if name == "annotator2"))
        export_labels(store, back, "pandalm")
        left = {name: vote for name, vote in VOTES.items() if name != "annotator2"}
        kept = [row for row in rows_in(back) if "annotation_id" not in row]
        assert counted(kept) == counted([voted("Count.", **left), voted("Add.", annotator1=2)]) and len(rows_in(back)) == 3
        store.erase(next(key for key, name in names.items() if name == "annotator1"))
        export_labels(store, back, "pandalm", names=True)
        alone = {**voted("Count.", annotator1=0), "annotator": "annotator3"}
        kept = [row for row in rows_in(back) if "annotation_id" not in row]
        assert counted(kept) == counted([alone, voted("Add.", annotator1=2)]) and len(rows_in(back)) == 4


def test_on_either_database(where: str, tmp_path: Path) -> None:
    """Labels of people come, count, leave as they came, and lose what names them when those people are erased."""
    foreign = next(one for one in FILES if one.format == "argilla")
    path = foreign.write(tmp_path)
    with Store(where) as store:
        for added in (3, 0):
            assert import_labels(store, path).annotations.added == added
        assert export_labels(store, tmp_path / "back.jsonl", "argilla", names=True).labels == 3
        assert counted(rows_in(tmp_path / "back.jsonl")) == counted(foreign.rows) and store.progress().answers == 3
        ada = next(person for person in store.annotators() if person.name == "ada")
        assert store.erase(ada.id).texts == 2 and [one.columns for one in store.annotations(annotator=ada.id)] == [{}, {}]


def test_labels_that_name_nobody_say_nothing_about_agreement(project: Project, tmp_path: Path) -> None:
    """A row that is there twice is no agreement of two people; three people who did sign are compared."""
    row = {"prompt": "Hi?", "chosen": "a", "rejected": "b"}
    signed = [{**row, "annotator": name} for name in ("ada", "bob", "eve")]
    for name, rows in (("unsigned", [row, row]), ("signed", signed)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), "utf-8")
        brought(project, tmp_path / f"{name}.jsonl")
    with project.open_store() as store:
        found = panel(store)
    assert (found.judgements, len(found.annotators)) == (3, 3) and found.same.judgements == 3
    assert found.words[-1] == "2 imported labels name nobody, and are in none of these numbers."


HOSTILE_NAMES = [
    "<script>alert(1)</script>",
    "'; DROP TABLE annotations; --",
    "a\nb\x00c",
    "half \ud83d",
    "../../etc/passwd",
    "n" * 5000,
    "me",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: ascii(name)[:20])
def test_whatever_an_annotator_is_called_is_a_name_and_nothing_else(where: str, tmp_path: Path, name: str) -> None:
    row = {"prompt": "Hi?", "chosen": "a", "rejected": "b", "annotator": name, "note": "\x00 \ud83d"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    with Store(where) as store:
        import_labels(store, tmp_path / "rows.jsonl")
        (person,), (label,) = store.annotators(), store.annotations()
        assert label.annotator == person.id and re.fullmatch("p-[0-9a-f]{12}", person.id)
        assert person.name.isprintable() and len(person.name) <= 200 and label.columns["annotator"] == name
        export_labels(store, tmp_path / "out.jsonl", "trl")
        assert rows_in(tmp_path / "out.jsonl")[0]["annotator"] == person.id
        export_labels(store, tmp_path / "named.jsonl", "trl", names=True)
        assert rows_in(tmp_path / "named.jsonl")[0] == row


def test_our_own_rows_bring_nothing_twice(project: Project, tmp_path: Path) -> None:
    """A ranking of three leaves as three pairs of one annotation; back here they are known, elsewhere they are three labels."""
    ranking = task("ranking", "Which?", answer("a"), answer("b"), answer("c"))
    with project.open_store() as store:
        store.add_tasks([ranking])
        store.record([stored(ranking, {"ranks": [2, 3, 1]}, "a-000000000000")])
        assert export_labels(store, tmp_path / "out.jsonl", "trl").labels == 3
    here = brought(project, tmp_path / "out.jsonl")
    assert (here.tasks.added, here.annotations.added, here.annotations.known) == (0, 0, 3)
    other = Project.new(tmp_path / "other", gold_rate=0.0, repeat_rate=0.0)
    for added in (3, 0):
        there = brought(other, tmp_path / "out.jsonl")
        assert (there.tasks.added, there.annotations.added, there.annotations.known) == (added, added, 3 - added)
    with other.open_store() as store:
        assert sorted(best(store, one) or "" for one in store.annotations()) == ["a", "c", "c"]


def test_what_had_to_be_decided_is_said(project: Project, tmp_path: Path) -> None:
    """Thumbs become ratings of 7 and 1, a strength of 7.5 has no level, and of two labels by one person the newest counts."""
    thumbs = [{"prompt": "Hi?", "completion": "Yo.", "label": True}, {"prompt": "Hi?", "completion": "No.", "label": False}]
    (tmp_path / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in thumbs), "utf-8")
    assert brought(project, tmp_path / "thumbs.jsonl").notes == {"labels that say only good or bad: stored as ratings of 7 and 1": 2}
    row = {"prompt": "Hi?", "chosen": "a", "rejected": "b", "annotator": "ada"}
    rows = [
        {**row, "margin": 7.5, "created": "2024-01-01"},
        {**row, "chosen": "b", "rejected": "a", "margin": 1 / 3, "created": "2024-01-02"},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    notes = brought(project, tmp_path / "pairs.jsonl").notes
    assert len(notes) == 2 and all(count == 1 for count in notes.values())
    assert any(note.startswith("strengths that are none of the four levels") for note in notes) and any(
        "the newest counts" in note for note in notes
    )
    with project.open_store() as store:
        assert len(list(store.annotations(valid=False, kind="pair"))) == 2
        (counts,) = store.annotations(kind="pair")
        assert counts.strength == 2 and counts.created == "2024-01-02T00:00:00.000Z"
        assert sorted(one.value["rating"] for one in store.annotations(kind="rating")) == [1, 7]


def test_a_format_may_be_named_and_columns_mapped(project: Project, tmp_path: Path) -> None:
    with (tmp_path / "votes.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["ask", "one", "two", "vote", "rater"], ["Hi?", "Hello.", "What?", "second", "ada"]])
    mapped = ["--columns", "prompt=ask", "answer_a=one", "answer_b=two", "winner=vote", "--source", "ai"]
    assert main(["project", "import-labels", str(project.folder), str(tmp_path / "votes.csv"), *mapped]) == 0
    with project.open_store() as store:
        (label,) = store.annotations()
        assert (best(store, label), label.source) == ("What?", "ai") and store.annotator(label.annotator).name == "ada"
    with pytest.raises(DataError, match="Potato judgements need"):
        brought(project, FILES[0].write(tmp_path), format="potato")


def named(text: str) -> bool:
    """Whether ada's name is in it; random ids may hold the same letters."""
    return re.search(r"\bada\b", text) is not None


def test_somebody_erased_is_not_brought_back(project: Project, tmp_path: Path) -> None:
    foreign = next(one for one in FILES if one.format == "potato")
    path = foreign.write(tmp_path)
    brought(project, path)
    with project.open_store() as store:
        ada = next(person for person in store.annotators() if person.name == "ada")
        store.erase(ada.id)
        assert all(one.columns == {} for one in store.annotations(annotator=ada.id)) and not named(str(list(store.annotations())))
        kept = export_labels(store, tmp_path / "out.jsonl", "potato", names=True)
    assert kept.labels == 3 and not named((tmp_path / "out.jsonl").read_text("utf-8"))
    with pytest.raises(DataError, match="potato.jsonl line 1 is by somebody whose data were erased"):
        brought(project, path)


@pytest.mark.parametrize(
    ("file", "layout", "labels"),
    [("hh_harmless_test/harmless-base_test.jsonl.gz", "hh", 2312), ("hh_helpful_test/helpful.test.json.gz", "hh_scored", 2352), ("llmbar/Natural.json", "llmbar", 100)],
)  # fmt: skip
def test_real_files_come_in_and_leave_row_by_row(
    project: Project, tmp_path: Path, shared_data: Path, file: str, layout: str, labels: int
) -> None:
    found = brought(project, shared_data / file)
    assert (found.layout, found.annotations.added, found.bad) == (layout, labels, ())
    with project.open_store() as store:
        written = export_labels(store, tmp_path / "back.jsonl", layout)
    assert (written.labels, written.not_held, written.left_out) == (labels, {}, {})
    assert rows_in(tmp_path / "back.jsonl") == rows_in(shared_data / file)


def test_real_trees_give_their_rankings(project: Project, tmp_path: Path, shared_data: Path) -> None:
    """212 ranked questions of 100 trees; the way out as TRL's rankings gives the same order of the same answers."""
    path = shared_data / "oasst_en100" / "en_100_tree.jsonl"
    found = brought(project, path)
    assert (found.layout, found.annotations.added) == ("oasst_trees", 212)
    with project.open_store() as store:
        written = export_labels(store, tmp_path / "out.jsonl", "ranking")
    assert written.labels == 212 and written.not_held == {'column "message_tree_id", by which a row is taken for oasst_trees': 212}

    def orders(source: Path) -> Counter[tuple[str, ...]]:
        found = Counter[tuple[str, ...]]()
        for example in read_examples(source):
            ranked = sorted(zip(example.ranks or (), (c.text for c in example.completions), strict=True))
            found[(example.prompt_id, *(text for _, text in ranked))] += 1
        return found

    assert orders(tmp_path / "out.jsonl") == orders(path)


def test_real_votes_are_three_annotators(project: Project, tmp_path: Path, shared_data: Path) -> None:
    """993 readable rows by three people each. 132 ask what another row asks, so 861 pairs are left; Fleiss' kappa of all 999 rows is 0.864."""
    path = shared_data / "pandalm_test" / "testset-v1.json"
    found = brought(project, path, skip_bad=True)
    assert (found.tasks.added, found.annotations.added, found.annotators, len(found.bad)) == (861, 2979, 3, 6)
    with project.open_store() as store:
        judged = judgements_of(store.annotations(), {task.id: task for task in store.tasks()})
        assert round(fleiss_kappa(judged, draws=2).value or 0, 3) == 0.861
        assert export_labels(store, tmp_path / "back.json", "pandalm").labels == 3 * 861
    back = counted(rows_in(tmp_path / "back.json"))
    assert back.total() == 861 and back <= counted(rows_in(path))
