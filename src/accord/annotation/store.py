"""The store of a project: tasks, who has which, what was said about them. Safe to share between threads and processes."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from accord.annotation import answers, assign, people, rounds
from accord.annotation.administration import Administration
from accord.annotation.assign import Rules, Selector
from accord.annotation.database import Database
from accord.annotation.extras import exc, sa
from accord.annotation.records import SELECT, annotation_of, dumps, moment, select_annotations, task_body, task_of
from accord.annotation.refusals import Conflict, LeaseLost, Unknown
from accord.annotation.results import Added, Assignment, Idle, Progress
from accord.annotation.schema import annotations, annotators, drafts, leases, standing, tasks
from accord.data.annotation_values import check_annotation, check_task
from accord.errors import DataError
from accord.types import Annotation, AnnotationKind, LabelSource, Purpose, Task

MAX_DRAFT = 1_000_000
"""Longest draft, in characters of JSON."""
_CHUNK = 500


class Store(Administration):
    """Tasks, leases and annotations in one database.

    Annotations are added and never changed. On a task there are never more standing answers and live leases than it wants.

    Args:
        where: path of an SQLite file, made if it is not there, or postgresql://user:password@host/name.
        rules: how tasks are given out.
        selector: orders the tasks that may be asked; None leaves it to chance.
        clock: seconds since 1970.
    Raises:
        DataError: if a newer release wrote the database.
        MachineError: if a package is missing or the database cannot be opened.
    """

    def __init__(
        self, where: str | Path, rules: Rules | None = None, *, selector: Selector | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.database = Database(where)
        self.rules = rules or Rules()
        self.selector = selector
        self.clock = clock

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- tasks --------------------------------------------------------------------------------------------------------------------------

    def add_tasks(self, found: Iterable[Task], *, wanted: int | None = None) -> Added:
        """Put tasks into the queue; one that is there already is left as it is. A task with a gold value measures annotators.

        A chat without recorded answers is a conversation that was held elsewhere: it is kept for its labels, and given to nobody here.

        Args:
            wanted: annotators wanted for each. None is the overlap of the rules.
        Raises:
            DataError: at the first task that cannot be asked; then none is added.
            Conflict: if an id is there with another content.
        """
        wanted = self.rules.overlap if wanted is None else wanted
        if wanted < 1:
            raise DataError(f"A task wants 1 annotator or more, not {wanted}.")
        added = known = 0
        iterator = iter(found)
        with self.database.writing() as connection:
            while chunk := {answers.check_key(task.id, "The task"): check_task(task) for task in islice(iterator, _CHUNK)}:
                there = {
                    row.id: task_of(row) for row in connection.execute(sa.select(tasks.c.id, tasks.c.body).where(tasks.c.id.in_(chunk)))
                }
                for key, task in there.items():
                    if (task.kind, task.prompt, task.completions) != (chunk[key].kind, chunk[key].prompt, chunk[key].completions):
                        raise Conflict(f"There is a task {key} already, with another prompt or other answers. Give the new one another id.")
                rows = [self._row(task, wanted) for key, task in chunk.items() if key not in there]
                if rows:
                    connection.execute(sa.insert(tasks), rows)
                added, known = added + len(rows), known + len(there)
            if added > _CHUNK and self.database.file is None:
                connection.execute(sa.text("ANALYZE tasks"))
        return Added(added, known)

    def _row(self, task: Task, wanted: int) -> dict[str, Any]:
        return {
            "id": task.id,
            "kind": task.kind,
            "round": task.round,
            "role": "work" if task.gold is None else "gold",
            "state": "open" if task.completions else "retired",
            "wanted": wanted,
            "given": 0,
            "position": assign.position(self.rules.seed, task.id),
            "body": task_body(task),
        }

    def task(self, task: str) -> Task:
        """One task. Raises Unknown."""
        with self.database.reading() as connection:
            return task_of(answers.find_task(connection, task))

    def state(self, task: str) -> str:
        """Whether a task is open, closed (it has the answers that it wants) or retired. Raises Unknown."""
        with self.database.reading() as connection:
            return str(answers.find_task(connection, task).state)

    def tasks(self, *, round: int | None = None, role: str | None = None, state: str | None = None) -> Iterator[Task]:
        """Tasks in the order they were added.

        Args:
            round, role (work, gold, calibration), state (open, closed, retired): None: any.
        """
        query = sa.select(tasks.c.body).order_by(tasks.c.number)
        for name, value in (("round", round), ("role", role), ("state", state)):
            if value is not None:
                query = query.where(tasks.c[name] == value)
        with self.database.reading() as connection:
            for row in connection.execute(query).yield_per(_CHUNK):
                yield task_of(row)

    def retire(self, task: str) -> None:
        """Give a task to nobody any more; its annotations stay. Raises Unknown."""
        with self.database.writing() as connection:
            row = answers.find_task(connection, task, lock=True)
            connection.execute(sa.update(tasks).where(tasks.c.number == row.number).values(state="retired"))

    def reopen(self, task: str) -> None:
        """Give out a task again that was retired, to as many as it still wants.

        Raises:
            Unknown: if there is no such task.
            DataError: if it has no answers: a conversation that was held elsewhere is given to nobody here.
        """
        with self.database.writing() as connection:
            row = answers.find_task(connection, task, lock=True)
            if not task_of(row).completions:
                raise DataError(f"Task {task} has no answers: it is kept for its labels, and given to nobody here.")
            state = "closed" if row.given >= row.wanted else "open"
            connection.execute(sa.update(tasks).where(tasks.c.number == row.number).values(state=state))
            connection.execute(sa.update(annotators).values(cursor=assign.FIRST))

    def progress(self, round: int | None = None) -> Progress:
        """Where a round stands. round: None is the newest."""
        with self.database.reading() as connection:
            number = self._round(connection, round) or 0
            groups = sa.select(
                tasks.c.role, tasks.c.state, sa.func.count(), sa.func.sum(tasks.c.given), sa.func.sum(tasks.c.wanted - tasks.c.given)
            )
            found = list(connection.execute(groups.where(tasks.c.round == number).group_by(tasks.c.role, tasks.c.state)))
            work = [row for row in found if row[0] == "work"]
            of_round = sa.select(annotations.c.annotator, sa.func.count()).join(standing, standing.c.annotation == annotations.c.number)
            of_round = of_round.where(annotations.c.round == number, standing.c.closes == 1).group_by(annotations.c.annotator)
            names = {row.number: row.id for row in connection.execute(sa.select(annotators))}
            live = sa.select(sa.func.count()).select_from(leases).where(leases.c.expires > self.clock())
            return Progress(
                round=number,
                phase=rounds.phase(connection, number),
                tasks=sum(row[2] for row in work),
                closed=sum(row[2] for row in work if row[1] == "closed"),
                retired=sum(row[2] for row in work if row[1] == "retired"),
                answers=sum(int(row[3]) for row in work),
                missing=sum(int(row[4]) for row in work if row[1] == "open"),
                gold=sum(row[2] for row in found if row[0] == "gold"),
                calibration=sum(row[2] for row in found if row[0] == "calibration"),
                held=int(connection.execute(live).scalar_one()),
                by_annotator={names[row[0]]: row[1] for row in connection.execute(of_round)},
            )

    # -- giving out ---------------------------------------------------------------------------------------------------------------------

    def next_task(self, annotator: str, *, round: int | None = None) -> Assignment | Idle:
        """The task that an annotator goes on with, or the next one, kept for them from now on.

        A live lease comes back as long as it lives, with its draft: two tabs of one annotator show one task.

        Args:
            round: None is the newest.
        Raises:
            Unknown: if there is no such annotator.
        """
        now = self.clock()
        with self.database.writing() as connection:
            person = answers.find_annotator(connection, annotator)
            row = assign.held(connection, person, now, self.rules)
            if row is None:
                number = self._round(connection, round)
                if number is None:
                    return Idle("empty")
                phase = rounds.phase(connection, number)
                if phase == "ended":
                    return Idle("ended")
                choice = assign.choose(connection, person, number, self.rules, now, phase, self.selector)
                if isinstance(choice, str):
                    return Idle(choice)
                row = assign.lease(connection, choice, person, now, self.rules)
            return self._assignment(connection, row)

    def take(self, annotator: str, task: str, shown_order: Sequence[int]) -> Assignment:
        """Keep a certain task for an annotator: for pages that make a task as they show it.

        Args:
            shown_order: which of the task's answers stands at each place of the page.
        Raises:
            Unknown: if there is no such annotator or task.
            Conflict: if there is no room on it, because it has the answers that it wants or others hold it.
            DataError: if the order is none of the task's answers.
        """
        now = self.clock()
        with self.database.writing() as connection:
            person = answers.find_annotator(connection, annotator)
            row = answers.find_task(connection, task, lock=True)
            asked, order = task_of(row), tuple(shown_order)
            if sorted(order) != list(range(len(asked.completions))):
                raise DataError(f"Task {task}: shown_order {list(order)} is no order of its {len(asked.completions)} answers.")
            if not assign.claim(connection, row.number, person.number, now, wait=True):
                raise Conflict(f"There is no room on task {task}: it has the answers that it wants, or others hold it.")
            choice = assign.Choice(row.number, asked, "work", assign.arm_of(asked.columns), order)
            return self._assignment(connection, assign.lease(connection, choice, person, now, self.rules))

    def _round(self, connection: Any, round: int | None) -> int | None:
        return connection.execute(sa.select(sa.func.max(tasks.c.round))).scalar() if round is None else round

    def _assignment(self, connection: Any, row: Any) -> Assignment:
        task = connection.execute(sa.select(tasks.c.body).where(tasks.c.number == row.task)).one()
        draft = connection.execute(sa.select(drafts.c.body).where(drafts.c.task == row.task, drafts.c.annotator == row.annotator)).scalar()
        return Assignment(
            task=task_of(task),
            token=row.token,
            expires=row.expires,
            shown_order=tuple(json.loads(row.shown_order)),
            purpose=row.purpose,
            arm=row.arm,
            draft=json.loads(draft) if draft is not None else None,
            guideline_version=answers.newest_guideline(connection),
        )

    def save_draft(self, annotator: str, task: str, token: str, draft: dict[str, Any]) -> float:
        """Keep what an annotator has so far, and the task with it; returns until when.

        Raises:
            LeaseLost: if the task was given to others meanwhile; the draft is kept all the same when the token is the lease's.
            Unknown: if there is no such annotator or task.
            DataError: if the draft is no object, or too long.
        """
        if not isinstance(draft, dict) or len(dumps(draft)) > MAX_DRAFT:
            raise DataError(f"A draft is an object of at most {MAX_DRAFT} characters.")
        now = self.clock()
        with self.database.writing() as connection:
            person = answers.find_annotator(connection, annotator)
            row = answers.find_task(connection, task, lock=True)
            held = answers.find_lease(connection, row, person, token)
            answers.put_draft(connection, row.number, person.number, draft, now)
            lapsed = held.expires <= now and held.purpose == "work"
            kept = not lapsed or assign.claim(connection, row.number, person.number, now, wait=True)
            if kept:
                mine = sa.and_(leases.c.task == row.number, leases.c.annotator == person.number)
                connection.execute(sa.update(leases).where(mine).values(expires=now + self.rules.lease_seconds))
        if not kept:
            raise LeaseLost(f"Task {task} was kept for you until {moment(held.expires)}; others have it now. The draft is kept.")
        return now + self.rules.lease_seconds

    def release(self, annotator: str, task: str, token: str) -> None:
        """Give a task back unanswered; its draft stays. Raises as `save_draft`."""
        with self.database.writing() as connection:
            person = answers.find_annotator(connection, annotator)
            row = answers.find_task(connection, task, lock=True)
            answers.find_lease(connection, row, person, token)
            mine = sa.and_(leases.c.task == row.number, leases.c.annotator == person.number)
            connection.execute(sa.delete(leases).where(mine))

    # -- answers ------------------------------------------------------------------------------------------------------------------------

    def submit(
        self,
        annotator: str,
        task: str,
        token: str,
        submission: str,
        kind: AnnotationKind,
        value: dict[str, Any],
        *,
        strength: int | None = None,
        probability: float | None = None,
        seconds: float | None = None,
        rationale: str | None = None,
        guideline_version: int | None = None,
        source: LabelSource = "human",
    ) -> Annotation:
        """Store an answer, a flag, a skip, or an edit beside the answer. Once it returns, the annotation is on disk.

        Args:
            annotator, task, token: of the assignment.
            submission: made by the client, new for each answer and the same when one is sent again: the same annotation comes back.
            kind: the task's own, edit, flag or skip.
            value: as `data.annotation_values` says; answers are named by their place in the task.
            guideline_version: that the page showed. None is the newest.
        Raises:
            DataError: if a field is wrong; the message names it.
            Unknown: if there is no such annotator or task.
            LeaseLost: if the token is wrong, or the lease has lapsed and others took the place.
            Conflict: if this annotator has answered the task, or the submission id was used for something else.
        """
        said = Annotation(
            "",
            task,
            kind,
            value,
            annotator,
            source=source,
            strength=strength,
            probability=probability,
            seconds=seconds,
            rationale=rationale,
            guideline_version=guideline_version,
        )
        if not isinstance(annotator, str) or not answers.KEY.fullmatch(annotator):
            raise Unknown(f"There is no annotator {str(annotator)[:60]!r}.")

        def once() -> Annotation:
            with self.database.writing() as connection:
                return answers.submit(connection, said, token, submission, self.clock())

        try:
            return once()
        except exc.IntegrityError:  # the same id came twice at once, for two tasks: the second try finds the first
            return once()

    def undo(self, annotator: str, submission: str, annotation: str | None = None) -> Assignment | None:
        """Take an answer back. The record keeps it, with a row that supersedes it; its task is with the annotator again, the answer as draft.

        Args:
            submission: as for `submit`: the same id takes back once.
            annotation: which of the annotator's answers. None is the newest.
        Returns:
            the assignment; None where what was taken back stood beside an answer that stays.
        Raises:
            Unknown: if there is no such answer of this annotator, or it was taken back already.
            Conflict: if the submission id was used for something else.
        """
        now = self.clock()
        with self.database.writing() as connection:
            person = answers.find_annotator(connection, annotator)
            row = answers.undo(connection, person, annotation, submission, now, self.rules)
            return self._assignment(connection, row) if row is not None else None

    def adjudicate(
        self,
        annotator: str,
        task: str,
        submission: str,
        value: dict[str, Any],
        *,
        strength: int | None = None,
        rationale: str | None = None,
    ) -> Annotation:
        """Settle a disputed task: in snapshots this answer stands in place of the others. Needs no lease.

        Raises:
            DataError, Unknown, Conflict: as `submit`.
        """
        with self.database.writing() as connection:
            person = answers.find_annotator(connection, annotator)
            row = answers.find_task(connection, task, lock=True)
            before = answers.submitted(connection, answers.check_key(submission, "The submission"))
            if before is not None:
                if (before.annotator, before.task, before.purpose, before.value) != (annotator, task, "adjudication", value):
                    raise Conflict(f"The submission {submission} was used for something else.")
                return before
            asked = task_of(row)
            now, version = self.clock(), answers.newest_guideline(connection)
            said = Annotation(secrets.token_hex(8), task, asked.kind, value, annotator, strength=strength, rationale=rationale)
            said = replace(said, round=row.round, guideline_version=version, created=moment(now), purpose="adjudication")
            check_annotation(said, asked)
            settled = sa.select(standing.c.annotation).where(standing.c.task == row.number, standing.c.purpose == "adjudication")
            if connection.execute(settled).first() is not None:
                raise Conflict(f"Task {task} is settled already. Take that back to settle it otherwise.")
            number = answers.add_annotation(connection, said, submission, row.number, person.number)
            answers.stand(connection, said, asked, number, row.number, person.number)
            return said

    def record(self, found: Iterable[Annotation]) -> Added:
        """Store annotations made elsewhere, by a model, a rule or in a copy of the project; those that are there already change nothing.

        All or none. People's answers count towards the overlap, those of models and rules do not.

        Raises:
            DataError: if one is wrong. Unknown: if its task, or what it supersedes, is not there.
        """
        with self.database.writing() as connection:
            return Added(*answers.record(connection, found, self.clock()))

    def annotation(self, annotation: str) -> Annotation:
        """One annotation. Raises Unknown."""
        with self.database.reading() as connection:
            row = connection.execute(SELECT.where(annotations.c.id == annotation)).first() if answers.KEY.fullmatch(annotation) else None
        if row is None:
            raise Unknown(f"There is no annotation {annotation[:60]!r}.")
        return annotation_of(row)

    def annotations(
        self,
        *,
        valid: bool = True,
        task: str | None = None,
        annotator: str | None = None,
        round: int | None = None,
        kind: AnnotationKind | None = None,
        purpose: Purpose | None = None,
        source: LabelSource | None = None,
        newest: int | None = None,
    ) -> Iterator[Annotation]:
        """Annotations in the order they were stored.

        Args:
            valid: True leaves out those that were taken back or replaced. False gives the whole record, undo rows with it.
            task, annotator, round, kind, purpose, source: must be equal to this. None: any.
            newest: only so many, the newest first. None: all, the oldest first.
        """
        where = {"task_id": task, "annotator_id": annotator, "round": round, "kind": kind, "purpose": purpose, "source": source}
        with self.database.reading() as connection:
            yield from select_annotations(connection, valid=valid, newest=newest, **where)

    def export_annotations(self, *, pseudonyms: bool = False, rationales: bool = True) -> Iterator[Annotation]:
        """The whole record, for another copy of the project or for others to read.

        Args:
            pseudonyms: True puts names that only this project can trace in place of annotators, and leaves out what other tools said of imported
                labels, which may name them. False leaves both.
            rationales: False leaves out what annotators wrote as reasons.
        """
        with self.database.writing() as connection:
            key = people.pseudonym_key(connection) if pseudonyms else b""
        for found in self.annotations(valid=False):
            found = replace(found, annotator=people.pseudonym(key, found.annotator), columns={}) if pseudonyms else found
            yield found if rationales else replace(found, rationale=None)
