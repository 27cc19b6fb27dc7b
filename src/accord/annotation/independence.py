"""Nobody judges a task after reading what others said of it: who reads is not asked about it any more, and an answer that they gave stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from accord.annotation import answers
from accord.annotation.assign import has_read
from accord.annotation.extras import sa
from accord.annotation.schema import annotators, drafts, leases, readings, standing, tasks

_CHUNK = 500


def readable(connection: Any, annotator: str, found: Sequence[str]) -> set[str]:
    """See `Store.readable`."""
    person = sa.select(annotators.c.number).where(annotators.c.id == annotator).scalar_subquery()
    judged = sa.select(standing.c.task).where(standing.c.task == tasks.c.number, standing.c.annotator == person, standing.c.closes == 1)
    known = sa.or_(judged.exists(), has_read(person, tasks.c.number))
    rows = [
        row
        for start in range(0, len(found), _CHUNK)
        for row in connection.execute(sa.select(tasks.c.id).where(tasks.c.id.in_(found[start : start + _CHUNK]), known))
    ]
    return {row.id for row in rows}


def read(connection: Any, annotator: str, found: Iterable[str], now: float) -> None:
    """See `Store.read`."""
    person = answers.find_annotator(connection, annotator).number
    for key in dict.fromkeys(found):
        task = answers.find_task(connection, key).number
        if connection.execute(sa.select(has_read(person, task))).scalar():
            continue
        connection.execute(sa.insert(readings).values(task=task, annotator=person, at=now))
        for table in (leases, drafts):
            connection.execute(sa.delete(table).where(table.c.task == task, table.c.annotator == person))
