"""Rows of a file on disk, one at a time: JSONL and JSON (also .gz and .zst), CSV, Parquet."""

from __future__ import annotations

import csv
import difflib
import gzip
import importlib
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from accord.data.fields import Row, describe
from accord.errors import DataError, MachineError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""What the name of a data file may end with, besides .gz, .zst or .zstd after the first five."""

OnError = Callable[[DataError], None]
"""What to do with a bad row when reading is to go on."""

_CHUNK = 1 << 20
_GARBLED = "Save it as UTF-8 text, or check that it is the file you meant."


def data_suffix(path: Path) -> str:
    """The suffix that says what a file holds, compression aside: ".jsonl" for `prefs.jsonl.gz`; "" if it is none of ours."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in (".gz", ".zst", ".zstd"):
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else ""


def read_rows(path: Path, on_error: OnError | None = None) -> Iterator[tuple[Row, str]]:
    """The rows of a file with their places (`prefs.jsonl line 12`), streamed.

    Args:
        path: the file.
        on_error: called with the DataError of each bad line, and reading goes on where the file allows it; None: it is raised.
    Raises:
        DataError: if the file is missing, empty, cut off, not text, or a row is not an object. Names file and row.
        MachineError: if reading it needs a package that is not installed.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist.{_similar_file(path)}")
    if path.is_dir():
        raise DataError(f"{path} is a folder; a data file is expected.")
    suffix = data_suffix(path)
    if not suffix:
        endings = f"{', '.join(SUFFIXES)} (text files also with .gz or .zst after it)"
        raise DataError(f"{path} has a name that accord cannot read. Data files end with {endings}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty.")
    reader = _parquet if suffix == ".parquet" else _csv if suffix in (".csv", ".tsv") else _json
    count, where = 0, ""
    try:
        for row, where in reader(path):
            count += 1
            if isinstance(row, DataError):
                if on_error is None:
                    raise row
                on_error(row)
                continue
            yield row, where
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path.name} is cut off or damaged after {where or 'its beginning'}: {_one_line(error)} Copy or download it again."
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not UTF-8 text after {where or 'its beginning'} (byte 0x{error.object[error.start]:02x}). {_GARBLED}"
        ) from error
    except PermissionError as error:
        raise DataError(f"{path} cannot be opened: permission denied.") from error
    if count == 0:
        raise DataError(f"{path.name} has no rows.")


def _json(path: Path) -> Iterator[tuple[Row | DataError, str]]:
    with open_text(path) as file:
        first = ""
        while first.isspace() or first == "":
            first = file.read(1)
            if first == "":
                return
        if first == "[":
            yield from _json_array(file, path)
            return
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path.name} line {number}"
            try:
                yield _as_row(json.loads(line, object_pairs_hook=_object), where), where
            except json.JSONDecodeError as error:
                if number == 1 and line.strip() == "{":
                    problem = "the file holds one JSON object over several lines; a list [...] or one object a line is expected."
                    raise DataError(f"{where}: {problem}") from error
                yield DataError(f"{where} is not valid JSON ({error.msg}, column {error.colno}). {_json_hint(line, error)}"), where
            except (ValueError, RecursionError) as error:
                yield DataError(f"{where} holds a value that cannot be read: {_one_line(error)}"), where


def _json_array(file: IO[str], path: Path) -> Iterator[tuple[Row | DataError, str]]:
    decoder, buffer, start, number = json.JSONDecoder(object_pairs_hook=_object), "", 0, 1
    while True:
        where = f"{path.name} row {number}"
        start = _skip(buffer, start, " \t\r\n,")
        if start < len(buffer) and buffer[start] == "]":
            if (buffer[start + 1 :] + file.read()).strip():
                raise DataError(f"{path.name} goes on after the end of its list. One list [...] is expected, or one object a line.")
            return
        try:
            value, start = decoder.raw_decode(buffer, start)
        except json.JSONDecodeError as error:
            more = file.read(max(_CHUNK, len(buffer)))
            if not more:
                cut = not buffer[start:].strip() or error.pos >= len(buffer) - 1 or "Unterminated" in error.msg
                problem = "the file is cut off" if cut else error.msg
                raise DataError(f"{where} is not valid JSON ({problem}).") from error
            buffer, start = buffer[start:] + more, 0
            continue
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} holds a value that cannot be read: {_one_line(error)}") from error
        yield _as_row(value, where), where
        number += 1


def _csv(path: Path) -> Iterator[tuple[Row | DataError, str]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with open_text(path, newline="") as file:
        header_line = next((line for line in file if line.strip()), "")
    if "\x00" in header_line:
        raise DataError(f"{path.name} line 1 holds binary data, not text. {_GARBLED}")
    delimiter = "\t" if data_suffix(path) == ".tsv" else _delimiter(header_line)
    with open_text(path, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = [name.strip() for name in next((cells for cells in reader if cells), list[str]())]
            _check_header(header, path)
            line = reader.line_num + 1
            for cells in reader:
                where = f"{path.name} line {line}"
                line = reader.line_num + 1
                if not any(cells):  # a blank line, or one of separators alone, as spreadsheets leave them
                    continue
                if len(cells) != len(header):
                    quoted = "Put cells that hold a comma or a line break in double quotes."
                    yield DataError(f"{where} has {len(cells)} cells and the header has {len(header)}. {quoted}"), where
                    continue
                yield dict(zip(header, cells, strict=True)), where
        except csv.Error as error:
            raise DataError(f"{path.name} line {reader.line_num}: {_one_line(error)} Is a double quote missing or too many?") from error


def _parquet(path: Path) -> Iterator[tuple[Row, str]]:
    try:
        arrow = cast("Any", importlib.import_module("pyarrow"))
        parquet = cast("Any", importlib.import_module("pyarrow.parquet"))
    except ImportError as error:
        raise MachineError("Reading Parquet needs pyarrow: pip install pyarrow") from error
    number = 0
    try:
        with parquet.ParquetFile(str(path)) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in cast("list[Row]", batch.to_pylist()):
                    number += 1
                    yield row, f"{path.name} row {number}"
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path.name} cannot be read as Parquet: {_one_line(error)}") from error


def open_text(path: Path, newline: str | None = None) -> IO[str]:
    """A text file opened for reading, decompressed by its suffix; a byte order mark is skipped."""
    suffix = path.suffix.lower()
    raw: IO[bytes] = path.open("rb")
    if suffix == ".gz":
        raw = cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    elif suffix in (".zst", ".zstd"):
        raw = cast("IO[bytes]", io.BufferedReader(_ZstdReader(raw), _CHUNK))
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline=newline)


class _ZstdReader(io.RawIOBase):
    """Decompresses a zstd file and, unlike the package's own reader, says when the file is cut off."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            zstandard = cast("Any", importlib.import_module("zstandard"))
        except ImportError as error:
            raise MachineError("Reading .zst files needs zstandard: pip install 'accord[zst]'") from error
        self._file, self._new, self._error = file, zstandard.ZstdDecompressor, zstandard.ZstdError
        self._frame: Any = None
        self._input = self._output = b""

    def readable(self) -> bool:
        """True: this is a reader."""
        return True

    def close(self) -> None:
        """Close the file underneath too."""
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with decompressed bytes; 0 at the end of the last frame."""
        while not self._output:
            self._input = self._input or self._file.read(_CHUNK)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("the compressed file ended before its end marker.")
                return 0
            self._frame = self._frame or self._new().decompressobj()
            try:
                self._output = self._frame.decompress(self._input)
            except self._error as error:
                raise EOFError(f"{error}.") from error
            self._input = b""
            if self._frame.eof:
                self._input, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._output))
        buffer[:size], self._output = self._output[:size], self._output[size:]
        return size


def _object(pairs: list[tuple[str, object]]) -> Row:
    """An object as a dictionary, where no name stands twice: Python would keep the last one and say nothing."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'"{twice}" stands twice in one object.')
    return found


