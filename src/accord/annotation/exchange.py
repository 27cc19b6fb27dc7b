"""Tasks and annotations between copies of a project, as one JSON object a line: labels on one machine, training on another.

Everything has an id of its own, so that what is there already is left alone: importing a file twice, or files that overlap, changes nothing.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accord.annotation import rounds
from accord.annotation.duplicates import Unique
from accord.annotation.extras import sa
from accord.annotation.refusals import Conflict
from accord.annotation.rounds import Guideline
from accord.annotation.schema import guidelines
from accord.annotation.shapes import check_shape
from accord.annotation.store import Added, Store
from accord.data.annotation_examples import known_value, tasks_of
from accord.data.files import data_suffix, read_rows
from accord.data.read import read_examples
from accord.errors import ConfigError, DataError
from accord.types import SCHEMA, Annotation, Task, TaskKind, content_hash, from_json, to_json
from accord.writing import whole_file

TYPES = ("Task", "Annotation", "Guideline")


@dataclass(frozen=True)
class Imported:
    """What a file brought."""

    tasks: Added
    annotations: Added
    nothing_to_judge: int = 0
    """Rows of other data that hold no answer to judge."""
    duplicates: str = ""
    """Said of tasks that ask what another one asks; empty where there are none."""


def export_file(store: Store, path: Path, *, labels: bool = False, pseudonyms: bool = False, rationales: bool = True) -> tuple[int, int]:
    """Write every task to a file; returns how many tasks and annotations it has.

    Args:
        labels: True adds the guidelines and the whole record of annotations. False writes tasks alone.
        pseudonyms, rationales: as for `Store.export_annotations`.
    """
    if data_suffix(path) not in (".jsonl", ".ndjson") or path.suffix not in (".jsonl", ".ndjson"):
        raise DataError(f"{path}: tasks are written as .jsonl, one JSON object a line.")
    counts = [0, 0]
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        for task in store.tasks():
            counts[0] += 1
            file.write(_line(to_json(task)))
        if labels:
            for guideline in store.guidelines():
                file.write(_line({"schema": SCHEMA, "type": "Guideline", **dataclasses.asdict(guideline)}))
            for annotation in store.export_annotations(pseudonyms=pseudonyms, rationales=rationales):
                counts[1] += 1
                file.write(_line(to_json(annotation)))
    return counts[0], counts[1]


def import_file(
    store: Store, path: Path, *, round: int = 0, kinds: Collection[str] = (), kind: TaskKind | None = None, gold: bool = False
) -> Imported:
    """Read a file that `export_file` wrote, or make tasks of any data: of pairs, rankings, labelled answers, demonstrations, solutions.

    A task that asks what another one of the round asks, in whatever order its answers stand, is left out, unless labels of the file name it.

    Args:
        round: of tasks made of other data; those of an export have their own.
        kinds: of tasks that the project takes. Empty: all.
        kind: of tasks made of other data, as for `tasks_of`. None: by what the rows hold.
        gold: True makes tasks of known answer, which measure annotators, of what the rows say. False leaves that to annotators.
    Raises:
        DataError: at the first row that cannot be used, with its place; then nothing of the file is stored but the tasks before it.
    """
    first = next(read_rows(path), None)
    if first is not None and first[0].get("type") in TYPES:
        if gold:
            raise ConfigError(f"{path} is an export, whose tasks say themselves which are gold. Rows of other data can become gold.")
        return _import_export(store, path, kinds)
    empty, unique = [0], Unique(store)
    return Imported(store.add_tasks(unique.of(_made(path, round, kinds, kind, empty, gold=gold))), Added(0, 0), empty[0], unique.words)


def _import_export(store: Store, path: Path, kinds: Collection[str]) -> Imported:
    found: dict[str, list[tuple[Any, str]]] = {name: [] for name in TYPES}
    classes: dict[str, Any] = {"Task": Task, "Annotation": Annotation, "Guideline": Guideline}
    for row, where in read_rows(path):
        name = str(row.get("type"))
        if name not in classes:
            raise DataError(f'{where} has the type "{name[:40]}"; an export has rows of the types {", ".join(TYPES)}.')
        check_shape(row, classes[name], where)
        try:
            found[name].append((from_json(dict(row), classes[name]), where))
        except (TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{where} is no {name} ({error}). Export it again.") from error
    labelled = {annotation.task for annotation, _ in found["Annotation"]}
    unique = Unique(store, keep=labelled)
    tasks = store.add_tasks(unique.of(_taken(task, where, kinds, labelled) for task, where in found["Task"]))
    _add_guidelines(store, [guideline for guideline, _ in found["Guideline"]])
    return Imported(tasks, store.record(annotation for annotation, _ in found["Annotation"]), duplicates=unique.words)


def _made(path: Path, round: int, kinds: Collection[str], kind: TaskKind | None, empty: list[int], *, gold: bool) -> Iterator[Task]:
    for example in read_examples(path):
        tasks = tasks_of(example, round=round, kind=kind)
        empty[0] += not tasks
        for task in tasks:
            yield _taken(replace(task, gold=known_value(example, task)) if gold else task, example.where, kinds)


def _taken(task: Task, where: str, kinds: Collection[str], labelled: Collection[str] = ()) -> Task:
    if kinds and task.kind not in kinds:
        raise DataError(f"{where} is a {task.kind} task, and the kinds of project.yaml are {', '.join(kinds)}.")
    if not task.completions and task.kind == "chat" and task.id not in labelled:
        raise DataError(
            f"{where} is a chat task without answers, and none is given out here. Give it one or two recorded conversations, or let people talk "
            "with a model and judge its answers turn by turn: accord annotate PROJECT --model MODEL --talk"
        )
    return task


def _add_guidelines(store: Store, found: list[Guideline]) -> None:
    with store.database.writing() as connection:
        there = {row.version: row.hash for row in connection.execute(sa.select(guidelines.c.version, guidelines.c.hash))}
        for guideline in found:
            rounds.check_guideline(guideline.text)
            if content_hash(guideline.text, 64) != guideline.hash:
                raise DataError(f"Guideline {guideline.version} of the file is not the text that its hash names. Export it again.")
            if there.get(guideline.version, guideline.hash) != guideline.hash:
                raise Conflict(f"Guideline {guideline.version} of the file is not guideline {guideline.version} of this project.")
            if guideline.version not in there:
                connection.execute(sa.insert(guidelines).values(dataclasses.asdict(guideline)))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
