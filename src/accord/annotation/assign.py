"""Which task an annotator gets next, and in which order its answers are shown.

Chance decides by default: tasks lie in an order drawn from the project's seed, and an annotator gets the first one that is not theirs yet and still
wants somebody, so that tasks are finished one after another and agreement is known early. Every so often comes a gold task, or one of the annotator's
own again with the sides swapped. What is drawn depends on seed, annotator and how many tasks they have had, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accord.annotation.extras import sa
from accord.annotation.records import dumps, task_of
from accord.annotation.schema import annotations, annotators, drafts, leases, readings, standing, tasks
from accord.types import Arm, Purpose, Task

ARM = "arm"
"""Column of tasks: which arm chose the pair."""
FIRST = -(2**63)
"""Before every position."""
REPEAT_GAP = 10
"""A task comes again after at least so many others."""
CANDIDATES = 8
"""Tasks looked at in one query; a selector gets `SELECTOR_CANDIDATES`."""
SELECTOR_CANDIDATES = 32

Selector = Callable[[str, Sequence[Task]], Sequence[Task]]
"""(annotator, tasks that may be asked now, in random order) to the tasks in order of preference; those left out come last."""


@dataclass(frozen=True)
class Rules:
    """How tasks are given out. The values of project.yaml."""

    overlap: int = 1
    """Annotators wanted for each task."""
    gold_rate: float = 0.0
    """Share of tasks that are gold, while there are gold tasks the annotator has not had."""
    repeat_rate: float = 0.0
    """Share of tasks that are the annotator's own again, sides swapped."""
    lease_seconds: float = 1800.0
    """How long a task is kept for an annotator; saving a draft starts the time anew."""
    random_share: float = 0.3
    """Share of work that chance chooses although there is a selector: the control, and the only part fit for evaluation."""
    seed: int = 0


@dataclass(frozen=True)
class Choice:
    """A task chosen for an annotator, its row locked until the transaction ends."""

    number: int
    task: Task
    purpose: Purpose
    arm: Arm
    order: tuple[int, ...]


def uniform(*key: object) -> float:
    """A number from 0 to 1 that follows from the key alone, the same on every machine."""
    return int.from_bytes(_digest(key)[:7], "big") / 2**56


def position(seed: int, task: str) -> int:
    """Where a task lies in the random order of its project: a signed 64-bit number."""
    return int.from_bytes(_digest(("position", seed, task))[:8], "big", signed=True)


def held_out(prompt_id: str, share: float) -> bool:
    """Whether a prompt is among the share that training does not see: follows from the prompt alone, so no later round trains on it either."""
    return uniform("heldout", prompt_id) < share


def shown_order(seed: int, annotator: str, task: Task) -> tuple[int, ...]:
    """Which answer stands at each place for this annotator: shuffled, the same however often it is asked."""
    return tuple(sorted(range(len(task.completions)), key=lambda index: _digest(("order", seed, annotator, task.id, index))))


def arm_of(columns: Mapping[str, Any]) -> Arm:
    """Which arm chose a task, by its columns: a pair that a rule made stays selected, whoever gets it and however tasks are ordered."""
    return "selected" if columns.get(ARM) == "selected" else "random"


def _digest(key: tuple[object, ...]) -> bytes:
    return hashlib.blake2b(json.dumps(key).encode("utf-8"), digest_size=8).digest()


def choose(connection: Any, annotator: Any, round: int, rules: Rules, now: float, phase: str, selector: Selector | None) -> Choice | str:
    """The next task of an annotator who holds none, or why there is none: calibration, wait or done.

    Args:
        annotator: their row, locked.
        phase: of the round; in calibration nothing else is given.
        selector: orders the tasks that may be asked; None leaves it to chance.
    """
    found = _mine(connection, annotator, round, "calibration", rules)
    if found is not None:
        return found
    if phase == "calibration":
        return "calibration"
    drawn = uniform("what", rules.seed, annotator.id, annotator.asked)
    if drawn < rules.gold_rate:
        found = _mine(connection, annotator, round, "gold", rules)
    elif drawn < rules.gold_rate + rules.repeat_rate:
        found = _repeat(connection, annotator, rules)
    return found or _work(connection, annotator, round, rules, now, selector)


