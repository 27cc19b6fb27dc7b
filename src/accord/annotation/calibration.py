"""Comparing notes after the tasks that everybody labels first: where people differ, shown once all have labelled them, so that nobody follows another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from accord.annotation.store import Store
from accord.data.annotation_values import CLOSING, ERASED
from accord.types import Annotation, Task

LABELS = {1: "right", 0: "neutral", -1: "wrong", None: "not judged"}


@dataclass(frozen=True)
class Compared:
    """One task and what was said of it."""

    task: Task
    mine: str | None
    """What the reader said; None: nothing, or the reader is no annotator."""
    said: dict[str, int]
    """What everybody said, the reader too, in words, with how many said it; the most frequent first."""

    @property
    def differs(self) -> bool:
        """Whether two people said different things."""
        return len(self.said) > 1


@dataclass(frozen=True)
class Comparison:
    """Where a calibration stands, and what came of it."""

    tasks: int
    left: int
    """How many the reader may still be asked about: what others said is shown after."""
    waiting: int
    """People who have begun and are not done."""
    people: int
    """How many are done."""
    items: tuple[Compared, ...]
    """The furthest apart first; empty while there is somebody to wait for."""


def compare(store: Store, round: int, reader: str | None) -> Comparison:
    """What people said of a round's calibration tasks.

    Args:
        reader: key of whoever asks and may be asked. None: somebody who does not label.
    """
    tasks = {task.id: task for task in store.tasks(round=round, role="calibration")}
    by_person: dict[str, dict[str, Annotation]] = {}
    for one in store.annotations(round=round, purpose="calibration"):
        if one.task in tasks and one.kind in (tasks[one.task].kind, *CLOSING):
            by_person.setdefault(one.annotator, {})[one.task] = one
    done = [person for person, said in by_person.items() if len(said) == len(tasks)]
    left = 0 if reader is None else len(tasks) - len(store.readable(reader, tasks))
    waiting = len(by_person) - len(done) if store.phase(round) == "calibration" else 0
    items: list[Compared] = []
    if tasks and not left and not waiting and len(done) > 1:
        items = [_compared(task, [said[task.id] for said in by_person.values() if task.id in said], reader) for task in tasks.values()]
    items.sort(key=lambda item: max(item.said.values(), default=0) / max(1, sum(item.said.values())))
    return Comparison(len(tasks), left, waiting, len(done), tuple(items))


def _compared(task: Task, said: list[Annotation], reader: str | None) -> Compared:
    mine = next((in_words(one, task) for one in said if one.annotator == reader), None)
    return Compared(task, mine, dict(Counter(in_words(one, task) for one in said).most_common()))


def in_words(annotation: Annotation, task: Task) -> str:
    """What an annotation says, without how strongly, answers numbered from 1 in the task's own order."""
    value = annotation.value
    if value == ERASED:
        return "erased on request"
    if annotation.kind in CLOSING:
        return "skipped" if annotation.kind == "skip" else "reported"
    if annotation.kind == "pair":
        return _choice(value["choice"])
    if annotation.kind == "ranking":
        return _order(cast("list[int]", value["ranks"]))
    if annotation.kind == "rating":
        return f"{value['rating']} of 7"
    if annotation.kind == "steps":
        return _steps(value)
    if annotation.kind == "edit":
        return f"rewrote answer {value['of'] + 1}"
    return "; ".join(f"turn {turn.get('turn', number) + 1}: {_turn(turn)}" for number, turn in enumerate(value["turns"]))


def _choice(choice: object) -> str:
    return {"tie": "a tie", "both_bad": "both bad"}.get(str(choice)) or f"answer {cast('int', choice) + 1}"


def _order(ranks: list[int]) -> str:
    groups = [[str(place + 1) for place, rank in enumerate(ranks) if rank == level] for level in sorted(set(ranks))]
    return " > ".join(" = ".join(group) for group in groups)


def _steps(value: Mapping[str, Any]) -> str:
    if "first_error" in value:
        return "no error" if value["first_error"] is None else f"first error at step {value['first_error'] + 1}"
    return ", ".join(LABELS[label] for label in value["labels"])


def _turn(turn: Mapping[str, Any]) -> str:
    if "choice" in turn:
        return _choice(turn["choice"])
    return (
        " and ".join([*([f"{turn['rating']} of 7"] if "rating" in turn else []), *(["rewritten"] if "text" in turn else [])])
        or "one answer"
    )
