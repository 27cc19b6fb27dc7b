"""Tasks that somebody reported: listed with the reasons until they are settled, given to nobody or out again as an administrator says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from accord.annotation.panel import Reported, panel
from accord.annotation.project import Project
from accord.annotation.refusals import Unknown
from accord.annotation.store import Store
from accord.cli import main
from accord.errors import DataError
from accord.types import Task, task_id
from labelling import given, label, pair, pairs, prompt, reason, submission

Opened = Callable[..., Store]


def report(store: Store, annotator: str, words: str, kind: str = "flag") -> str:
    """Report, or skip, the next task; its id."""
    held = given(store, annotator)
    store.submit(annotator, held.task.id, held.token, submission(), kind, {"reason": words})  # type: ignore[arg-type]
    return held.task.id


def test_reports_are_listed_until_they_are_settled(opened: Opened) -> None:
    store = opened(overlap=2)
    store.add_tasks(pairs(3))
    for name in ("ann", "bob"):
        store.add_annotator(name, id=name)
    first = report(store, "ann", "no sense")
    assert report(store, "bob", "personal") == first  # given out all the same
    report(store, "ann", "too hard", "skip")
    assert panel(store).reported == (Reported(first, ("no sense", "personal"), False),)
    store.retire(first)
    assert panel(store).reported == (Reported(first, ("no sense", "personal"), True),)
    store.adjudicate("ann", first, submission(), {"choice": "both_bad"})
    assert panel(store).reported == ()


def test_a_task_is_retired_and_given_out_again(opened: Opened) -> None:
    """To nobody, then to those that it still wants; one that has its answers stays closed."""
    store = opened()
    store.add_tasks([pair(0)])
    for name in ("ann", "bob"):
        store.add_annotator(name, id=name)
    store.retire(pair(0).id)
    assert reason(store, "ann") == "done" and store.progress().retired == 1
    store.reopen(pair(0).id)
    assert label(store, "ann").task == pair(0).id
    store.retire(pair(0).id)
    store.reopen(pair(0).id)
    assert reason(store, "bob") == "done" and store.progress().closed == 1
    with pytest.raises(Unknown):
        store.reopen("nothing")
    told = Task(task_id("chat", prompt("Q")), "chat", prompt("Q"))
    store.add_tasks([told])
    with pytest.raises(DataError, match="has no answers"):
        store.reopen(told.id)


def test_the_command_says_what_was_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an annotator typed cannot steer the terminal."""
    project = Project.new(tmp_path / "labels", gold_rate=0.0, repeat_rate=0.0)
    with project.open_store() as store:
        store.add_tasks(pairs(1))
        store.add_annotator("Ann", id="ann")
        report(store, "ann", "red \x1b[31m\nink")
        store.retire(pair(0).id)
    assert main(["project", "quality", str(project.folder)]) == 0
    assert f"Task {pair(0).id} was reported, and is given to nobody: red  [31m ink\n" in capsys.readouterr().out