def _may_be_asked(annotator: int) -> Any:
    """Who has not judged the task, nor read what others said of it."""
    done = sa.select(standing.c.annotation).where(
        standing.c.task == tasks.c.number, standing.c.annotator == annotator, standing.c.closes == 1
    )
    return sa.and_(~done.exists(), ~has_read(annotator, tasks.c.number))


def has_read(annotator: Any, task: Any) -> Any:
    """The condition that somebody has read what others said of a task. annotator, task: numbers of their rows, or columns."""
    return sa.select(readings.c.task).where(readings.c.task == task, readings.c.annotator == annotator).exists()


def _mine(connection: Any, annotator: Any, round: int, role: Purpose, rules: Rules) -> Choice | None:
    """The first gold or calibration task that the annotator has not had; everybody gets all of these."""
    query = sa.select(tasks).where(tasks.c.round == round, tasks.c.role == role, tasks.c.state == "open", _may_be_asked(annotator.number))
    row = connection.execute(query.order_by(tasks.c.position).limit(1)).first()
    if row is None:
        return None
    task = task_of(row)
    return Choice(row.number, task, role, arm_of(task.columns), shown_order(rules.seed, annotator.id, task))


def _repeat(connection: Any, annotator: Any, rules: Rules) -> Choice | None:
    """One of the annotator's own answers at random, at least `REPEAT_GAP` ago and not repeated before, its sides the other way round."""
    mine = sa.and_(standing.c.annotator == annotator.number, standing.c.purpose == "work", standing.c.counts == 1)
    numbers = sa.select(standing.c.annotation).where(mine)
    last = connection.execute(numbers.order_by(standing.c.annotation.desc()).limit(1).offset(REPEAT_GAP - 1)).scalar()
    first = connection.execute(numbers.order_by(standing.c.annotation).limit(1)).scalar()
    if last is None or first is None:
        return None
    again = standing.alias("again")
    repeated = sa.select(again.c.annotation).where(
        again.c.task == standing.c.task, again.c.annotator == annotator.number, again.c.purpose == "repeat"
    )
    query = (
        sa.select(tasks, annotations.c.shown_order)
        .join(standing, standing.c.task == tasks.c.number)
        .join(annotations, annotations.c.number == standing.c.annotation)
        .where(mine, standing.c.annotation <= last, ~repeated.exists(), ~has_read(annotator.number, standing.c.task))
    )
    pivot = first + int(uniform("repeat", rules.seed, annotator.id, annotator.asked) * (last - first + 1))
    row = connection.execute(query.where(standing.c.annotation >= pivot).order_by(standing.c.annotation).limit(1)).first()
    row = row or connection.execute(query.where(standing.c.annotation < pivot).order_by(standing.c.annotation.desc()).limit(1)).first()
    if row is None:
        return None
    return Choice(row.number, task_of(row), "repeat", "random", tuple(json.loads(row.shown_order))[::-1])


def _work(connection: Any, annotator: Any, round: int, rules: Rules, now: float, selector: Selector | None) -> Choice | str:
    if selector is not None and uniform("arm", rules.seed, annotator.id, annotator.asked) < rules.random_share:
        selector = None
    cursor = annotator.cursor if annotator.round == round else FIRST
    for start in (cursor, FIRST) if cursor > FIRST else (FIRST,):
        after = start
        limit = SELECTOR_CANDIDATES if selector else CANDIDATES
        while rows := list(connection.execute(candidates(annotator.number, round, now, after, limit))):
            if after == start:
                # Up to the first candidate nothing is left for this annotator; what others' leases hide is found from the beginning, at the end.
                connection.execute(
                    sa.update(annotators)
                    .where(annotators.c.number == annotator.number)
                    .values(round=round, cursor=max(rows[0].position - 1, FIRST))
                )
            for row in _preferred(rows, annotator.id, selector):
                if claim(connection, row.number, annotator.number, now):
                    task = task_of(row)
                    arm: Arm = "selected" if selector else arm_of(task.columns)
                    return Choice(row.number, task, "work", arm, shown_order(rules.seed, annotator.id, task))
            after = rows[-1].position
    unfinished = sa.select(tasks.c.number).where(
        tasks.c.round == round, tasks.c.role == "work", tasks.c.state == "open", _may_be_asked(annotator.number)
    )
    return "wait" if connection.execute(unfinished.limit(1)).first() is not None else "done"


