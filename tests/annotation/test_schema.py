"""The schema: made by migrations, the same as the tables say, brought up to date after a backup, and never opened when it is newer."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from accord.annotation.database import MIGRATIONS, Database
from accord.annotation.schema import HEAD, metadata
from accord.annotation.store import Store
from accord.errors import ConfigError, DataError, MachineError
from labelling import label, pairs


def test_migrations_make_what_the_tables_say(nowhere: str) -> None:
    database = Database(nowhere)
    try:
        with database.reading() as connection:
            assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []
            assert database.revision(connection) == HEAD
    finally:
        database.close()


def test_a_file_is_written_ahead_and_to_the_disk(tmp_path: Path) -> None:
    """Readers never wait for a writer, and what was acknowledged survives a power cut."""
    database = Database(tmp_path / "new.sqlite")
    with database.reading() as connection:
        assert connection.execute(sa.text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(sa.text("PRAGMA synchronous")).scalar() == 2
    database.close()


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def old_rows(database: Database) -> None:
    """A task, an annotator and an annotation as release 1 wrote them."""
    task = pairs(1)[0]
    from accord.annotation.records import task_body

    rows: list[tuple[str, dict[str, Any]]] = [
        ("INSERT INTO tasks (id, kind, round, role, state, wanted, given, position, body) VALUES (:id, 'pair', 0, 'work', 'open', 2, 1, 5, :body)", {"id": task.id, "body": task_body(task)}),
        ("INSERT INTO annotators (id, name, created, asked, round, cursor) VALUES ('ann', 'Ann', 1.5, 1, 0, -9223372036854775808)", {}),
        (
            "INSERT INTO annotations (id, submission, task, annotator, kind, value, source, shown_order, round, created, purpose, arm) "
            "VALUES ('a1', 's1', 1, 1, 'pair', :value, 'human', '[1,0]', 0, '2023-11-14T22:13:20.000Z', 'work', 'random')",
            {"value": '{"choice":1}'},
        ),
        ("INSERT INTO standing (annotation, task, annotator, purpose, counts, closes) VALUES (1, 1, 1, 'work', 1, 1)", {}),
    ]  # fmt: skip
    with database.writing() as connection:
        for statement, values in rows:
            connection.execute(sa.text(statement), values)


def test_an_old_database_is_backed_up_and_brought_up_to_date(nowhere: str) -> None:
    old = Database(nowhere, revision="0001")
    old_rows(old)
    old.close()
    with Store(nowhere) as store:
        (found,) = store.annotations()
        assert (found.id, found.value, found.shown_order, found.annotator) == ("a1", {"choice": 1}, (1, 0), "ann")
        assert store.annotator("ann").role == "annotator"
        store.add_annotator("Bob", "admin", id="bob", secret="x")
        label(store, "bob")
        assert store.progress().closed == 1
        backup = store.database.backup_made
    if "://" in nowhere:
        assert backup is None
        return
    assert backup is not None and backup.parent == Path(nowhere).parent
    with sqlite3.connect(backup) as copy:
        assert copy.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
        assert copy.execute("SELECT id FROM annotations").fetchall() == [("a1",)]
    with Store(nowhere) as again:
        assert again.database.backup_made is None


def test_a_newer_or_foreign_schema_is_not_opened(where: str) -> None:
    for found, message in (("0099", "newer accord \\(schema 0099; this release reads up to"), ("0000", "none of accord's")):
        database = Database(where, revision=None) if found == "0099" else None
        if database is not None:
            with database.writing() as connection:
                connection.execute(sa.text(f"UPDATE alembic_version SET version_num = '{found}'"))
            database.close()
        else:
            engine = sa.create_engine(where.replace("postgresql://", "postgresql+psycopg://") if "://" in where else f"sqlite:///{where}")
            with engine.begin() as connection:
                connection.execute(sa.text(f"UPDATE alembic_version SET version_num = '{found}'"))
            engine.dispose()
        with pytest.raises(DataError, match=message):
            Database(where)


def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    text = tmp_path / "notes.sqlite"
    text.write_text("Just notes, more than sixteen bytes of them.")
    with pytest.raises(DataError, match="is no SQLite database"):
        Database(text)
    with pytest.raises(DataError, match="does not exist, so no database can lie in it"):
        Database(tmp_path / "no" / "a.sqlite")
    with pytest.raises(ConfigError, match="no support for mysql"):
        Database("mysql://host/name")
    pytest.importorskip("psycopg")
    with pytest.raises(MachineError, match=r"postgresql\+psycopg://ann:\*\*\*@/x.* cannot be opened"):
        Database(f"postgresql://ann:secret@/x?host={tmp_path}")


def test_missing_sqlalchemy_is_one_line_with_the_install_command() -> None:
    """In a fresh process whose import system has no SQLAlchemy."""
    import subprocess
    import sys

    code = "import sys; sys.modules['sqlalchemy'] = None\nfrom accord.cli import main; sys.exit(main(['project', 'new', 'p']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (4, "MachineError: Collecting labels needs its extra: pip install 'accord[annotate]'\n")
