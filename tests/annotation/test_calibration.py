"""The first tasks, which everybody labels: nobody sees what others said before they, and all who began, are done; then they see where they differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from accord.annotation.calibration import compare, in_words
from accord.annotation.project import Project
from accord.annotation.store import Store
from accord.cli import main
from accord.types import Annotation, Task
from labelling import answer, given, pair, pairs, reason, say, talk, task


def label_first(store: Store, name: str, count: int, *, contrary: int = -1) -> None:
    """Choose answer 0 of each of the first tasks, answer 1 of pair number `contrary`."""
    for _ in range(count):
        held = given(store, name)
        assert held.purpose == "calibration"
        say(store, name, held, int(held.task == pair(contrary)))


def test_notes_are_compared_once_all_are_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0)
    with project.open_store() as store:
        store.add_tasks(pairs(6))
        for name in ("ann", "bob", "eve"):
            store.add_annotator(name.title(), id=name)
    assert main(["project", "calibration", str(project.folder), "begin", "--tasks", "6"]) == 0
    assert "the same 6 tasks of round 0 first" in capsys.readouterr().out
    with project.open_store() as store:
        assert compare(store, 0, "ann").left == 6
        label_first(store, "ann", 6)
        label_first(store, "bob", 5, contrary=2)
        assert reason(store, "ann") == "calibration"
        half = compare(store, 0, "ann")
        assert (half.left, half.waiting, half.people, half.items) == (0, 1, 1, ())
        label_first(store, "bob", 1, contrary=2)
        found = compare(store, 0, "ann")
        assert (found.left, found.waiting, found.people) == (0, 0, 2) and len(found.items) == 6
        assert [item.differs for item in found.items] == [True, *[False] * 5]
        assert (found.items[0].task, found.items[0].mine, found.items[0].said) == (pair(2), "answer 1", {"answer 1": 1, "answer 2": 1})
        assert compare(store, 0, "eve").items == () and compare(store, 0, None).items[0].mine is None
    assert main(["project", "calibration", str(project.folder), "end"]) == 0
    with project.open_store() as store:
        assert store.phase(0) == "work" and reason(store, "ann") == "done"
        label_first(store, "eve", 1)
        assert compare(store, 0, "eve").left == 5 and compare(store, 0, "ann").waiting == 0


@pytest.mark.parametrize(
    ("on", "value", "words"),
    [
        (pair(1), {"choice": 1}, "answer 2"),
        (pair(1), {"choice": "tie"}, "a tie"),
        (pair(1), {"choice": "both_bad"}, "both bad"),
        (task("ranking", "Q", answer("a"), answer("b"), answer("c")), {"ranks": [2, 1, 2]}, "2 > 1 = 3"),
        (task("rating", "Q", answer("a")), {"rating": 5}, "5 of 7"),
        (task("steps", "Q", answer("a", "b")), {"first_error": 1}, "first error at step 2"),
        (task("steps", "Q", answer("a", "b")), {"first_error": None}, "no error"),
        (task("steps", "Q", answer("a", "b")), {"labels": [1, None]}, "right, not judged"),
        (task("edit", "Q", answer("a")), {"of": 0, "text": "b"}, "rewrote answer 1"),
        (task("chat", "Q", talk("a", "b", "c")), {"turns": [{"turn": 1, "rating": 3, "text": "d"}]}, "turn 2: 3 of 7 and rewritten"),
        (task("chat", "Q"), {"turns": [{"user": "a", "answers": ["b"]}]}, "turn 1: one answer"),
    ],
)
def test_what_was_said_in_words(on: Task, value: dict[str, object], words: str) -> None:
    assert in_words(Annotation("x", on.id, on.kind, value, "ann"), on) == words
