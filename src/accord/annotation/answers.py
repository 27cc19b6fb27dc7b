"""Storing what annotators say: each answer once, never changed, and never more of them on a task than it wants.

Everything here runs inside a transaction of the caller that writes. The order of locks is annotator, then task.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from accord.annotation import assign
from accord.annotation.extras import sa
from accord.annotation.records import SELECT, add_annotation, annotation_of, dumps, moment, task_of
from accord.annotation.refusals import Conflict, LeaseLost, Unknown
from accord.annotation.schema import annotations, annotators, drafts, guidelines, leases, standing, tasks
from accord.data.annotation_values import CLOSING, check_annotation
from accord.errors import DataError
from accord.types import Annotation, Task

COUNTED = ("human", "simulated")
"""Sources whose answers a task wants: a model's or a rule's label takes nobody's place."""
KEY = re.compile(r"[A-Za-z0-9._:@-]{1,60}")
"""What ids of tasks, annotators, annotations and submissions look like."""


def check_key(value: object, what: str) -> str:
    """The id, after checking that it is one.

    Raises:
        DataError: naming what it is of.
    """
    if not isinstance(value, str) or not KEY.fullmatch(value):
        raise DataError(f"{what} {str(value)[:60]!r} is no id; ids have 1 to 60 letters, digits and . _ : @ -")
    return value


def find_annotator(connection: Any, annotator: str, *, active: bool = True) -> Any:
    """The row of an annotator, locked.

    Args:
        active: True refuses one whose data were erased. False does not.
    Raises:
        Unknown: if there is none.
    """
    row = None
    if isinstance(annotator, str) and KEY.fullmatch(annotator):
        row = connection.execute(sa.select(annotators).where(annotators.c.id == annotator).with_for_update(key_share=True)).first()
    if row is None or (active and row.erased is not None):
        raise Unknown(f"There is no annotator {str(annotator)[:60]!r}.")
    return row


def find_task(connection: Any, task: str, *, lock: bool = False) -> Any:
    """The row of a task. lock: True locks it until the transaction ends. False reads it.

    Raises:
        Unknown: if there is none.
    """
    row = None
    if isinstance(task, str) and KEY.fullmatch(task):
        query = sa.select(tasks).where(tasks.c.id == task)
        row = connection.execute(query.with_for_update(key_share=True) if lock else query).first()
    if row is None:
        raise Unknown(f"There is no task {str(task)[:60]!r}.")
    return row


def find_lease(connection: Any, task: Any, annotator: Any, token: str) -> Any:
    """The annotator's lease on a task, live or lapsed.

    Raises:
        LeaseLost: if there is none, or the token is not its.
    """
    row = connection.execute(sa.select(leases).where(leases.c.task == task.number, leases.c.annotator == annotator.number)).first()
    if row is None or not isinstance(token, str) or not hmac.compare_digest(row.token.encode(), token.encode("utf-8", "replace")):
        raise LeaseLost(f"Task {task.id} is not with you now, so nothing was stored. Ask for the next task.")
    return row


def submitted(connection: Any, submission: str) -> Annotation | None:
    """The annotation that a submission id made, if it made one."""
    row = connection.execute(SELECT.where(annotations.c.submission == submission)).first()
    return annotation_of(row) if row is not None else None


def submit(connection: Any, draft: Annotation, token: str, submission: str, now: float) -> Annotation:
    """Store an answer to a leased task.

    Args:
        draft: what the annotator says; id, round, order, purpose, arm and time are filled in here.
    Raises:
        Unknown, LeaseLost, Conflict: see `Store.submit`.
        DataError: if a field is wrong.
    """
    check_key(submission, "The submission")
    annotator = connection.execute(sa.select(annotators).where(annotators.c.id == draft.annotator, annotators.c.erased.is_(None))).first()
    if annotator is None:
        raise Unknown(f"There is no annotator {draft.annotator[:60]!r}.")
    row = find_task(connection, draft.task, lock=True)
    before = submitted(connection, submission)
    if before is not None:
        said = (before.annotator, before.task, before.kind, before.value, before.strength)
        if said != (draft.annotator, draft.task, draft.kind, draft.value, draft.strength):
            raise Conflict(f"The submission {submission} was used for another answer; a new answer needs a new submission id.")
        return before
    held = find_lease(connection, row, annotator, token)
    annotation = replace(
        draft,
        id=secrets.token_hex(8),
        round=row.round,
        shown_order=tuple(json.loads(held.shown_order)),
        purpose=held.purpose,
        arm=held.arm,
        guideline_version=draft.guideline_version if draft.guideline_version is not None else newest_guideline(connection),
        created=moment(now),
    )
    task = task_of(row)
    check_annotation(annotation, task)
    if annotation.kind == "undo":
        raise DataError(f"Annotation of task {task.id}: an undo is not submitted; take the answer back.")
    if held.expires <= now and held.purpose == "work" and not assign.claim(connection, row.number, annotator.number, now, wait=True):
        raise LeaseLost(
            f"Task {task.id} was kept for you until {moment(held.expires)}; others have answered it since, and nothing was stored."
        )
    closing = closes(annotation, task)
    mine = sa.and_(standing.c.task == row.number, standing.c.annotator == annotator.number, standing.c.purpose == annotation.purpose)
    if connection.execute(sa.select(standing.c.annotation).where(mine, standing.c.closes == 1)).first() is not None:
        raise Conflict(f"You have answered task {task.id} already. Take that answer back to give another.")
    number = add_annotation(connection, annotation, submission, row.number, annotator.number)
    stand(connection, annotation, task, number, row.number, annotator.number)
    if closing:
        for table in (leases, drafts):
            connection.execute(sa.delete(table).where(table.c.task == row.number, table.c.annotator == annotator.number))
    return annotation


