"""Annotators: names apart from the record, invitations, pseudonyms, and erasure on request.

The record knows an annotator by a random key. Names, and what was written in words, lie in tables of their own that can be emptied.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any

from accord.annotation.answers import check_key, find_annotator, new_annotator
from accord.annotation.extras import sa
from accord.annotation.refusals import Conflict, Unknown
from accord.annotation.schema import annotation_texts, annotations, annotators, drafts, erasures, facts, leases
from accord.errors import DataError

ROLES = ("admin", "annotator", "viewer", "program")
ERASED_NAME = "(erased)"
UNSIGNED = "import:"
"""What keys begin with that stand for whoever gave imported labels that name nobody: perhaps one person, perhaps many, perhaps a row twice."""
MAX_NAME = 200


@dataclass(frozen=True)
class Annotator:
    """Somebody, or a program, who judges."""

    id: str
    name: str
    role: str
    erased: bool
    asked: int
    """Tasks given out to them."""


@dataclass(frozen=True)
class Erasure:
    """What was erased at somebody's request: how many annotations stay as tombstones, how many of them had text."""

    annotator: str
    at: float
    annotations: int
    texts: int


def add_annotator(connection: Any, name: str, role: str, key: str | None, secret: str | None, now: float) -> Annotator:
    """Add somebody. See `Store.add_annotator`."""
    if role not in ROLES:
        raise DataError(f'There is no role "{role}". The roles are: {", ".join(ROLES)}.')
    plain = name.strip() if isinstance(name, str) else ""
    if not plain or len(plain) > MAX_NAME or not plain.isprintable():
        raise DataError(f"An annotator's name is a line of 1 to {MAX_NAME} printable characters, not {str(name)[:40]!r}.")
    key = check_key(key, "The annotator") if key is not None else f"a-{secrets.token_hex(6)}"
    if connection.execute(sa.select(annotators.c.number).where(annotators.c.id == key)).first() is not None:
        raise Conflict(f"There is an annotator {key} already.")
    new_annotator(connection, key, plain, role, hash_secret(secret) if secret is not None else None, now)
    return Annotator(key, plain, role, False, 0)


def hash_secret(secret: str) -> str:
    """What is kept of an invitation's secret. It is long and random, so a plain hash is enough."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def list_annotators(connection: Any, **where: Any) -> list[Annotator]:
    """Annotators in the order they came. where: columns that must be equal to a value."""
    query = sa.select(annotators).order_by(annotators.c.number)
    for name, value in where.items():
        query = query.where(annotators.c[name] == value)
    return [Annotator(row.id, row.name, row.role, row.erased is not None, row.asked) for row in connection.execute(query)]


def erase(connection: Any, annotator: str, now: float) -> Erasure:
    """Erase a person: name, invitation, drafts and every text. See `Store.erase`."""
    row = find_annotator(connection, annotator, active=False)
    if row.erased is not None:
        done = connection.execute(sa.select(erasures).where(erasures.c.annotator == row.id)).first()
        if done is None:
            raise Unknown(f"There is no annotator {annotator!r}.")
        return Erasure(done.annotator, done.at, done.annotations, done.texts)
    mine = sa.select(annotations.c.number).where(annotations.c.annotator == row.number)
    count = int(connection.execute(sa.select(sa.func.count()).select_from(mine.subquery())).scalar_one())
    words = (
        sa.update(annotation_texts).where(annotation_texts.c.annotation.in_(mine), annotation_texts.c.body.is_not(None)).values(body=None)
    )
    texts = int(connection.execute(words).rowcount)
    for table in (drafts, leases):
        connection.execute(sa.delete(table).where(table.c.annotator == row.number))
    gone = {"name": ERASED_NAME, "secret_hash": None, "erased": now}
    connection.execute(sa.update(annotators).where(annotators.c.number == row.number).values(gone))
    connection.execute(sa.insert(erasures).values(annotator=row.id, at=now, annotations=count, texts=texts))
    return Erasure(row.id, now, count, texts)


def list_erasures(connection: Any) -> list[Erasure]:
    """What was erased, in order."""
    return [
        Erasure(row.annotator, row.at, row.annotations, row.texts)
        for row in connection.execute(sa.select(erasures).order_by(erasures.c.number))
    ]


def pseudonym_key(connection: Any) -> bytes:
    """The project's own random key for pseudonyms, made when it is first needed. Whoever has it can test guesses."""
    row = connection.execute(sa.select(facts.c.value).where(facts.c.key == "pseudonyms")).first()
    if row is None:
        connection.execute(sa.insert(facts).values(key="pseudonyms", value=secrets.token_hex(32)))
        row = connection.execute(sa.select(facts.c.value).where(facts.c.key == "pseudonyms")).one()
    return bytes.fromhex(row.value)


def pseudonym(key: bytes, annotator: str) -> str:
    """The name of an annotator in an export: always the same, and of no use without the key."""
    return f"p-{hmac.new(key, annotator.encode('utf-8', 'surrogatepass'), hashlib.sha256).hexdigest()[:12]}"
