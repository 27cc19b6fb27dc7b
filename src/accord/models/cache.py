"""The user's cache of fetched and converted models: whole or absent at any moment, shared by processes."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from accord.errors import MachineError

RECORD = "accord.json"
"""Written last into a converted folder: where it came from. A folder without it was never finished."""
SCHEMA = 1


def cache_folder() -> Path:
    """Where models are kept: ACCORD_CACHE, else the platform's cache folder of this user."""
    if os.environ.get("ACCORD_CACHE"):
        return Path(os.environ["ACCORD_CACHE"]).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "accord"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "accord"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "accord"


def build_once(target: Path, build: Callable[[Path], None], record: dict[str, Any]) -> None:
    """Make the folder `target` unless it is there already.

    It is built beside its place under a lock, flushed to disk and renamed, so that a killed or a second process never leaves half.

    Args:
        build: writes the files into the empty folder it is given.
        record: JSON-able; kept in the folder as `accord.json`.
    Raises:
        MachineError: if the cache cannot be written (no rights, disk full).
    """
    if (target / RECORD).exists():
        return
    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f"{target.name}.lock"):
            if not (target / RECORD).exists():
                _build(target, build, record)
    except OSError as error:
        raise MachineError(
            f"{target.parent} cannot be written ({error.strerror or error}). Free space there, or set ACCORD_CACHE to another folder."
        ) from error


def write_record(target: Path, record: dict[str, Any]) -> None:
    """Put another record into a folder that `build_once` made; in a cache that cannot be written the old one stays."""
    with suppress(OSError):
        _write_whole(target / RECORD, json.dumps({"schema": SCHEMA, "model": record}, ensure_ascii=False, indent=1))


def add_once(target: Path, build: Callable[[Path], None]) -> None:
    """Add a file to a folder of the cache unless it is there already: whole or not at all, by one process.

    Args:
        build: writes the file that it is given.
    Raises:
        MachineError: if the cache cannot be written (no rights, disk full).
    """
    from filelock import FileLock

    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with FileLock(target.parent.parent / f"{target.parent.name}.lock"):
            if not target.is_file():
                build(temporary)
                with temporary.open("rb+") as written:
                    os.fsync(written.fileno())
                os.replace(temporary, target)
    except OSError as error:
        raise MachineError(
            f"{target.parent} cannot be written ({error.strerror or error}). Free space there, or set ACCORD_CACHE to another folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def read_record(folder: Path) -> dict[str, Any] | None:
    """What `build_once` was given for this folder; None when it was not made by it.

    Raises:
        MachineError: if a newer release wrote it, or it is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        schema, record = written["schema"], written["model"]
    except (ValueError, KeyError, TypeError) as error:
        raise MachineError(f"{path} is damaged. Delete the folder {folder}, so that it is made anew.") from error
    if schema > SCHEMA:
        raise MachineError(f"{path} was written by a newer accord (schema {schema}; this one reads up to {SCHEMA}). Upgrade accord.")
    return record


def remembered(path: Path, kind: str, compute: Callable[[], str]) -> str:
    """A slow value about a file (its hash), computed once for each size and modification time."""
    status = path.stat()
    key = f"{kind} {path.resolve()} {status.st_size} {status.st_mtime_ns}"
    store = cache_folder() / "hashes.json"
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if key not in known:
        known[key] = compute()
        try:
            store.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(store, json.dumps(known, indent=0))
        except OSError:  # a cache that cannot be written costs time, nothing else
            pass
    return known[key]


def _build(target: Path, build: Callable[[Path], None], record: dict[str, Any]) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        build(temporary)
        (temporary / RECORD).write_text(json.dumps({"schema": SCHEMA, "model": record}, ensure_ascii=False, indent=1), encoding="utf-8")
        for path in temporary.iterdir():
            with path.open("rb+") as written:
                os.fsync(written.fileno())
        if target.exists():  # left by a release that was interrupted: it has no record, so nobody uses it
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