def closes(annotation: Annotation, task: Task) -> bool:
    """True if the annotator is done with the task; False for something that stands beside the answer."""
    return annotation.kind == task.kind or annotation.kind in CLOSING


def counts(annotation: Annotation, task: Task) -> bool:
    """True for one of the answers that the task wants."""
    return annotation.kind == task.kind and annotation.purpose == "work" and annotation.source in COUNTED


def stand(connection: Any, annotation: Annotation, task: Task, number: int, task_number: int, annotator: int) -> None:
    """Have a stored annotation count from now on; the task's row is locked."""
    counted = counts(annotation, task)
    connection.execute(
        sa.insert(standing).values(
            annotation=number,
            task=task_number,
            annotator=annotator,
            purpose=annotation.purpose,
            counts=int(counted),
            closes=int(closes(annotation, task)),
        )
    )
    if counted:
        change_given(connection, task_number, 1)


def stand_down(connection: Any, row: Any) -> None:
    """Have an annotation count no more. row: of `standing`; the task's row is locked."""
    connection.execute(sa.delete(standing).where(standing.c.annotation == row.annotation))
    if row.counts:
        change_given(connection, row.task, -1)


def change_given(connection: Any, task: int, by: int) -> None:
    """Count an answer more or less, and close or open the task accordingly."""
    given = tasks.c.given + by
    state = sa.case((tasks.c.state == "retired", "retired"), (given >= tasks.c.wanted, "closed"), else_="open")
    connection.execute(sa.update(tasks).where(tasks.c.number == task).values(given=given, state=state))


def newest_guideline(connection: Any) -> int | None:
    """The version of the guideline that holds now."""
    return connection.execute(sa.select(sa.func.max(guidelines.c.version))).scalar()


def undo(connection: Any, annotator: Any, annotation: str | None, submission: str, now: float, rules: assign.Rules) -> Any | None:
    """Take an answer back and keep its task for the annotator again, with the answer as a draft; returns the lease's row.

    Args:
        annotator: their row, locked.
        annotation: id of the answer; None takes the newest.
    Returns:
        None where what was taken back stood beside an answer that stays.
    """
    check_key(submission, "The submission")
    before = submitted(connection, submission)
    if before is not None:
        if before.kind != "undo" or before.annotator != annotator.id:
            raise Conflict(f"The submission {submission} was used for something else.")
        number = find_task(connection, before.task).number
        return connection.execute(sa.select(leases).where(leases.c.task == number, leases.c.annotator == annotator.number)).first()
    if annotation is not None and not KEY.fullmatch(annotation):
        raise Unknown(f"{annotation[:60]!r} is no answer of yours that stands.")
    query = sa.select(standing, annotations.c.id, tasks.c.id.label("task_id")).join(
        annotations, annotations.c.number == standing.c.annotation
    )
    query = query.join(tasks, tasks.c.number == standing.c.task).where(standing.c.annotator == annotator.number)
    query = query.where(standing.c.purpose != "adjudication" if annotation is None else annotations.c.id == annotation)
    row = connection.execute(query.order_by(standing.c.annotation.desc()).limit(1)).first()
    if row is None:
        raise Unknown(
            "There is no answer of yours to take back." if annotation is None else f"{annotation[:60]!r} is no answer of yours that stands."
        )
    task = find_task(connection, row.task_id, lock=True)
    if row.purpose != "adjudication" and connection.execute(sa.select(assign.has_read(annotator.number, row.task))).scalar():
        raise Conflict(f"You have read what others said of task {row.task_id}, so your answer stays.")
    old = annotation_of(connection.execute(SELECT.where(annotations.c.number == row.annotation)).one())
    taken_back = replace(
        old,
        id=secrets.token_hex(8),
        kind="undo",
        value={},
        strength=None,
        probability=None,
        seconds=None,
        rationale=None,
        columns={},
        supersedes=old.id,
        created=moment(now),
    )
    stand_down(connection, row)
    add_annotation(connection, taken_back, submission, row.task, annotator.number)
    if not row.closes or old.purpose == "adjudication":
        return None
    draft = {"kind": old.kind, "value": old.value, "strength": old.strength, "rationale": old.rationale}
    put_draft(connection, row.task, annotator.number, draft, now)
    choice = assign.Choice(row.task, task_of(task), old.purpose, old.arm, old.shown_order)
    return assign.lease(connection, choice, annotator, now, rules)


