"""Answers that were paid for, and questions that wait for one: a SQLite file that a killed run goes on from. JSON inside, no pickle."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.errors import DataError, MachineError
from accord.writing import no_room

SCHEMA = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    answer TEXT,
    tokens INTEGER NOT NULL DEFAULT 0,
    cost REAL NOT NULL DEFAULT 0,
    changed TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
)
"""


@dataclass(frozen=True)
class Spent:
    """What the answers of a store have cost together."""

    tokens: int = 0
    cost: float = 0.0


class AnswerStore:
    """Questions by their key, answered or waiting. Every change is on disk when its call returns.

    Args:
        path: the file, made where it is not there; None keeps everything in memory.
    Raises:
        DataError: if the file is no such store, or a newer release wrote it.
        MachineError: if it cannot be opened.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        with self._explained():
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(":memory:" if path is None else str(path), timeout=30.0)
            self._open()

    def _open(self) -> None:
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise DataError(f"{self.path} was written by a newer accord (schema {version}; this one reads up to {SCHEMA}). Upgrade accord.")
        others = self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'answers'").fetchone()
        if version == 0 and others is not None:
            raise DataError(f"{self.path} is another program's database (it has a table {others[0]}). Name another file: --answers FILE")
        self._database.execute("PRAGMA journal_mode = WAL")
        with self._database:
            self._database.execute(_TABLE)
            self._database.execute(f"PRAGMA user_version = {SCHEMA}")

    def known(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The answers that are there, by key."""
        found: dict[str, dict[str, Any]] = {}
        for key in dict.fromkeys(keys):
            row = self._database.execute("SELECT answer FROM answers WHERE key = ? AND answer IS NOT NULL", (key,)).fetchone()
            if row is not None:
                found[key] = json.loads(row[0])
        return found

    def queue(self, requests: Mapping[str, Mapping[str, Any]]) -> None:
        """Note questions that will be asked."""
        rows = [(key, json.dumps(request, ensure_ascii=False)) for key, request in requests.items()]
        with self._explained(), self._database:
            self._database.executemany("INSERT OR IGNORE INTO answers (key, request) VALUES (?, ?)", rows)

    def keep(self, key: str, answer: Mapping[str, Any], *, tokens: int, cost: float) -> None:
        """Note the answer to a question that was queued."""
        text = json.dumps(answer, ensure_ascii=False)
        with self._explained(), self._database:
            self._database.execute(
                "UPDATE answers SET answer = ?, tokens = ?, cost = ?, changed = strftime('%Y-%m-%dT%H:%M:%SZ', 'now') WHERE key = ?",
                (text, tokens, cost, key),
            )

    def spent(self) -> Spent:
        """Tokens and money of all answers."""
        tokens, cost = self._database.execute("SELECT coalesce(sum(tokens), 0), coalesce(sum(cost), 0) FROM answers").fetchone()
        return Spent(int(tokens), float(cost))

    def counts(self) -> tuple[int, int]:
        """How many questions are answered, and how many wait."""
        answered, waiting = self._database.execute("SELECT count(answer), count(*) - count(answer) FROM answers").fetchone()
        return int(answered), int(waiting)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _explained(self) -> Generator[None]:
        """SQLite's and the system's errors as one line."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if (full := no_room(error)) is not None:
                raise full from error
            if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
                raise DataError(f"{self.path} is no file of answers ({error}). Name another: --answers FILE") from error
            raise MachineError(f"{self.path or 'the store of answers'} cannot be used: {error}. Free the file or name another.") from error
