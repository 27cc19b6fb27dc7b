"""Debian's PostgreSQL in a temporary folder, for the tests that run on both databases."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_names = itertools.count()


class Server:
    """A server that is reached through a socket in its folder. It refuses to run as root, so root becomes its user."""

    def __init__(self, programs: Path) -> None:
        from accord.annotation.database import Database

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


@contextmanager
def running() -> Iterator[Server]:
    """A server; the test is skipped where PostgreSQL is not installed."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if sys.platform == "win32" or not programs:
        pytest.skip("Debian's postgresql is not installed")
    pytest.importorskip("psycopg", reason="PostgreSQL needs pip install 'accord[postgres]'")
    server = Server(programs[-1].parent)
    try:
        yield server
    finally:
        server.stop()
