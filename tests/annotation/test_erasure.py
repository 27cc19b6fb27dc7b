"""Somebody's words, erased everywhere on request: tombstones and a note in each snapshot, and what stopped half way is finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accord.annotation.erasure import erase_everywhere
from accord.annotation.project import Project
from accord.annotation.refusals import Unknown
from accord.annotation.snapshot import Snapshot
from accord.cli import main
from accord.data.read import read_examples
from accord.data.snapshots import RECORD, ROWS, snapshot_hash
from accord.errors import DataError
from labelling import answer, given, pairs, submission, task

WORDS = "My very own words."


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Ann and Bob each compared a pair and rewrote an answer; frozen in round 0, and again in round 1."""
    project = Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0, heldout=0.0, overlap=2)
    with project.open_store() as store:
        store.add_tasks([*pairs(1), task("edit", "Say hello.", answer("Helo."))])
        for name in ("ann", "bob"):
            store.add_annotator(name.title(), id=name)
            for _ in range(2):
                found = given(store, name)
                value = {"choice": 0} if found.task.kind == "pair" else {"of": 0, "text": WORDS if name == "ann" else "Hello."}
                store.submit(name, found.task.id, found.token, submission(), found.task.kind, value)
        project.freeze(store, 0)
    return project


def snapshot_of(project: Project, round: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    folder = project.round_folder(round)
    rows = [json.loads(line) for line in (folder / ROWS).read_text("utf-8").splitlines()]
    return json.loads((folder / RECORD).read_text("utf-8")), rows


def test_each_snapshot_gets_tombstones_and_a_note(project: Project) -> None:
    before, _ = snapshot_of(project)
    with project.open_store() as store:
        project.freeze(store, 1)
        found = erase_everywhere(store, project.folder, "ann")
        assert found.snapshots == {"0": 1, "1": 1} and (found.erasure.annotations, found.erasure.texts) == (2, 1)
        for round in (0, 1):
            record, rows = snapshot_of(project, round)
            assert record["hashes_before"] == [before["hash"]] and record["hash"] == snapshot_hash(rows) != before["hash"]
            assert WORDS not in json.dumps(rows) and record["rows"] == len(rows) == 4 and record["tombstones"] == 1
            (note,) = record["erasures"]
            assert (note["annotator"], note["annotations"], note["texts"], note["after_freezing"]) == ("ann", 2, 1, True)
            assert before["examples"] == {"preference": 4, "demonstration": 2} and record["examples"] == {
                "preference": 3,
                "demonstration": 1,
            }
        read = list(read_examples(project.folder / "rounds" / "0"))
        assert len(read) == 4 and {e.columns["annotator"] for e in read if e.kind == "demonstration"} == {"bob"}
        done = snapshot_of(project)
        again = erase_everywhere(store, project.folder, "ann")
        assert again.erasure == found.erasure and again.snapshots == {"0": 0, "1": 0} and snapshot_of(project) == done
        later: Snapshot = project.freeze(store, 2)
    record, _ = snapshot_of(project, 2)
    assert later.left_out == {"erased": 1} and [note["annotator"] for note in record["erasures"]] == ["ann"]


def test_an_erasure_that_was_stopped_is_finished(project: Project) -> None:
    """A stop after the record was written and before the rows were: the rows are not the record's, and erasing again makes them so."""
    path = project.round_folder(0) / ROWS
    rows = path.read_text("utf-8")
    with project.open_store() as store:
        erase_everywhere(store, project.folder, "ann")
        done = path.read_text("utf-8")
        path.write_text(rows, "utf-8")
        with pytest.raises(DataError, match="is not what was frozen"):
            list(read_examples(project.folder))
        assert erase_everywhere(store, project.folder, "ann").snapshots == {"0": 1}
        assert path.read_text("utf-8") == done and list(read_examples(project.folder))
        path.write_text(rows.replace("Hello.", "Changed."), "utf-8")
        with pytest.raises(DataError, match="so nothing in it was erased"):
            erase_everywhere(store, project.folder, "ann")


def test_nobody_unknown_is_erased(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    with project.open_store() as store, pytest.raises(Unknown, match="no annotator 'eve'"):
        erase_everywhere(store, project.folder, "eve")
    assert main(["project", "people", str(project.folder)]) == 0
    assert "ann  Ann  annotator, 2 tasks given" in capsys.readouterr().out
    assert main(["project", "erase", str(project.folder), "ann"]) == 0
    told = capsys.readouterr().out
    assert "Erased ann: 1 texts are gone; 2 labels stay" in told and "rounds/0: a note, and 1 tombstones" in told
    assert main(["project", "people", str(project.folder)]) == 0 and "ann  (erased)" in capsys.readouterr().out
