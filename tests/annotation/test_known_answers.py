"""`accord project import-tasks --gold`: what rows say becomes the right answer of a task, in the order in which the task has its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from accord.annotation.exchange import export_file, import_file
from accord.annotation.panel import panel
from accord.annotation.project import Project
from accord.annotation.store import Store
from accord.cli import main
from accord.errors import AccordError, ConfigError, DataError
from labelling import given, say


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.new(tmp_path / "labels", gold_rate=1.0 - 2**-20, repeat_rate=0.0)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


PAIRS: list[dict[str, Any]] = [
    {"prompt": f"Q{number}?", "chosen": f"right {number}", "rejected": f"wrong {number}"} for number in range(20)
]


def test_pairs_say_which_answer_is_right(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The right answer stands first about half of the time; who always prefers it is right on each, and none of it is frozen."""
    path = write(tmp_path / "known.jsonl", PAIRS)
    assert main(["project", "import-tasks", str(project.folder), str(path), "--gold"]) == 0
    assert "20 tasks and 0 annotations added" in capsys.readouterr().out
    with project.open_store() as store:
        tasks = list(store.tasks(role="gold"))
        assert len(tasks) == 20 and all(task.completions[task.gold["choice"]].text.startswith("right") for task in tasks if task.gold)
        assert {task.gold["choice"] for task in tasks if task.gold} == {0, 1}
        store.add_annotator("Ann", id="ann")
        for _ in range(20):
            held = given(store, "ann")
            assert held.purpose == "gold" and "gold" not in held.shown()
            say(store, "ann", held, next(place for place, one in enumerate(held.task.completions) if one.text.startswith("right")))
        (report,) = panel(store).annotators
        assert (report.gold.hits, report.gold.count) == (20, 20)
        with pytest.raises(DataError, match="20 gold are left out"):
            project.freeze(store)


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": "Q?", "completions": ["a", "b", "c"], "ranks": [2, 1, 2]}, {"a": 2, "b": 1, "c": 2}),
        ({"prompt": "Q?", "completions": ["one", "two"], "labels": [True, False]}, [1, -1]),
        ({"prompt": "Q?", "answer_a": "a", "answer_b": "b", "winner": "tie"}, "tie"),
    ],
)
def test_other_rows_that_know(project: Project, tmp_path: Path, row: dict[str, Any], wanted: Any) -> None:
    with project.open_store() as store:
        import_file(store, write(tmp_path / "known.jsonl", [row]), gold=True)
        (task,) = store.tasks()
    assert task.gold is not None
    if task.kind == "ranking":
        assert {answer.text: rank for answer, rank in zip(task.completions, task.gold["ranks"], strict=True)} == wanted
    else:
        assert task.gold in ({"labels": wanted}, {"choice": wanted})


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "Q?", "completion": "a", "label": True}, None),
        ({"prompt": "Q?", "completion": "a"}, None),
        ({"prompt": "Q?", "chosen": "a", "rejected": "b"}, "rating"),
    ],
)
def test_rows_that_do_not_know_are_refused(project: Project, tmp_path: Path, row: dict[str, Any], kind: Any) -> None:
    path = write(tmp_path / "known.jsonl", [row])
    with project.open_store() as store:
        with pytest.raises(AccordError, match=r"known.jsonl line 1: a \w+ does not say for certain") as raised:
            import_file(store, path, kind=kind, gold=True)
        assert "\n" not in str(raised.value) and list(store.tasks()) == []


def test_an_export_says_itself_what_is_gold(project: Project, tmp_path: Path) -> None:
    with project.open_store() as store:
        import_file(store, write(tmp_path / "known.jsonl", PAIRS[:3]), gold=True)
        export_file(store, tmp_path / "tasks.jsonl")
        with pytest.raises(ConfigError, match="is an export"):
            import_file(store, tmp_path / "tasks.jsonl", gold=True)
    with Store(tmp_path / "other.sqlite") as other:
        import_file(other, tmp_path / "tasks.jsonl")
        assert len(list(other.tasks(role="gold"))) == 3
