"""Tasks on which people differ, the furthest apart first: what is to be settled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from accord.annotation.agreement import ItemDisagreement
from accord.annotation.calibration import LABELS
from accord.annotation.judgements import TIE, Judgement, Value, part_of
from accord.annotation.measures import ratings_of, steps_of
from accord.annotation.quality import adjudication_queue
from accord.types import Annotation, Task

MOST = 50
"""Disputed tasks that are listed."""


@dataclass(frozen=True)
class Dispute:
    """A task, and its part that people are furthest apart on."""

    task: str
    part: str
    """In words; "" where it is the whole."""
    said: dict[str, int]
    """What was said of the part, in words, with how many said it."""
    disagreement: float
    """1 is as far apart as judgements of different tasks of that kind."""


def disputes(
    judgements: Sequence[Judgement], annotations: Sequence[Annotation], tasks: Mapping[str, Task], *, settled: Collection[str]
) -> list[Dispute]:
    """Disputed tasks, one entry each: comparisons, ratings and steps.

    Args:
        judgements: the comparisons of the annotations, as `panel.judgements_of` makes them.
        annotations: valid ones, by people, without adjudications.
        tasks: by id.
        settled: tasks that are not listed.
    """
    found = [
        *_listed(adjudication_queue(judgements), _answer),
        *_listed(adjudication_queue(ratings_of(annotations), scale="interval"), lambda value, _: f"{value} of 7"),
        *_listed(adjudication_queue(steps_of(annotations, tasks), scale="ordinal"), lambda value, _: LABELS[value]),
    ]
    first: dict[str, Dispute] = {}
    for one in sorted(found, key=lambda one: -one.disagreement):
        if one.task not in settled:
            first.setdefault(one.task, one)
    return list(first.values())[:MOST]


def _listed(queue: Sequence[ItemDisagreement], words: Callable[[Value, tuple[int, int]], str]) -> list[Dispute]:
    disputed: list[Dispute] = []
    for one in queue:
        part = part_of(one.item)
        said = {words(value, part.answers): count for value, count in one.values.items()}
        disputed.append(Dispute(part.task, part.words, said, one.disagreement))
    return disputed


def _answer(value: Value, answers: tuple[int, int]) -> str:
    return "a tie" if value == TIE or not isinstance(value, int) else f"answer {answers[value] + 1}"
