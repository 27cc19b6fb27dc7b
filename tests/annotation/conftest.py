"""Every test of the store runs on SQLite and on PostgreSQL: the latter from Debian's server, where that is installed."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="the store needs pip install 'accord[annotate]'")

from accord.annotation.assign import Rules
from accord.annotation.database import Database
from accord.annotation.store import Store
from labelling import Clock

_names = itertools.count()


class Server:
    """A PostgreSQL server in a temporary folder, reached through a socket in it. It refuses to run as root, so root becomes its user."""

    def __init__(self, programs: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="accord-pg-"))
        self.programs = programs
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(self.folder, self.user, self.user)
        self.run("initdb", "-D", "data", "-U", "accord", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off -c max_connections=100"
        self.run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")
        self.create("made", "template0")
        Database(self.url("made")).close()

    def run(self, program: str, *arguments: str) -> None:
        # Into a file: a server that inherits a pipe keeps it open for ever.
        with (self.folder / f"{program}.out").open("w") as out:
            done = subprocess.run(
                [str(self.programs / program), *arguments], cwd=self.folder, user=self.user, stdout=out, stderr=out, timeout=120
            )
        if done.returncode:
            raise RuntimeError((self.folder / f"{program}.out").read_text())

    def url(self, name: str) -> str:
        return f"postgresql://accord@/{name}?host={self.folder}"

    def new(self, *, empty: bool = False) -> str:
        """The URL of a new database, with the schema or empty."""
        name = f"test{next(_names)}"
        self.create(name, "template0" if empty else "made")
        return self.url(name)

    def create(self, name: str, template: str) -> None:
        import psycopg

        with psycopg.connect(host=str(self.folder), user="accord", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")  # type: ignore[call-overload]

    def stop(self) -> None:
        self.run("pg_ctl", "-D", "data", "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if sys.platform == "win32" or not programs:
        pytest.skip("Debian's postgresql is not installed")
    pytest.importorskip("psycopg", reason="PostgreSQL needs pip install 'accord[postgres]'")
    server = Server(programs[-1].parent)
    yield server
    server.stop()


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
