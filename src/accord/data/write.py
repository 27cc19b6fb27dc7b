"""Write examples in any layout, checking each row by reading it back; files appear whole or not at all."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any, cast

from accord.data.fields import Fields, Row, describe
from accord.data.files import SUFFIXES, data_suffix
from accord.data.formats import named
from accord.data.kinds import as_kind
from accord.data.layouts.base import Format
from accord.errors import ConfigError, DataError, MachineError
from accord.types import Example
from accord.writing import whole_file

_FORMAT_OF_KIND = {"text": "text", "prompt": "prompt", "demonstration": "messages", "labelled": "labelled"} | {
    "preference": "preference", "ranking": "ranking", "steps": "steps",
}  # fmt: skip


@dataclass
class WriteReport:
    """What was written, and what the layout had no place for."""

    path: Path
    format: str
    examples: int = 0
    rows: int = 0
    lost: Counter[str] = field(default_factory=Counter[str])
    """What the layout could not hold (never prompts, answers, ranks or labels: that is an error), with the number of examples."""


def write_examples(examples: Iterable[Example], path: str | Path, format: str | None = None) -> WriteReport:
    """Write examples to a file (.jsonl, .json, .csv, .tsv, .parquet; text files also with .gz or .zst after it).

    Args:
        examples: what to write; examples of another kind than the layout's are turned into it where `as_kind` can.
        path: the file; it is replaced only once everything is written.
        format: name of a layout of `formats.FORMATS`; None: accord's own layout for the first example's kind.
    Raises:
        ConfigError: if the format or the file's ending is unknown.
        DataError: if an example does not fit into the layout or the file. Names the row it came from.
    """
    path = Path(path)
    suffix = data_suffix(path)
    if not suffix:
        raise ConfigError(f"{path} must end with {', '.join(SUFFIXES)} (text files also with .gz or .zst after it).")
    report = WriteReport(path, format or "")
    rows = _rows(examples, report)
    with whole_file(path) as partial:
        if suffix == ".parquet":
            _write_parquet(rows, partial, path)
        else:
            with _open_text(partial, path) as file:
                if suffix in (".csv", ".tsv"):
                    _write_csv(rows, file, path, "\t" if suffix == ".tsv" else ",")
                else:
                    _write_json(rows, file, path, array=suffix == ".json")
        if report.rows == 0:
            raise DataError(f"There are no examples to write to {path}.")
    return report


def rows_of(examples: Sequence[Example], layout: Format) -> list[Row]:
    """The rows of the examples that one row of `layout` becomes, after checking that reading them gives the examples back."""
    row = layout.write(examples)
    _check_read_back(examples, row, layout)
    return cast("list[Row]", row["rows"]) if layout.join_on else [row]


def _rows(examples: Iterable[Example], report: WriteReport) -> Iterator[Row]:
    iterator = iter(examples)
    first = next(iterator, None)
    if first is None:
        return
    if not report.format:
        report.format = "prompt_completion" if first.kind == "demonstration" and first.plain else _FORMAT_OF_KIND[first.kind]
    layout = named(report.format)
    fitting = (fit for example in _chain(first, iterator) for fit in as_kind(example, layout.kind))
    together = layout.together
    groups = ([example] for example in fitting) if together is None else (list(group) for _, group in groupby(fitting, key=together))
    for group in groups:
        row = layout.write(group)
        report.lost.update(_check_read_back(group, row, layout))
        report.examples += len(group)
        for single in cast("list[Row]", row["rows"]) if layout.join_on else [row]:
            report.rows += 1
            yield single


def _check_read_back(examples: Sequence[Example], row: Row, layout: Format) -> Counter[str]:
    where = examples[0].where or "the example"
    problem = (
        f"does not fit into the format {layout.name} without losing something of its prompt, answers or labels; choose another format."
    )
    try:
        again = layout.read(Fields(row, where, layout.needs))
    except DataError as error:
        raise DataError(f"{where} {problem} ({error})") from error
    if [_content(example) for example in again] != [_content(example) for example in examples]:
        raise DataError(f"{where} {problem}")
    lost: Counter[str] = Counter()
    for before, after in zip(examples, again, strict=True):
        for name in ("probability", "strength", "step_probabilities"):
            lost[name] += getattr(before, name) not in (None, getattr(after, name))
        lost["finished"] += any(not b.finished and a.finished for b, a in zip(before.completions, after.completions, strict=True))
        lost["source"] += any(b.source != a.source for b, a in zip(before.completions, after.completions, strict=True))
        lost["plain text"] += before.plain != after.plain
        for name in before.columns.keys() - after.columns.keys():
            lost[f'column "{name}"'] += 1
    return +lost


def _content(example: Example) -> tuple[object, ...]:
    answers = tuple(completion.messages for completion in example.completions)
    return example.kind, example.prompt, answers, example.ranks, example.label, example.step_labels


def _chain(first: Example, rest: Iterator[Example]) -> Iterator[Example]:
    yield first
    yield from rest


def _write_json(rows: Iterator[Row], file: IO[str], path: Path, *, array: bool) -> None:
    before = "[\n" if array else ""
    for row in rows:
        try:
            line = json.dumps(row, ensure_ascii=False)
            line.encode("utf-8")
        except UnicodeEncodeError:
            line = json.dumps(row)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path.name}: a row cannot be written as JSON ({error}).") from error
        file.write(before + line)
        before = ",\n" if array else "\n"
    file.write("\n]\n" if array and before != "[\n" else "\n")


def _write_csv(rows: Iterator[Row], file: IO[str], path: Path, delimiter: str) -> None:
    kept = list(rows)
    header = list(dict.fromkeys(name for row in kept for name in row))
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")
    writer.writerow(header)
    for row in kept:
        writer.writerow([_cell(row.get(name), name, path) for name in header])


def _cell(value: object, name: str, path: Path) -> str:
    if isinstance(value, (Mapping, list, tuple)):
        shown = describe(cast("object", value))
        raise DataError(f'{path.name}: column "{name}" holds {shown}, which a CSV cell cannot. Write .jsonl, or a format of plain texts.')
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _write_parquet(rows: Iterator[Row], partial: Path, path: Path) -> None:
    try:
        arrow = cast("Any", importlib.import_module("pyarrow"))
        parquet = cast("Any", importlib.import_module("pyarrow.parquet"))
    except ImportError as error:
        raise MachineError("Writing Parquet needs pyarrow: pip install pyarrow") from error
    kept = list(rows)
    header = list(dict.fromkeys(name for row in kept for name in row))
    try:
        table = arrow.table({name: arrow.array([row.get(name) for row in kept]) for name in header})
        parquet.write_table(table, str(partial))
    except arrow.ArrowException as error:
        raise DataError(f"{path.name}: the rows do not fit into Parquet ({' '.join(str(error).split())}). Write .jsonl.") from error


@contextmanager
def _open_text(partial: Path, path: Path) -> Generator[IO[str]]:
    suffix = path.suffix.lower()
    with partial.open("wb") as raw:
        if suffix == ".gz":
            packed: IO[bytes] = cast("IO[bytes]", gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0))
        elif suffix in (".zst", ".zstd"):
            try:
                zstandard = cast("Any", importlib.import_module("zstandard"))
            except ImportError as error:
                raise MachineError("Writing .zst files needs zstandard: pip install 'accord[zst]'") from error
            packed = cast("IO[bytes]", zstandard.ZstdCompressor().stream_writer(raw, closefd=False))
        else:
            packed = raw
        text = io.TextIOWrapper(packed, encoding="utf-8", newline="")
        yield text
        text.flush()
        text.detach()
        if packed is not raw:
            packed.close()