def candidates(annotator: int, round: int, now: float, after: int, limit: int) -> Any:
    """The query for tasks after a position that have room for an annotator, in the random order: a walk along one index that stops early."""
    return (
        sa.select(tasks)
        .where(
            tasks.c.round == round,
            tasks.c.role == "work",
            tasks.c.state == "open",
            tasks.c.position > after,
            _may_be_asked(annotator),
            tasks.c.given + _live_leases(annotator, now) < tasks.c.wanted,
        )
        .order_by(tasks.c.position)
        .limit(limit)
    )


def _live_leases(annotator: int, now: float) -> Any:
    """How many others hold the task now."""
    return (
        sa.select(sa.func.count())
        .select_from(leases)
        .where(leases.c.task == tasks.c.number, leases.c.expires > now, leases.c.annotator != annotator, leases.c.purpose == "work")
        .scalar_subquery()
    )


def _preferred(rows: Sequence[Any], annotator: str, selector: Selector | None) -> list[Any]:
    if selector is None:
        return list(rows)
    by_id = {row.id: row for row in rows}
    chosen = [by_id.pop(task.id) for task in selector(annotator, [task_of(row) for row in rows]) if task.id in by_id]
    return [*chosen, *by_id.values()]


def claim(connection: Any, number: int, annotator: int, now: float, *, wait: bool = False) -> bool:
    """Lock a task if there is room on it for this annotator: fewer standing answers and live leases of others than it wants.

    Whoever adds an answer or a lease holds this lock, so the room cannot shrink before the transaction ends.

    Args:
        wait: True waits for another transaction that holds the task. False takes it as no room.
    """
    locked = sa.select(tasks.c.number).where(tasks.c.number == number).with_for_update(key_share=True, skip_locked=not wait)
    if connection.execute(locked).first() is None:
        return False
    # A statement of its own: on PostgreSQL it sees what was committed before the lock was given.
    room = sa.select(tasks.c.number).where(
        tasks.c.number == number,
        tasks.c.state == "open",
        _may_be_asked(annotator),
        tasks.c.given + _live_leases(annotator, now) < tasks.c.wanted,
    )
    return connection.execute(room).first() is not None


def lease(connection: Any, choice: Choice, annotator: Any, now: float, rules: Rules) -> Any:
    """Keep a task for an annotator from now on; returns the lease's row."""
    mine = sa.and_(leases.c.task == choice.number, leases.c.annotator == annotator.number)
    connection.execute(sa.delete(leases).where(mine))
    row = {
        "task": choice.number,
        "annotator": annotator.number,
        "token": secrets.token_hex(16),
        "purpose": choice.purpose,
        "arm": choice.arm,
        "shown_order": dumps(list(choice.order)),
        "expires": now + rules.lease_seconds,
        "created": now,
    }
    connection.execute(sa.insert(leases).values(row))
    connection.execute(sa.update(annotators).where(annotators.c.number == annotator.number).values(asked=annotators.c.asked + 1))
    return connection.execute(sa.select(leases).where(mine)).one()


def held(connection: Any, annotator: Any, now: float, rules: Rules) -> Any | None:
    """The lease that the annotator goes on with: the newest live one, else a lapsed one with a draft whose task still has room. Renewed."""
    mine = sa.select(leases).where(leases.c.annotator == annotator.number)
    row = connection.execute(mine.where(leases.c.expires > now).order_by(leases.c.created.desc(), leases.c.task.desc()).limit(1)).first()
    if row is None:
        drafted = mine.join(drafts, sa.and_(drafts.c.task == leases.c.task, drafts.c.annotator == leases.c.annotator))
        for lapsed in connection.execute(drafted.order_by(drafts.c.saved.desc()).limit(CANDIDATES)):
            if lapsed.purpose != "work" or claim(connection, lapsed.task, annotator.number, now):
                row = lapsed
                break
    if row is None:
        return None
    this = sa.and_(leases.c.task == row.task, leases.c.annotator == row.annotator)
    connection.execute(sa.update(leases).where(this).values(expires=now + rules.lease_seconds))
    return connection.execute(sa.select(leases).where(this)).one()
