"""A project's frozen labels: where the newest snapshot lies, that it is whole, and its rows.

`rounds/N/snapshot.jsonl` has a row a label, `{"task": ..., "annotation": ..., "split": "train" | "heldout", "old_guideline": ...}`; `rounds/N/snapshot.json` has their number
and one hash over them that does not depend on their order. Nothing here opens the project's database.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from accord.data.annotation_examples import examples_of
from accord.data.annotation_values import check_annotation
from accord.data.fields import Fields, Row
from accord.data.files import read_rows
from accord.data.kinds import as_kind
from accord.data.layouts.base import Format, has
from accord.errors import ConfigError, DataError
from accord.types import Annotation, Example, Task, content_hash, from_json

PROJECT, ROUNDS, ROWS, RECORD = "project.yaml", "rounds", "snapshot.jsonl", "snapshot.json"
ARMS = ("random", "selected")
SPLITS = ("train", "heldout", "all", *ARMS)
"""What may stand behind the @ of a project. An arm is as many training labels of the pairs that chance chose as of those that a rule chose, from
rounds that had both: what the two brought can then be compared."""
COLUMN = "snapshot"
"""Column of an example with the hash of the snapshot it came from."""


def snapshot_hash(rows: Iterable[Mapping[str, Any]]) -> str:
    """One hash over the tasks and annotations of the rows, in whatever order they come (64 hex digits)."""
    return content_hash(sorted(content_hash([row["task"], row["annotation"]], 64) for row in rows), 64)


def is_project(folder: Path) -> bool:
    """True for a project's folder and for the folder of one of its snapshots."""
    return (folder / PROJECT).is_file() or (folder / RECORD).is_file()


def newest_snapshot(folder: Path) -> Path:
    """The folder of a project's newest snapshot; a snapshot's own folder is itself.

    Raises:
        DataError: if the project has none; the message has the command that makes one.
    """
    if (folder / RECORD).is_file():
        return folder
    rounds = [entry for entry in (folder / ROUNDS).glob("*") if entry.name.isdigit() and (entry / RECORD).is_file()]
    if not rounds:
        raise DataError(f"{folder} is a project without a snapshot of its labels. Freeze them with: accord project snapshot {folder}")
    return max(rounds, key=lambda entry: int(entry.name))


def snapshot_rows(folder: Path, split: str | None = None) -> Iterator[tuple[Row, str]]:
    """The rows of the newest snapshot of a project with their places.

    Args:
        folder: the project, or rounds/N in it.
        split: one of `SPLITS`; None is train.
    Raises:
        DataError: if there is no snapshot, its rows are not the ones that were frozen, or the split has none.
        ConfigError: if there is no such split.
    """
    split = split or "train"
    if split not in SPLITS:
        raise ConfigError(
            f'A project has no split "{split}". Write {folder}@train (the default), {folder}@heldout, {folder}@all, {folder}@random or {folder}@selected.'
        )
    place = newest_snapshot(folder)
    record = json.loads((place / RECORD).read_text(encoding="utf-8"))
    rows = list(read_rows(place / ROWS)) if record["rows"] else []
    if len(rows) != record["rows"] or snapshot_hash(cast("Mapping[str, Any]", row) for row, _ in rows) != record["hash"]:
        raise DataError(
            f"{place / ROWS} is not what was frozen (its hash differs from that in {RECORD}). Restore the file, or freeze the labels again: accord project snapshot {folder}"
        )
    part = "train" if split in ARMS else split
    found = [(row, where) for row, where in rows if part == "all" or row["split"] == part]
    if split in ARMS:
        found = arms(found).get(split, [])
        if not found:
            raise DataError(
                f"The snapshot {place} has no round in which chance chose some pairs and a rule others: it has no arms to compare."
            )
    if not found:
        raise DataError(f"The snapshot {place} has no rows of the split {split}: {record['rows']} in all.")
    for row, where in found:
        yield {**row, COLUMN: record["hash"]}, f"{ROUNDS}/{place.name}/{where}"


def arms(rows: Sequence[tuple[Row, str]]) -> dict[str, list[tuple[Row, str]]]:
    """As many labels of either arm, by its name, from the rounds that had both; which ones follows from their ids. Empty where no round had both."""
    by_round: dict[Any, dict[str, list[tuple[Row, str]]]] = {}
    for row, where in rows:
        label = cast("Mapping[str, Any]", row["annotation"])
        by_round.setdefault(label.get("round", 0), {}).setdefault(str(label.get("arm", "random")), []).append((row, where))
    both = [found for found in by_round.values() if set(found) == set(ARMS)]
    of_arm = {arm: [one for found in both for one in found[arm]] for arm in ARMS}
    count = min(map(len, of_arm.values()))
    return {arm: sorted(found, key=_draw)[:count] for arm, found in of_arm.items() if count}


def _draw(one: tuple[Row, str]) -> str:
    return content_hash(["arm", cast("Mapping[str, Any]", one[0]["annotation"]).get("id")])


def parse_label(fields: Fields) -> list[Example]:
    """The examples of one row of a snapshot."""
    task = from_json(dict(fields.record("task").row), Task)
    annotation = check_annotation(from_json(dict(fields.record("annotation").row), Annotation), task)
    more = {COLUMN: fields.row.get(COLUMN)} | ({"old_guideline": True} if fields.row.get("old_guideline") else {})
    return examples_of(annotation, task, where=fields.where, **more)


def _no_writer(examples: Sequence[Example]) -> Row:
    raise ConfigError("A snapshot is made by accord project snapshot; other data cannot be written as one.")


LABELS = Format(
    "snapshot", "preference", "Rows of a snapshot need task, annotation.", has("task", "annotation", "split"), parse_label, _no_writer
)
"""Rows of several kinds: what each becomes depends on its annotation."""


def fitting(found: Sequence[Example], kinds: Sequence[str]) -> tuple[list[Example], dict[str, int]]:
    """Those examples of a project that a method can use, and what was left out, by kind.

    A project holds labels of many kinds; a method takes its own. Rankings become pairs where pairs alone are taken; ties are left out
    where an answer must be good or bad. Examples from other data are passed on as they are, for the method to refuse.
    """
    kept: list[Example] = []
    left: dict[str, int] = {}
    for example in found:
        if COLUMN not in example.columns:
            kept.append(example)
        elif example.kind == "preference" and example.probability == 0.5 and "labelled" in kinds and "prompt" not in kinds:
            left["tie"] = left.get("tie", 0) + 1
        elif example.kind in kinds:
            kept.append(example)
        elif example.kind == "ranking" and "preference" in kinds:
            kept += as_kind(example, "preference")
        else:
            left[example.kind] = left.get(example.kind, 0) + 1
    return kept, left


def snapshots_in(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """The hashes of the snapshots that rows with these columns came from."""
    return sorted({str(columns[COLUMN]) for columns in found if COLUMN in columns})
