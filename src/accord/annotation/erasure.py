"""Erasing a person on request, everywhere in a project: in the store, and in snapshots that were frozen before.

A snapshot keeps its rows. A row that held words of the person becomes a tombstone, and the record says when, how many, and which hash it had before, so
that a run that names the old hash is still traced.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.annotation.people import Erasure
from accord.annotation.records import in_words
from accord.annotation.snapshot import erasures_note
from accord.annotation.store import Store
from accord.data.annotation_examples import examples_of
from accord.data.annotation_values import ERASED
from accord.data.files import read_rows
from accord.data.snapshots import RECORD, ROUNDS, ROWS, snapshot_hash
from accord.errors import DataError
from accord.types import Annotation, Task, from_json
from accord.writing import write_text


@dataclass(frozen=True)
class Erased:
    """What an erasure changed."""

    erasure: Erasure
    snapshots: dict[str, int]
    """Name of each snapshot's folder with the number of its rows that became tombstones."""


def erase_everywhere(store: Store, folder: Path, annotator: str) -> Erased:
    """Erase a person from a project; doing it again changes nothing, and finishes what was interrupted.

    Args:
        folder: of the project.
        annotator: their key.
    Raises:
        Unknown: if there is no such annotator.
        DataError: if a snapshot is not what was frozen.
    """
    erasure = store.erase(annotator)
    found = sorted((path for path in (folder / ROUNDS).glob(f"*/{RECORD}")), key=lambda path: path.parent.name)
    return Erased(erasure, {path.parent.name: _erase_from(path.parent, erasure) for path in found})


def _erase_from(folder: Path, erasure: Erasure) -> int:
    record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = [dict(row) for row, _ in read_rows(folder / ROWS)] if record["rows"] else []
    before = snapshot_hash(rows)
    # The record is written first: a stop between the two files leaves rows with a hash that it names as an earlier one.
    if before not in (record["hash"], *record.get("hashes_before", ())):
        raise DataError(f"{folder / ROWS} is not what was frozen, so nothing in it was erased. Restore the file and erase again.")
    erased = [row for row in rows if _holds_words_of(row, erasure.annotator)]
    noted = any(note["annotator"] == erasure.annotator for note in record["erasures"])
    if noted and not erased:
        return 0
    for row in erased:
        row["annotation"] = {**row["annotation"], "value": dict(ERASED)}
    after = snapshot_hash(rows)
    mine = sum(row["annotation"]["annotator"] == erasure.annotator for row in rows)
    if not noted:
        note = erasures_note(erasure) | {"after_freezing": True, "annotations": mine, "texts": len(erased)}
        record["erasures"] = [*record["erasures"], note]
    if after != record["hash"]:
        record["hashes_before"] = [*record.get("hashes_before", ()), record["hash"]]
        record["hash"] = after
        record["examples"] = _examples(rows)
        record["tombstones"] = sum(row["annotation"]["value"] == ERASED for row in rows)
    write_text(folder / RECORD, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    if erased:
        write_text(folder / ROWS, "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows))
    return len(erased)


def _holds_words_of(row: dict[str, Any], annotator: str) -> bool:
    annotation = row["annotation"]
    return annotation["annotator"] == annotator and annotation["value"] != ERASED and in_words(from_json(annotation, Annotation))


def _examples(rows: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        for example in examples_of(from_json(row["annotation"], Annotation), from_json(row["task"], Task)):
            counts[example.kind] = counts.get(example.kind, 0) + 1
    return counts
