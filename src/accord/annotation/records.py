"""Between rows of the database and the types that everything else uses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from accord.annotation.extras import sa
from accord.annotation.schema import annotation_texts, annotations, annotators, standing, tasks
from accord.data.annotation_values import ERASED
from accord.types import Annotation, Task, from_json, to_json

IN_WORDS = ("edit", "flag", "skip")
"""Kinds whose value is what the annotator wrote; so is that of steps with an alternative, and of a chat in which they wrote something."""


def dumps(value: Any) -> str:
    """JSON in ASCII, which every database stores as it is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def task_of(row: Any) -> Task:
    """The task of a row with a `body`."""
    return from_json(json.loads(row.body), Task)


def task_body(task: Task) -> str:
    """What a task's row holds of it."""
    return dumps(to_json(task))


def moment(seconds: float) -> str:
    """A time in seconds since 1970 as UTC in ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def texts_of(annotation: Annotation) -> list[str]:
    """What the annotator wrote as part of the value: a reason to skip or report, a better text, of a turn or a step too."""
    value = annotation.value
    parts: list[dict[str, Any]] = [value, value.get("alternative") or {}, *value.get("turns", ())]
    return [part[name] for part in parts for name in ("reason", "user", "text") if name in part]


def in_words(annotation: Annotation) -> bool:
    """True if the value holds text that the annotator wrote."""
    wrote = annotation.kind == "chat" and any("user" in turn or "text" in turn for turn in annotation.value.get("turns", ()))
    return annotation.kind in IN_WORDS or wrote or annotation.value.get("alternative") is not None or annotation.value == ERASED


def add_annotation(connection: Any, annotation: Annotation, submission: str, task: int, annotator: int) -> int:
    """Insert an annotation and its words; returns its number.

    Args:
        task: number of its row.
        annotator: number of its row.
    """
    words = in_words(annotation)
    row = {
        "id": annotation.id,
        "submission": submission,
        "task": task,
        "annotator": annotator,
        "kind": annotation.kind,
        "value": None if words else dumps(annotation.value),
        "source": annotation.source,
        "strength": annotation.strength,
        "probability": annotation.probability,
        "shown_order": dumps(list(annotation.shown_order)),
        "seconds": annotation.seconds,
        "guideline_version": annotation.guideline_version,
        "round": annotation.round,
        "supersedes": annotation.supersedes,
        "created": annotation.created,
        "purpose": annotation.purpose,
        "arm": annotation.arm,
    }
    number = int(connection.execute(sa.insert(annotations).values(row)).inserted_primary_key[0])
    if words or annotation.rationale is not None or annotation.columns:
        body: dict[str, Any] = {"rationale": annotation.rationale} | ({"value": annotation.value} if words else {})
        body |= {"columns": annotation.columns} if annotation.columns else {}
        erased = annotation.value == ERASED
        connection.execute(sa.insert(annotation_texts).values(annotation=number, body=None if erased else dumps(body)))
    return number


SELECT = (
    sa.select(
        annotations,
        tasks.c.id.label("task_id"),
        annotators.c.id.label("annotator_id"),
        annotation_texts.c.body.label("words"),
        annotation_texts.c.annotation.label("has_words"),
    )
    .join(tasks, tasks.c.number == annotations.c.task)
    .join(annotators, annotators.c.number == annotations.c.annotator)
    .outerjoin(annotation_texts, annotation_texts.c.annotation == annotations.c.number)
)
"""Rows that `annotation_of` reads."""
VALID = SELECT.join(standing, standing.c.annotation == annotations.c.number)
"""The same, of annotations that were neither taken back nor replaced."""


def annotation_of(row: Any) -> Annotation:
    """The annotation of a row of `SELECT`."""
    words: dict[str, Any] = json.loads(row.words) if row.words is not None else {}
    value = json.loads(row.value) if row.value is not None else words.get("value", dict(ERASED))
    return Annotation(
        id=row.id,
        task=row.task_id,
        kind=row.kind,
        value=value,
        annotator=row.annotator_id,
        source=row.source,
        strength=row.strength,
        probability=row.probability,
        shown_order=tuple(json.loads(row.shown_order)),
        seconds=row.seconds,
        rationale=words.get("rationale"),
        guideline_version=row.guideline_version,
        round=row.round,
        supersedes=row.supersedes,
        created=row.created,
        purpose=row.purpose,
        arm=row.arm,
        columns=words.get("columns", {}),
    )


def select_annotations(connection: Any, *, valid: bool, newest: int | None = None, **where: Any) -> Iterator[Annotation]:
    """Annotations in the order they were stored, or the newest ones, the newest first.

    Args:
        valid: True leaves out those that were taken back or replaced. False gives the whole record.
        newest: how many. None: all, the oldest first.
        where: columns of `annotations`, and `task_id`, `annotator_id`, that must be equal to a value; None: any.
    """
    query = VALID if valid else SELECT
    named = {"task_id": tasks.c.id, "annotator_id": annotators.c.id}
    for name, value in where.items():
        if value is not None:
            query = query.where((named[name] if name in named else annotations.c[name]) == value)
    query = query.order_by(annotations.c.number) if newest is None else query.order_by(annotations.c.number.desc()).limit(newest)
    for row in connection.execute(query).yield_per(1000):
        yield annotation_of(row)
