"""Read examples from any source: files, saved datasets, hub ids, datasets objects, plain lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, cast, get_args

from accord.data.columns import complete, from_one, map_row, unknown_columns, winner_columns
from accord.data.fields import Fields, Row, describe
from accord.data.files import OnError, data_suffix, read_rows
from accord.data.formats import detect
from accord.data.hub import HUB_ID, datasets_library, hub_rows, split_name
from accord.data.kinds import as_kind, can_become
from accord.data.layouts.base import Format
from accord.data.snapshots import LABELS, is_project, snapshot_rows
from accord.errors import ConfigError, DataError
from accord.types import Example, Kind

Source = str | Path | Iterable[Mapping[str, object]] | Mapping[str, Iterable[Mapping[str, object]]]
"""A path or hub id, rows (a list of dicts, a datasets object), or splits by name (a DatasetDict)."""

_SPLIT = re.compile(r"\w+(\.\w+)*")


def read_examples(
    source: Source, *, columns: Mapping[str, str] | None = None, split: str | None = None, kind: str | None = None, limit: int | None = None
) -> Iterator[Example]:
    """Examples of a source, streamed in order; nothing is dropped.

    Args:
        source: .jsonl, .json, .csv (also with .gz or .zst), .parquet; a folder written by `datasets` save_to_disk or a hub id
            `ORG/NAME` (`ORG/NAME/CONFIG` where there are several configurations), both also with a split after them:
            `ORG/NAME@train_prefs`; a project's folder (its newest snapshot; `PROJECT@heldout` is what it holds out); a datasets object;
            a list of dicts.
        columns: which column of the table plays which part, {"prompt": "question", "chosen": "best"}; None: by their names.
        split: which split of a dataset with several; None: the one named in `source`, or "train" if there is one.
        kind: the kind of example wanted; rows that hold more are reduced to it (a preference to its chosen demonstration).
            None: whatever the rows are.
        limit: stop after so many examples; None: all.
    Raises:
        DataError: at the first row that cannot be used, with file, row, field and what to do.
        MachineError: if a hub dataset cannot be reached or a package is missing.
    """
    if kind is not None and kind not in get_args(Kind):
        raise ConfigError(f'There is no kind of example "{kind}". The kinds are: {", ".join(get_args(Kind))}.')
    located = read_located(read_source(source, split=split), columns=columns, kind=kind)
    return islice((example for _, example in located), limit)


def read_located(
    rows: Iterable[tuple[Row, str]], *, columns: Mapping[str, str] | None = None, kind: str | None = None, on_error: OnError | None = None
) -> Iterator[tuple[Format, Example]]:
    """Examples with the layout they were found in. The first row decides the layout; a row in another layout is an error.

    Args:
        rows: rows with their places, from `read_source`.
        columns: which column plays which part; None: by their names.
        kind: the kind of example wanted; None: whatever the rows are.
        on_error: called with the DataError of each bad row, and reading goes on; None: the first bad row raises.
    """
    layout: Format | None = None
    names: frozenset[str] = frozenset()
    for row, where in _joined(_mapped(rows, columns, on_error)):
        try:
            if layout is None:
                layout = _layout_of(row, kind, where)
                names = frozenset(row)
            elif frozenset(row) != names:
                _check_same_layout(layout, row, where)
            found = layout.read(Fields(row, where, layout.needs))
            for example in found:
                _check_text(example)
            if kind is not None:
                fit = [example for example in found if layout is not LABELS or can_become(example.kind, kind)]
                found = [converted for example in fit for converted in as_kind(example, kind)]
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        for example in found:
            yield layout, example


def _check_text(example: Example) -> None:
    """JSON can spell half of a character (a lone \\ud83d), which is no text: it has no UTF-8, so no tokens and no file can hold it."""
    for messages in (example.prompt, *(completion.messages for completion in example.completions)):
        for message in messages:
            try:
                message.content.encode("utf-8")
            except UnicodeEncodeError as error:
                half = ascii(error.object[error.start])[1:-1]
                raise DataError(
                    f"{example.where}: the text of the {message.role} turn has half of a character ({half}, at {error.start + 1}). Mend it, or remove the row."
                ) from error


def _mapped(rows: Iterable[tuple[Row, str]], columns: Mapping[str, str] | None, on_error: OnError | None) -> Iterator[tuple[Row, str]]:
    mapping: Mapping[str, str] | None = None
    for row, where in rows:
        if mapping is None:
            mapping = complete(row, columns) if columns else winner_columns(row) or {}
        try:
            yield from_one(map_row(row, mapping, where), mapping, where) if mapping else row, where
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)


def _joined(rows: Iterator[tuple[Row, str]]) -> Iterator[tuple[Row, str]]:
    """The rows; where the layout says so, neighbouring rows with the same prompt as one {"rows": [...]}."""
    first = next(rows, None)
    if first is None:
        return
    layout = detect(first[0])
    if layout is None or layout.join_on is None:
        yield first
        yield from rows
        return
    name = layout.join_on
    for _, group in groupby(chain([first], rows), key=lambda located: located[0].get(name)):
        members = list(group)
        yield {"rows": [row for row, _ in members]}, members[0][1]


def _layout_of(row: Row, kind: str | None, where: str) -> Format:
    if LABELS.detect(row):
        return LABELS
    layout = detect(row)
    if layout is None or (kind is not None and not can_become(layout.kind, kind)):
        raise unknown_columns(row, kind, where)
    return layout


def _check_same_layout(layout: Format, row: Row, where: str) -> None:
    found = detect(row)
    if found is layout:
        return
    if not layout.detect(row):
        layout.parse(Fields(row, where, layout.needs))
    name = found.name if found else "none that is known"
    raise DataError(f"{where} is in another layout ({name}) than the rows before it ({layout.name}). Put them into two files.")


def read_source(source: Source, *, split: str | None = None, on_error: OnError | None = None) -> Iterator[tuple[Row, str]]:
    """Rows of any source with their places: `prefs.jsonl line 12`, or `row 12` for rows that came from no file.

    Args:
        source: as for `read_examples`.
        split: as for `read_examples`.
        on_error: called with the DataError of a bad line of a file, and reading goes on; None: the first bad line raises.
    """
    if isinstance(source, (str, Path)):
        return _read_named(source, split, on_error)
    if isinstance(source, Mapping):
        splits = cast("Mapping[str, Iterable[Mapping[str, object]]]", source)
        return _located_rows(_choose_split(splits, split, "The dataset"), "row")
    return _located_rows(source, "row")


def _read_named(source: str | Path, split: str | None, on_error: OnError | None) -> Iterator[tuple[Row, str]]:
    source, split = _named_split(str(source), split)
    path = Path(source).expanduser()
    if is_project(path):
        return snapshot_rows(path, split)
    if path.is_dir():
        return _located_rows(_saved_dataset(path, split), f"{path.name} row")
    if path.exists() or data_suffix(path) or not HUB_ID.fullmatch(source):
        if split is not None:
            raise ConfigError(f'{path.name} is one file without splits; leave out the split "{split}" or name its file.')
        return read_rows(path, on_error)
    return _located_rows(hub_rows(source, split), f"{source} row")


def _named_split(source: str, split: str | None) -> tuple[str, str | None]:
    """`ORG/NAME@split` taken apart; a file or folder whose own name holds an @ is left alone."""
    name, at, named = source.rpartition("@")
    if not at or not _SPLIT.fullmatch(named) or data_suffix(Path(source)) or Path(source).expanduser().exists():
        return source, split
    if split is not None and split != named:
        raise ConfigError(f'{source} names one split and the argument another ("{split}"). Give one of them.')
    return name, named


def _located_rows(rows: Iterable[object], place: str) -> Iterator[tuple[Row, str]]:
    number = 0
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{place} {number} is {describe(row)}; each row must be a dict with named columns.")
        yield dict(cast("Mapping[str, object]", row)), f"{place} {number}"
    if number == 0:
        raise DataError(f"{place.removesuffix('row').strip() or 'The dataset'} has no rows.")


def _choose_split(splits: Mapping[str, Any], split: str | None, name: str) -> Iterable[Mapping[str, object]]:
    return splits[split_name(list(splits), split, name)]


def _saved_dataset(path: Path, split: str | None) -> Iterable[Mapping[str, object]]:
    if not any((path / name).exists() for name in ("dataset_dict.json", "state.json", "dataset_info.json")):
        files = sorted(entry.name for entry in path.iterdir() if data_suffix(entry))
        inside = f"Name one of its files: {', '.join(files[:8])}." if files else "It has no data files either."
        raise DataError(f"{path} is a folder and not a dataset saved by save_to_disk. {inside}")
    try:
        loaded = datasets_library().load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be opened as a saved dataset: {' '.join(str(error).split())}") from error
    if isinstance(loaded, Mapping):
        return _choose_split(cast("Mapping[str, Any]", loaded), split, str(path))
    if split is not None:
        raise ConfigError(f'{path} holds one dataset without splits; leave out the split "{split}".')
    return loaded
