"""A whole project in one file, whichever database it has, and back again, into whichever.

A zip of project.yaml, guidelines.md, rounds/ and every table as JSON lines. What was erased before it was made is not in it; what is erased later
stays in it, so old backups are to be deleted too.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

from accord.annotation.database import Database
from accord.annotation.extras import sa
from accord.annotation.schema import HEAD, metadata
from accord.errors import DataError
from accord.writing import whole_file, whole_folder

MANIFEST = "backup.json"
_FILES = re.compile(r"project\.yaml|guidelines\.md|rounds/\d{1,6}/[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TABLE = re.compile(r"tables/([a-z_]+)\.jsonl")
_CHUNK = 500


def write_backup(database: Database, folder: Path, target: Path) -> dict[str, int]:
    """Write a project to a zip file; returns the number of rows of each table. The project may be in use.

    Raises:
        MachineError: if the file cannot be written.
    """
    rows: dict[str, int] = {}
    with whole_file(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        with database.reading() as connection:
            revision = database.revision(connection)
            for table in metadata.sorted_tables:
                rows[table.name] = 0
                with archive.open(f"tables/{table.name}.jsonl", "w", force_zip64=True) as file:
                    for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns)).yield_per(_CHUNK):
                        file.write((json.dumps(dict(row._mapping)) + "\n").encode("ascii"))
                        rows[table.name] += 1
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and _FILES.fullmatch(name):
                archive.write(path, name)
        archive.writestr(MANIFEST, json.dumps({"schema": 1, "revision": revision, "tables": rows}))
    return rows


def read_backup(source: Path, folder: Path, database: str | None = None) -> dict[str, int]:
    """Make a project folder of a backup; returns the number of rows of each table.

    Args:
        folder: a new folder.
        database: URL of an empty PostgreSQL database. None: an SQLite file in the folder.
    Raises:
        DataError: if the file is no backup, a newer release made it, or folder or database are not empty.
    """
    from accord.annotation.project import DATABASE, set_database

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already. A backup is restored into a new folder.")
    try:
        with zipfile.ZipFile(source) as archive, whole_folder(folder) as made:
            names = archive.namelist()
            manifest = json.loads(archive.read(MANIFEST)) if MANIFEST in names else {}
            if manifest.get("schema") != 1 or "project.yaml" not in names:
                raise DataError(f"{source} is no backup that this release reads. accord project backup makes one.")
            if not isinstance(manifest["revision"], str) or manifest["revision"] > HEAD:
                raise DataError(f"{source} was made by a newer accord. Upgrade accord to restore it.")
            for name in filter(_FILES.fullmatch, names):
                path = made / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(name))
            set_database(made, database)
            _fill(Database(database or made / DATABASE, revision=manifest["revision"]), archive, manifest["tables"])
            return manifest["tables"]
    except FileNotFoundError as error:
        raise DataError(f"{source} does not exist.") from error
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{source} is damaged or no backup: {error}") from error


def _fill(database: Database, archive: zipfile.ZipFile, counts: dict[str, int]) -> None:
    try:
        with database.writing() as connection:
            tables = sa.MetaData()
            tables.reflect(connection, only=lambda name, _: name in counts)
            for table in tables.sorted_tables:
                if connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one():
                    raise DataError(f"{database.shown} holds a project already. A backup is restored into an empty database.")
                number = 0
                chunk: list[dict[str, Any]] = []
                with archive.open(f"tables/{table.name}.jsonl") as file:
                    for line in file:
                        chunk.append(json.loads(line))
                        number += 1
                        if len(chunk) == _CHUNK:
                            connection.execute(sa.insert(table), chunk)
                            chunk = []
                if chunk:
                    connection.execute(sa.insert(table), chunk)
                if number != counts[table.name]:
                    raise DataError(f"The backup is damaged: {number} of {counts[table.name]} rows of {table.name}.")
                if database.file is None and "number" in table.c and number and table.name != "rounds":
                    sequence = sa.text(
                        f"SELECT setval(pg_get_serial_sequence('{table.name}', 'number'), (SELECT max(number) FROM {table.name}))"
                    )
                    connection.execute(sequence)
    finally:
        database.close()