def _as_row(value: object, where: str) -> Row | DataError:
    if not isinstance(value, dict):
        return DataError(f"{where} is {describe(value)}; each row must be an object {{...}} with named columns.")
    return cast("Row", value)


def _skip(text: str, start: int, characters: str) -> int:
    while start < len(text) and text[start] in characters:
        start += 1
    return start


def _delimiter(header: str) -> str:
    header = re.sub(r'"[^"]*"', "", header)
    return "," if "," in header or not any(mark in header for mark in ";\t") else ";" if ";" in header else "\t"


def _check_header(header: list[str], path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f'{path.name} line 1: the header names the column "{twice[0]}" {header.count(twice[0])} times; rename one of them.')
    if "" in header:
        raise DataError(f"{path.name} line 1: column {header.index('') + 1} of the header has no name.")


def _json_hint(line: str, error: json.JSONDecodeError) -> str:
    if "\x00" in line or sum(not c.isprintable() and c not in "\r\n\t" for c in line[:200]) > 5:
        return _GARBLED
    if error.pos >= len(line.rstrip()) or "Unterminated" in error.msg:
        return "The line is cut off."
    return "Each line must be one JSON object."


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith(".") else text + "."


def _similar_file(path: Path) -> str:
    """A data file that may have been meant: of a close name in the same folder, or in one of a close name beside it."""
    folder, missing = path.parent, ""
    if not folder.is_dir():
        beside = folder.parent
        folders = [entry.name for entry in _entries(beside) if entry.is_dir()]
        missing = f" There is no folder {folder} either."
        close = difflib.get_close_matches(folder.name, folders, 1, cutoff=0.75)
        if not close:
            return missing
        folder = beside / close[0]
    # Without their suffixes: those alone make vs.jsonl and prefs.jsonl look alike.
    stems: dict[str, list[str]] = {}
    for entry in _entries(folder):
        if data_suffix(entry) and entry.is_file():
            stems.setdefault(_stem(entry), []).append(entry.name)
    close = difflib.get_close_matches(_stem(path), stems, 1, cutoff=0.75)
    if not close:
        return missing
    best = max(stems[close[0]], key=lambda name: difflib.SequenceMatcher(None, name, path.name).ratio())
    return f"{missing} Did you mean {folder / best}?"


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # missing, or not ours to read: nothing to suggest
        return []


def _stem(path: Path) -> str:
    return path.name.split(".")[0].lower() or path.name
