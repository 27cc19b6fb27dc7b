"""Files and folders that are there whole or not at all, and one clear line when they cannot be written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from accord.errors import MachineError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Numbers of the errors that mean: no room. File systems and quotas differ in which one they give."""
ADVICE = "Nothing half-written is left; free disk space, or write to another place, and do it again."
_TEMPORARY = re.compile(r"\..*\.partial")


@contextmanager
def whole_folder(folder: Path, *, replace: bool = False, advice: str = ADVICE) -> Generator[Path]:
    """A temporary folder to write into, whose files are flushed and take their place when the block ends without an error.

    A new folder is renamed. Into one that is there already the files move one by one, each in the place of its namesake, and other
    files stay. When the block fails, what it wrote is deleted. Inside another such block (the model of a checkpoint) files go straight
    into that block's folder.

    Args:
        folder: where the files are wanted.
        replace: True puts the whole new folder in the place of an old one. False keeps what the block did not write.
        advice: last sentence of the error: what to do.
    Raises:
        MachineError: if something cannot be written.
    """
    if any(_TEMPORARY.fullmatch(part) for part in folder.parts):
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    moved_in = folder.exists() and not replace
    temporary = (folder if moved_in else folder.parent) / f".{folder.name}.partial"
    try:
        with _explained(f"Could not write {folder}", advice):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            written = [path for path in temporary.rglob("*") if path.is_file()]
            for path in written:
                with open(path, "rb+") as file:
                    os.fsync(file.fileno())
            if moved_in:
                for path in written:
                    target = folder / path.relative_to(temporary)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(path, target)
            else:
                _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """A temporary path to write to; it takes the place of `path` when the block ends without an error, else it is deleted.

    Raises:
        MachineError: if the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with _explained(f"{path} cannot be written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file, whole or not at all.

    Raises:
        MachineError: if it cannot be written.
    """
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def append_text(path: Path, text: str) -> None:
    """Add text to the end of a file, all of it or nothing.

    Raises:
        MachineError: if it cannot be written.
    """
    size = path.stat().st_size if path.exists() else 0
    with _explained(f"{path} cannot be written"):
        try:
            with open(path, "a", encoding="utf-8", newline="") as file:
                file.write(text)
        except OSError:
            with suppress(OSError):
                os.truncate(path, size)
            raise


def no_room(error: BaseException) -> MachineError | None:
    """The one line for an error that means that a disk or a quota is full; None for another error."""
    number, reason = _number_and_reason(error)
    if number not in FULL:
        return None
    where = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
    return MachineError(f"Could not write{where}: {reason}. Free disk space, or write to another place, and run it again.")


@contextmanager
def _explained(what: str, advice: str = ADVICE) -> Generator[None]:
    """Turn what Python and Rust libraries raise when they cannot write into one line."""
    try:
        yield
    except Exception as error:
        number, reason = _number_and_reason(error)
        if number is None:
            raise
        raise MachineError(f"{what}: {reason}. {advice}") from error


def _number_and_reason(error: BaseException) -> tuple[int | None, str]:
    """Number and words of an operating system's error. safetensors and tokenizers raise theirs as `... (os error 28)`."""
    if isinstance(error, OSError):
        return error.errno or 0, error.strerror or str(error)
    found = re.search(r"(?:[^:]*: )*(.*) \(os error (\d+)\)", str(error))
    if not found:
        return None, ""
    number = int(found[2])
    return errno.ENOSPC if sys.platform == "win32" and number == 112 else number, found[1]


def _swap(new: Path, folder: Path) -> None:
    old = folder.parent / f".{folder.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)
