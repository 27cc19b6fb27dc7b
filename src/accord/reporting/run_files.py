"""Files that another process is writing, read as strangers' files: ordinary ones only, whole lines only, never more than asked for.

Nothing here writes, follows a link or waits for a pipe. What is read may be anything: numbers that are none, half characters, nonsense.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

CHUNK = 1 << 20
"""Bytes read at once; a longer line is no line of ours."""
MARK = 256
"""Bytes before a position by which a file that was written anew is known: rows hold wall-clock times, so no two are alike."""


def open_ordinary(path: Path) -> BinaryIO | None:
    """The file, to be read; None if there is none, or if it is no ordinary file: a link may lead out of the folder, a pipe never ends."""
    try:
        return open(path, "rb") if stat.S_ISREG(path.lstat().st_mode) else None
    except (OSError, ValueError):
        return None


def signature(path: Path) -> tuple[int, int] | None:
    """What changes when the file does: its size and its time. None if there is no such ordinary file."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


@dataclass(frozen=True)
class Position:
    """How far a file was read.

    Args:
        offset: bytes.
        mark: a hash of the bytes just before; a file in which they are others was written anew.
    """

    offset: int = 0
    mark: str = ""

    @classmethod
    def of(cls, text: str) -> Position:
        """The inverse of `str`; the start of the file for what is no position."""
        offset, dash, mark = text.partition("-")
        return cls(int(offset), mark) if dash and offset.isascii() and offset.isdigit() and len(offset) < 20 else cls()

    def __str__(self) -> str:
        return f"{self.offset}-{self.mark}"


@dataclass(frozen=True)
class Added:
    """What a file has from a position on.

    Args:
        lines: whole lines, without their ends.
        position: after them.
        rewritten: True if the file is not the one that the position belongs to; the lines are then those from its start.
        left: bytes after the position.
    """

    lines: list[bytes]
    position: Position
    rewritten: bool
    left: int


def lines_after(path: Path, position: Position, *, limit: int = CHUNK) -> Added | None:
    """Whole lines after a position, at most `limit` bytes of them; None if there is no such file.

    A line that is not ended yet waits for its end. One of more than `limit` bytes comes in pieces, which nothing can read.
    """
    file = open_ordinary(path)
    if file is None:
        return None
    with file:
        size = os.fstat(file.fileno()).st_size
        rewritten = not _stands(file, position, size)
        start = 0 if rewritten else position.offset
        file.seek(start)
        found = file.read(limit)
        end = found.rfind(b"\n") + 1
        if end == 0 and len(found) == limit:
            end = limit
        offset = start + end
        return Added(found[:end].splitlines(), Position(offset, _mark(file, offset)), rewritten, max(0, size - offset))


def last_lines(path: Path, *, limit: int = CHUNK) -> list[bytes]:
    """Whole lines of the last `limit` bytes, oldest first; none if there is no such file."""
    file = open_ordinary(path)
    if file is None:
        return []
    with file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - limit))
        found = file.read(limit)
    found = found[: found.rfind(b"\n") + 1]
    return found.splitlines()[1 if size > limit else 0 :]


def first_lines(path: Path, *, limit: int = CHUNK) -> list[bytes]:
    """Whole lines of the first `limit` bytes; none if there is no such file."""
    file = open_ordinary(path)
    if file is None:
        return []
    with file:
        found = file.read(limit)
    return found[: found.rfind(b"\n") + 1].splitlines()


def _stands(file: BinaryIO, position: Position, size: int) -> bool:
    return position.offset <= size and _mark(file, position.offset) == position.mark


def _mark(file: BinaryIO, offset: int) -> str:
    start = max(0, offset - MARK)
    file.seek(start)
    before = file.read(offset - start)
    return hashlib.sha256(before).hexdigest()[:16] if before else ""


def json_object(text: bytes | None) -> dict[str, Any] | None:
    """A JSON object that can be sent on: halves of characters replaced, numbers that JSON does not know None. None for anything else."""
    try:
        found = clean(json.loads(text or b""))
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def clean(value: Any) -> Any:
    """The value with text that can be encoded and numbers that are finite (None where they are not)."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [clean(one) for one in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {clean(str(name)): clean(one) for name, one in cast("dict[Any, Any]", value).items()}
    return value


def read_whole(path: Path, *, limit: int = 4 * CHUNK) -> bytes | None:
    """What is in a file of at most `limit` bytes; None if there is none."""
    file = open_ordinary(path)
    if file is None:
        return None
    with file:
        found = file.read(limit + 1)
    return found if len(found) <= limit else None


def read_object(path: Path, *, limit: int = 4 * CHUNK) -> dict[str, Any] | None:
    """The JSON object in a file of at most `limit` bytes; None if there is none."""
    return json_object(read_whole(path, limit=limit))
