"""Every test of the store runs on SQLite and on PostgreSQL: the latter from Debian's server, where that is installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="the store needs pip install 'accord[annotate]'")

from accord.annotation.assign import Rules
from accord.annotation.database import Database
from accord.annotation.store import Store
from labelling import Clock
from postgres_server import Server, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database with the schema, to copy."""
    path = tmp_path_factory.mktemp("made") / "made.sqlite"
    Database(path).close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database with the schema."""
    if request.param == "postgresql":
        return request.getfixturevalue("server").new()
    path = tmp_path / "annotations.sqlite"
    shutil.copy(request.getfixturevalue("sqlite_made"), path)
    return str(path)


@pytest.fixture(params=["sqlite", "postgresql"])
def nowhere(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place where no database is yet, or an empty one."""
    if request.param == "postgresql":
        return request.getfixturevalue("server").new(empty=True)
    return str(tmp_path / "annotations.sqlite")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(where: str, clock: Clock) -> Iterator[Callable[..., Store]]:
    """Opens stores on the test's database, with rules and a clock; each has its own connections."""
    stores: list[Store] = []

    def open_store(selector: Any = None, **rules: Any) -> Store:
        stores.append(Store(where, Rules(**rules), selector=selector, clock=clock))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()
