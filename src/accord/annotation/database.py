"""Opening the annotation database: SQLite in a file or PostgreSQL by URL, its schema brought up to date after a backup, and transactions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accord.annotation.extras import INSTALL, INSTALL_POSTGRES, event, exc, sa
from accord.annotation.schema import HEAD
from accord.errors import ConfigError, DataError, MachineError
from accord.writing import whole_file

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 60
"""How long a writer waits for another before SQLite gives up."""
_LOCK = 4122_5113
"""PostgreSQL's advisory lock while the schema is brought up to date."""


class Database:
    """A database with the current schema.

    Args:
        where: path of an SQLite file, made if it is not there, or a URL: postgresql://user:password@host/name.
        revision: the migration to stop at, for reading old backups. None: the newest.
    Raises:
        DataError: if a newer release wrote it, or it is no database of accord.
        MachineError: if a package is missing or the server cannot be reached.
    """

    def __init__(self, where: str | Path, *, revision: str | None = None) -> None:
        self.where = str(where)
        self.file = None if "://" in self.where else Path(where)
        self.engine = self._sqlite() if self.file is not None else self._postgresql()
        self.backup_made: Path | None = None
        """The backup that was made before the schema was changed."""
        try:
            self._bring_up_to_date(revision or HEAD)
        except exc.DatabaseError as error:
            self.close()
            reason = " ".join(str(error.orig).split())[:300]
            if self.file is not None and "not a database" in reason:
                raise DataError(
                    f"{self.where} is no SQLite database ({reason}). Restore it from a backup: accord project restore"
                ) from error
            raise MachineError(f"{self.shown} cannot be opened: {reason}") from error
        except BaseException:
            self.close()
            raise

    @property
    def shown(self) -> str:
        """Where it is, without a password."""
        return self.where if self.file is not None else self.engine.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Generator[Any]:
        """A transaction that sees one moment of the database."""
        with self.engine.connect() as connection:
            if self.file is None:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Generator[Any]:
        """A transaction that writes; on SQLite it holds the one write lock from its start, so nothing it read can change before it ends."""
        with self.engine.connect() as connection:
            if self.file is not None:
                connection = connection.execution_options(immediate=True)
            with connection.begin():
                yield connection

    def _sqlite(self) -> Any:
        assert self.file is not None
        if not self.file.parent.is_dir():
            raise DataError(f"{self.file.parent} does not exist, so no database can lie in it.")
        url = sa.URL.create("sqlite", database=str(self.file))
        engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS}, pool_size=16, max_overflow=64)

        @event.listens_for(engine, "connect")
        def configure(connection: Any, record: Any) -> None:  # pyright: ignore[reportUnusedFunction]
            connection.isolation_level = None  # or sqlite3 begins transactions by itself, too late: SQLAlchemy's documentation of pysqlite
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def begin(connection: Any) -> None:  # pyright: ignore[reportUnusedFunction]
            connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("immediate") else "BEGIN")

        return engine

    def _postgresql(self) -> Any:
        try:
            url = sa.make_url(self.where)
        except exc.ArgumentError as error:
            raise ConfigError(f'The database "{self.where}" is neither a file nor a URL such as postgresql://user@host/name.') from error
        if url.get_backend_name() not in ("postgresql", "postgres"):
            raise ConfigError(f"There is no support for {url.drivername}; a database is an SQLite file or postgresql://user@host/name.")
        try:
            return sa.create_engine(url.set(drivername="postgresql+psycopg"), pool_size=16, max_overflow=64, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise MachineError(INSTALL_POSTGRES) from error

    # -- schema -------------------------------------------------------------------------------------------------------------------------

    def revision(self, connection: Any) -> str | None:
        """The migration that the database stands at; None: it is empty."""
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()

    def _bring_up_to_date(self, target: str) -> None:
        with self.reading() as connection:
            found = self.revision(connection)
        if found == target:
            return
        if found is not None:
            self._check_known(found)
            if self.file is not None:
                self.backup_made = self.file.with_name(f"{self.file.name}.{found}-{time.strftime('%Y%m%d-%H%M%S')}.backup")
                copy_sqlite(self.file, self.backup_made)
        with self.writing() as connection:
            if self.file is None:
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            if self.revision(connection) != target:  # another process may have done it meanwhile
                upgrade(connection, target)

    def _check_known(self, found: str) -> None:
        if found > HEAD:
            raise DataError(
                f"{self.shown} was written by a newer accord (schema {found}; this release reads up to {HEAD}). Upgrade accord to open it."
            )
        if not any((MIGRATIONS / "versions").glob(f"{found}_*.py")):
            raise DataError(f"{self.shown} has the schema {found}, which is none of accord's. Is it another program's database?")


def upgrade(connection: Any, revision: str) -> None:
    """Run the migrations up to one, inside the connection's transaction."""
    try:
        from alembic import command
        from alembic.config import Config
    except ImportError as error:
        raise MachineError(INSTALL) from error
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def copy_sqlite(source: Path, target: Path) -> None:
    """A consistent copy of an SQLite database that may be in use, whole or not at all."""
    with whole_file(target) as partial:
        partial.unlink(missing_ok=True)
        reader, writer = sqlite3.connect(source, timeout=BUSY_SECONDS), sqlite3.connect(partial)
        try:
            reader.backup(writer)
        finally:
            writer.close()
            reader.close()
