"""`accord annotate` fills a project: with answers sampled from a model, or with those that rows have; and invites people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny_demo
from accord.annotation.project import Project
from accord.commands.annotate import fill
from accord.commands.project import run
from accord.config.options import AnnotateOptions
from accord.errors import ConfigError

PROMPTS = [{"prompt": f"Question number {number}?"} for number in range(4)]


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("answers", "kind"), [(2, "pair"), (4, "ranking")])
def test_sampled_answers_become_tasks_once(tmp_path: Path, answers: int, kind: str) -> None:
    model = tiny_demo.model_folder(tmp_path / "model")
    project = Project.new(tmp_path / "labels")
    data = write(tmp_path / "prompts.jsonl", PROMPTS)
    options = AnnotateOptions(str(project.folder), data=data, model=model, answers=answers, max_new_tokens=6, limit=3)
    fill(project, options)
    with project.open_store() as store:
        first = list(store.tasks())
    assert len(first) == 3 and {task.kind for task in first} == {kind}
    for task in first:
        texts = [completion.text for completion in task.completions]
        assert len(set(texts)) == len(texts) == answers and {c.source["kind"] for c in task.completions} == {"sample"}
    fill(project, options)  # samples that are there are read, tasks that are there stay
    with project.open_store() as store:
        assert list(store.tasks()) == first


def test_answers_that_rows_have_are_judged(tmp_path: Path) -> None:
    project = Project.new(tmp_path / "labels")
    data = write(tmp_path / "pairs.jsonl", [{"prompt": "Which?", "chosen": "this", "rejected": "that"}])
    fill(project, AnnotateOptions(str(project.folder), data=data))
    with project.open_store() as store:
        (task,) = store.tasks()
    assert task.kind == "pair" and {completion.text for completion in task.completions} == {"this", "that"}


def test_prompts_without_a_model_are_refused(tmp_path: Path) -> None:
    project = Project.new(tmp_path / "labels")
    with pytest.raises(ConfigError, match="no answers to judge. Give --model"):
        fill(project, AnnotateOptions(str(project.folder), data=write(tmp_path / "prompts.jsonl", PROMPTS)))
    with pytest.raises(ConfigError, match="give them with --data"):
        AnnotateOptions("labels", model="m")


def test_an_invitation_is_a_link_that_signs_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project.new(tmp_path / "labels")
    assert run(["invite", str(project.folder), "Ada", "--role", "viewer", "--site", "https://label.example.org/"]) == 0
    link = next(word for word in capsys.readouterr().out.split() if word.startswith("https://label.example.org/join/"))
    with project.open_store() as store:
        found = store.annotator_of_secret(link.rsplit("/", 1)[1])
    assert found is not None and (found.name, found.role) == ("Ada", "viewer")
