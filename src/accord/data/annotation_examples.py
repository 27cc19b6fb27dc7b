"""From tasks and what annotators said about them to examples that methods train on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from accord.data.annotation_values import ERASED, Value
from accord.types import Annotation, Completion, Example, Kind, Message, Task, content_hash, task_id

MARGINS = {1: 0.0, 2: 1 / 3, 3: 2 / 3, 4: 1.0}
"""Margin of the reward loss for each strength: the small set of Llama 2 (Touvron et al. 2023, arXiv:2307.09288, Table 27)."""
NEUTRAL = 4
"""The rating that calls an answer neither desirable nor undesirable."""


def examples_of(annotation: Annotation, task: Task, *, where: str = "", **more: Any) -> list[Example]:
    """What an annotation teaches.

    | annotation | examples |
    |------------|----------|
    | pair: a choice | a preference, with the margin of its strength and the probability of its source |
    | pair: a tie | a preference with probability 0.5 |
    | pair: both bad | two undesirable labelled answers |
    | ranking | a ranking |
    | rating | a labelled answer: desirable above 4, undesirable below; 4 teaches nothing |
    | steps | a solution with labels; with an alternative also the solution up to it, ended by the better step |
    | edit | a demonstration, and a preference for the edited text |
    | chat | a preference a turn with a choice (both bad: two labelled answers) |
    | flag, skip, undo, or erased | nothing |

    Args:
        annotation: a valid one, checked by `check_annotation`.
        task: what it is about.
        where: file and row, for messages.
        more: further columns.
    Returns:
        examples whose columns say where they come from: annotator, label_source, round, guideline_version, task_id, annotation_id.
    """
    make = _MAKERS.get(annotation.kind)
    if make is None or annotation.value == ERASED:
        return []
    columns = {**task.columns, **provenance(annotation), **more}
    return [replace(found, columns={**columns, **found.columns}, where=where) for found in make(annotation, task)]


def provenance(annotation: Annotation) -> dict[str, Any]:
    """The columns that say where an example's label comes from."""
    return {
        "annotator": annotation.annotator,
        "label_source": annotation.source,
        "round": annotation.round,
        "guideline_version": annotation.guideline_version,
        "task_id": annotation.task,
        "annotation_id": annotation.id,
        "arm": annotation.arm,
    }


def tasks_of(example: Example, *, round: int = 0) -> list[Task]:
    """The task that asks people again what an example already says: a pair, a ranking, a rating or the steps of a solution.

    Answers are put in an order that says nothing about which is better. Rows with nothing to judge have no task.
    """
    kind = {"preference": "pair", "ranking": "ranking", "labelled": "rating", "demonstration": "edit", "steps": "steps"}.get(example.kind)
    if kind is None:
        return []
    answers = tuple(sorted(example.completions, key=lambda completion: content_hash(["order", completion.id])))
    name = cast("Any", kind)
    return [Task(task_id(name, example.prompt, answers, round), name, example.prompt, answers, round=round, columns=dict(example.columns))]


def _of_pair(annotation: Annotation, task: Task) -> list[Example]:
    return _compared(task.prompt, task.completions, annotation.value["choice"], annotation.strength, annotation.probability)


def _compared(
    prompt: tuple[Message, ...], answers: tuple[Completion, ...], choice: Any, strength: int | None, probability: float | None = None
) -> list[Example]:
    if choice == "both_bad":
        return [Example("labelled", prompt, (answer,), label=False) for answer in answers]
    if choice == "tie":
        return [Example("preference", prompt, answers, probability=0.5)]
    sure = None if probability is None else probability if choice == 0 else 1 - probability
    level = {} if strength is None else {"strength_level": strength}
    margin = None if strength is None else MARGINS[strength]
    return [Example("preference", prompt, (answers[choice], answers[1 - choice]), probability=sure, strength=margin, columns=level)]


def _of_ranking(annotation: Annotation, task: Task) -> list[Example]:
    return [Example("ranking", task.prompt, task.completions, ranks=tuple(annotation.value["ranks"]))]


def _of_rating(annotation: Annotation, task: Task) -> list[Example]:
    rating = cast("int", annotation.value["rating"])
    if rating == NEUTRAL:
        return []
    columns = {"rating": rating, "rating_flags": annotation.value.get("flags", [])}
    return [Example("labelled", task.prompt, task.completions, label=rating > NEUTRAL, columns=columns)]


def step_labels(value: Value, count: int) -> tuple[int | None, ...]:
    """A label a step: those given, or from the first error on: right before it, wrong at it, not judged after it."""
    if "labels" in value:
        return tuple(value["labels"])
    error = cast("int | None", value["first_error"])
    return tuple(1 if error is None or step < error else -1 if step == error else None for step in range(count))


def _of_steps(annotation: Annotation, task: Task) -> list[Example]:
    steps = task.completions[0].messages
    labels = step_labels(annotation.value, len(steps))
    found = [Example("steps", task.prompt, task.completions, step_labels=labels)] if any(v is not None for v in labels) else []
    better = annotation.value.get("alternative")
    if better is not None:
        at = cast("int", better["step"])
        written = _written((*steps[:at], Message("assistant", better["text"])), annotation, finished=False)
        found.append(Example("steps", task.prompt, (written,), step_labels=(*labels[:at], 1)))
    return found


def _of_edit(annotation: Annotation, task: Task) -> list[Example]:
    before = task.completions[cast("int", annotation.value["of"])]
    after = _written((*before.messages[:-1], Message("assistant", annotation.value["text"])), annotation)
    return [Example("demonstration", task.prompt, (after,)), Example("preference", task.prompt, (after, before))]


def _of_chat(annotation: Annotation, task: Task) -> list[Example]:
    found: list[Example] = []
    prompt = task.prompt
    for turn in annotation.value["turns"]:
        prompt = (*prompt, Message("user", turn["user"]))
        answers = tuple(Completion((Message("assistant", text),)) for text in turn["answers"])
        choice = turn.get("choice")
        if len(answers) == 2:
            found += _compared(prompt, answers, choice, turn.get("strength"))
        prompt = (*prompt, *answers[choice if choice in (0, 1) else 0].messages)
    return found


def _written(messages: tuple[Message, ...], annotation: Annotation, *, finished: bool = True) -> Completion:
    return Completion(messages, finished, {"kind": annotation.source, "annotator": annotation.annotator})


_MAKERS: dict[str, Callable[[Annotation, Task], list[Example]]] = {
    "pair": _of_pair,
    "ranking": _of_ranking,
    "rating": _of_rating,
    "steps": _of_steps,
    "edit": _of_edit,
    "chat": _of_chat,
}
KINDS_MADE: dict[str, tuple[Kind, ...]] = {
    "pair": ("preference", "labelled"),
    "ranking": ("ranking",),
    "rating": ("labelled",),
    "steps": ("steps",),
    "edit": ("demonstration", "preference"),
    "chat": ("preference", "labelled"),
}
"""Kinds of example that each kind of annotation may become."""