def put_draft(connection: Any, task: int, annotator: int, body: dict[str, Any], now: float) -> None:
    """Keep a draft in place of an older one."""
    connection.execute(sa.delete(drafts).where(drafts.c.task == task, drafts.c.annotator == annotator))
    connection.execute(sa.insert(drafts).values(task=task, annotator=annotator, body=dumps(body), saved=now))


def record(connection: Any, found: Iterable[Annotation], now: float) -> tuple[int, int]:
    """Store annotations that were made elsewhere: by a model, a rule, or in another copy of the project.

    Returns:
        how many were added, and how many were there already.
    """
    added = known = 0
    people: dict[str, int] = {}
    for annotation in found:
        for key, what in ((annotation.id, "The annotation"), (annotation.annotator, "The annotator")):
            check_key(key, what)
        if connection.execute(sa.select(annotations.c.number).where(annotations.c.id == annotation.id)).first() is not None:
            known += 1
            continue
        row = find_task(connection, annotation.task, lock=True)
        task = task_of(row)
        check_annotation(annotation, task)
        if annotation.annotator not in people:
            people[annotation.annotator] = _known_annotator(connection, annotation, now)
        annotator = people[annotation.annotator]
        if annotation.supersedes is not None:
            check_key(annotation.supersedes, "The annotation")
            _supersede(connection, annotation)
        stamped = annotation if annotation.created else replace(annotation, created=moment(now))
        number = add_annotation(connection, stamped, f"at:{annotation.id}", row.number, annotator)
        added += 1
        if annotation.kind == "undo":
            continue
        if closes(annotation, task):
            mine = sa.and_(standing.c.task == row.number, standing.c.annotator == annotator, standing.c.purpose == annotation.purpose)
            older = sa.select(standing, annotations.c.created).join(annotations, annotations.c.number == standing.c.annotation)
            other = connection.execute(older.where(mine, standing.c.closes == 1)).first()
            if other is not None and other.created > stamped.created:
                continue
            if other is not None:
                stand_down(connection, other)
        stand(connection, stamped, task, number, row.number, annotator)
    return added, known


def _known_annotator(connection: Any, annotation: Annotation, now: float) -> int:
    row = connection.execute(sa.select(annotators.c.number).where(annotators.c.id == annotation.annotator)).first()
    if row is not None:
        return int(row.number)
    role = "annotator" if annotation.source == "human" else "program"
    return new_annotator(connection, annotation.annotator, annotation.annotator, role, None, now)


def new_annotator(connection: Any, key: str, name: str, role: str, secret_hash: str | None, now: float) -> int:
    """Add an annotator; returns the row's number."""
    values = {"id": check_key(key, "The annotator"), "name": name, "role": role, "secret_hash": secret_hash, "created": now}
    values |= {"asked": 0, "round": 0, "cursor": assign.FIRST}
    return int(connection.execute(sa.insert(annotators).values(values)).inserted_primary_key[0])


def _supersede(connection: Any, annotation: Annotation) -> None:
    old = connection.execute(SELECT.where(annotations.c.id == annotation.supersedes)).first()
    if old is None:
        raise Unknown(f"Annotation {annotation.id} supersedes {annotation.supersedes}, which is not there. Import the whole record.")
    if old.annotator_id != annotation.annotator or old.task_id != annotation.task:
        raise Conflict(f"Annotation {annotation.id} supersedes {annotation.supersedes}, which is another annotator's or of another task.")
    row = connection.execute(sa.select(standing).where(standing.c.annotation == old.number)).first()
    if row is not None:
        stand_down(connection, row)
