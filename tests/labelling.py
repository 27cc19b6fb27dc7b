"""Tasks to label, people who label them, and a clock that stands still, for the tests of the store."""

from __future__ import annotations

import itertools
from typing import Any

from accord.annotation.results import Assignment, Idle
from accord.annotation.store import Store
from accord.types import Annotation, Completion, Message, Task, TaskKind, task_id

_submissions = itertools.count()


class Clock:
    """Seconds since 1970 that pass only when told."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def prompt(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def answer(*texts: str, **source: Any) -> Completion:
    return Completion(tuple(Message("assistant", text) for text in texts), source=source)


def talk(*texts: str, **source: Any) -> Completion:
    """A conversation that the assistant begins, turn by turn."""
    return Completion(tuple(Message("user" if place % 2 else "assistant", text) for place, text in enumerate(texts)), source=source)


def task(kind: TaskKind, question: str, *answers: Completion, gold: dict[str, Any] | None = None, round: int = 0, **columns: Any) -> Task:
    return Task(task_id(kind, prompt(question), answers, round), kind, prompt(question), answers, gold, round, columns)


def pair(number: int, *, gold: dict[str, Any] | None = None, round: int = 0) -> Task:
    """A pair whose answers are "yes N" and "no N"."""
    return task("pair", f"Question {number}?", answer(f"yes {number}"), answer(f"no {number}"), gold=gold, round=round)


def pairs(count: int) -> list[Task]:
    return [pair(number) for number in range(count)]


def submission() -> str:
    """A new id, as a browser would make one."""
    return f"submission-{next(_submissions)}"


def given(store: Store, annotator: str) -> Assignment:
    """The next task, which must be there."""
    found = store.next_task(annotator)
    assert isinstance(found, Assignment), found
    return found


def label(store: Store, annotator: str, choice: Any = 0, **more: Any) -> Annotation:
    """Take the next task and answer it."""
    return say(store, annotator, given(store, annotator), choice, **more)


def say(store: Store, annotator: str, assignment: Assignment, choice: Any = 0, **more: Any) -> Annotation:
    return store.submit(annotator, assignment.task.id, assignment.token, submission(), "pair", {"choice": choice}, **more)


def reason(store: Store, annotator: str) -> str:
    """Why there is no next task."""
    found = store.next_task(annotator)
    assert isinstance(found, Idle), found
    return found.reason


def two_people(store: Store, **more: Any) -> None:
    """Ann and Bob judge the same thirty pairs and agree on 24."""
    store.add_tasks(pairs(30))
    for name in ("ann", "bob"):
        store.add_annotator(name.title(), id=name)
        for _ in range(30):
            held = given(store, name)
            number = int(held.task.prompt[0].content.split()[1].rstrip("?"))
            say(store, name, held, 1 - number % 2 if name == "bob" and number < 6 else number % 2, **more)
