"""Rounds: the calibration that one may begin with, and the guideline that holds and what its change does to older labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from accord.annotation.answers import newest_guideline, stand_down
from accord.annotation.assign import FIRST
from accord.annotation.extras import sa
from accord.annotation.refusals import Unknown
from accord.annotation.schema import annotations, annotators, guidelines, leases, readings, rounds, standing, tasks
from accord.data.value_checks import check_encodable
from accord.errors import DataError
from accord.types import content_hash

Phase = Literal["calibration", "work", "ended"]
OldLabels = Literal["kept", "flagged", "relabel"]
"""What a change of the guideline does to labels made under older ones. kept: they count as before. flagged: they count, and their examples say
`old_guideline`. relabel: they count no more, and their tasks are given out again."""


@dataclass(frozen=True)
class Guideline:
    """One version of what annotators are told."""

    version: int
    text: str
    hash: str
    old_labels: OldLabels
    created: float


def phase(connection: Any, round: int) -> Phase:
    """Where a round stands; one that nothing was said about is at work."""
    found = connection.execute(sa.select(rounds.c.phase).where(rounds.c.number == round)).scalar()
    return found if found is not None else "work"


def set_phase(connection: Any, round: int, value: Phase) -> None:
    """Move a round on."""
    if value not in get_args(Phase):
        raise DataError(f'There is no phase "{value}". The phases are: {", ".join(get_args(Phase))}.')
    connection.execute(sa.delete(rounds).where(rounds.c.number == round))
    connection.execute(sa.insert(rounds).values(number=round, phase=value))


def begin_calibration(connection: Any, round: int, count: int, now: float) -> int:
    """Have everybody label the same tasks first. See `Store.begin_calibration`."""
    if count < 1:
        raise DataError(f"A calibration has 1 task or more, not {count}.")
    held = sa.select(leases.c.task).where(leases.c.task == tasks.c.number, leases.c.expires > now)
    said = sa.select(standing.c.task).where(standing.c.task == tasks.c.number)
    free = (
        sa.select(tasks.c.number)
        .where(tasks.c.round == round, tasks.c.role == "work", tasks.c.state == "open", tasks.c.given == 0, ~held.exists(), ~said.exists())
        .order_by(tasks.c.position)
        .limit(count)
    )
    chosen = [row.number for row in connection.execute(free.with_for_update(key_share=True))]
    if len(chosen) < count:
        raise DataError(f"Round {round} has {len(chosen)} tasks that nobody has begun; a calibration of {count} needs as many.")
    connection.execute(sa.update(tasks).where(tasks.c.number.in_(chosen)).values(role="calibration"))
    set_phase(connection, round, "calibration")
    return len(chosen)


def check_guideline(text: str) -> None:
    """Raises DataError if it says nothing, or cannot be stored."""
    if not text.strip():
        raise DataError("A guideline has a text.")
    check_encodable(text, "The guideline")
    if "\0" in text:
        raise DataError("The guideline has a character of number 0, which no database stores.")


def add_guideline(connection: Any, text: str, old_labels: OldLabels, now: float) -> Guideline:
    """Have a new guideline hold from now on. See `Store.set_guideline`."""
    if old_labels not in get_args(OldLabels):
        raise DataError(f'A change of the guideline leaves old labels {" | ".join(get_args(OldLabels))}, not "{old_labels}".')
    check_guideline(text)
    version = newest_guideline(connection)
    if version is not None and (newest := guideline(connection, version)).text == text:
        return newest
    made = Guideline((version or 0) + 1, text, content_hash(text, 64), old_labels, now)
    connection.execute(sa.insert(guidelines).values(version=made.version, text=text, hash=made.hash, old_labels=old_labels, created=now))
    if old_labels == "relabel":
        _relabel(connection, made.version)
    return made


def _relabel(connection: Any, version: int) -> None:
    older = sa.or_(annotations.c.guideline_version.is_(None), annotations.c.guideline_version < version)
    rows = sa.select(standing).join(annotations, annotations.c.number == standing.c.annotation)
    rows = rows.where(older, standing.c.purpose.in_(("work", "calibration")), annotations.c.source == "human")
    for row in connection.execute(rows.order_by(standing.c.task)).all():
        stand_down(connection, row)
        connection.execute(sa.delete(readings).where(readings.c.task == row.task))  # what was read counts no more
    connection.execute(sa.update(annotators).values(cursor=FIRST))


def guideline(connection: Any, version: int | None) -> Guideline:
    """One version; None: the newest.

    Raises:
        Unknown: if there is none.
    """
    version = newest_guideline(connection) if version is None else version
    row = connection.execute(sa.select(guidelines).where(guidelines.c.version == version)).first()
    if row is None:
        raise Unknown("There is no guideline yet." if version is None else f"There is no guideline {version}.")
    return Guideline(row.version, row.text, row.hash, row.old_labels, row.created)


def list_guidelines(connection: Any) -> list[Guideline]:
    """Every version, the oldest first."""
    rows = connection.execute(sa.select(guidelines).order_by(guidelines.c.version))
    return [Guideline(row.version, row.text, row.hash, row.old_labels, row.created) for row in rows]


def flagged_before(connection: Any) -> int:
    """Labels of guidelines before this version carry a flag; 0: none do."""
    found = connection.execute(sa.select(sa.func.max(guidelines.c.version)).where(guidelines.c.old_labels == "flagged")).scalar()
    return int(found or 0)
