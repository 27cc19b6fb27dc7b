"""Questions whose evidence is hidden from the judge: one passage, one question, two answers of which one is right. From a file of the user's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.errors import DataError
from accord.types import content_hash

NEEDS = (
    "A row needs question, evidence, and right and wrong (or answers, a list of two, where nobody knows which is right). See docs/debate.md"
)


@dataclass(frozen=True)
class HiddenTask:
    """A question about evidence that only debaters read."""

    question: str
    evidence: str
    answers: tuple[str, str]
    """In an order that says nothing about which is right."""
    right: int | None
    """Index of the right answer. None: nobody knows; verdicts are made and no accuracy is measured."""
    where: str = ""

    @property
    def id(self) -> str:
        """Stable id from question, evidence and answers (16 hex digits)."""
        return content_hash(["hidden", self.question, self.evidence, list(self.answers)])


def task_of(question: str, evidence: str, right: str, wrong: str, where: str = "") -> HiddenTask:
    """A task whose right answer comes first or second by its content alone."""
    turned = int(content_hash(["side", question, sorted((right, wrong))], 2), 16) % 2
    return HiddenTask(question, evidence, (wrong, right) if turned else (right, wrong), turned, where)


def read_tasks(path: Path) -> list[HiddenTask]:
    """Tasks from a JSON Lines file.

    Raises:
        DataError: if there is no such file, or a row is none. Names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}. Give a JSON Lines file: {NEEDS}") from error
    found = [_task(line, f"{path.name} line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise DataError(f"{path} holds no tasks. {NEEDS}")
    return found


def as_row(task: HiddenTask) -> dict[str, Any]:
    """A task as a row of such a file."""
    said = {"question": task.question, "evidence": task.evidence}
    if task.right is None:
        return {**said, "answers": list(task.answers)}
    return {**said, "right": task.answers[task.right], "wrong": task.answers[1 - task.right]}


def _task(line: str, where: str) -> HiddenTask:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}). {NEEDS}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where} is no object. {NEEDS}")
    question, evidence = _text(row, "question", where), _text(row, "evidence", where)
    if "answers" not in row:
        return _different(task_of(question, evidence, _text(row, "right", where), _text(row, "wrong", where), where))
    answers = row["answers"]
    if not isinstance(answers, list) or len(answers) != 2 or not all(isinstance(one, str) and one.strip() for one in answers):
        raise DataError(f"{where}: answers must be a list of two texts. {NEEDS}")
    right = row.get("right")
    if right is not None and right not in answers:
        raise DataError(f"{where}: right is {right!r}, which is none of its answers. {NEEDS}")
    task = HiddenTask(question, evidence, (answers[0].strip(), answers[1].strip()), None if right is None else answers.index(right), where)
    return _different(task)


def _different(task: HiddenTask) -> HiddenTask:
    if task.answers[0] == task.answers[1]:
        raise DataError(f"{task.where}: both answers are {task.answers[0]!r}. {NEEDS}")
    return task


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f'{where} has no text "{name}". {NEEDS}')
    return value.strip()
