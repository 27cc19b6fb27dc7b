"""Freeze the labels that count now into `rounds/N/snapshot.jsonl`, which training reads and whose hash its lineage names."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from accord.annotation import people, rounds
from accord.annotation.answers import newest_guideline
from accord.annotation.assign import arm_of, held_out
from accord.annotation.extras import sa
from accord.annotation.records import moment, select_annotations, task_of
from accord.annotation.schema import tasks
from accord.annotation.store import Store
from accord.data.annotation_examples import examples_of
from accord.data.annotation_values import CLOSING, ERASED
from accord.data.snapshots import RECORD, ROWS, snapshot_hash
from accord.errors import ConfigError, DataError
from accord.types import Annotation, Task, to_json
from accord.writing import write_text

HELDOUT = 0.1
"""Share of the prompts that training does not see."""
OPENING = "conversation_opening"
"""Column of a task made in a conversation with a model: the id of the prompt that the conversation began with."""
_CHUNK = 500


@dataclass(frozen=True)
class Snapshot:
    """What was frozen."""

    folder: Path
    round: int
    hash: str
    """Over all rows, in whatever order they stand."""
    rows: int
    heldout: int
    examples: dict[str, int] = field(default_factory=dict[str, int])
    """How many of each kind training will find, held-out ones too."""
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    """Labels that count and are not frozen: gold, repeat, flag, skip, erased, settled (by an adjudication of their task), selected (a rule chose
    the pair and the prompt is held out: only what chance chose is fit for evaluation)."""
    no_example: dict[str, int] = field(default_factory=dict[str, int])
    """Labels, by kind, that are frozen and teach nothing: ratings of 4, solutions without a judged step."""
    erasures: int = 0


def freeze(store: Store, folder: Path, round: int, *, heldout: float = HELDOUT, replace_old: bool = False) -> Snapshot:
    """Freeze every valid label of all rounds. The same labels give the same file.

    Which prompts are held out follows from the prompt alone, so no later round trains on what an earlier one held out.

    Args:
        folder: rounds/N of the project.
        round: N.
        heldout: share of the prompts held out, from 0 (none) to below 1.
        replace_old: True replaces a snapshot with other labels. False refuses.
    Raises:
        DataError: if there are no labels, or the round has another snapshot.
        ConfigError: if the share is none.
    """
    if not 0 <= heldout < 1:
        raise ConfigError(f"heldout={heldout} must be a share of the prompts: 0 or more and below 1.")
    with store.database.reading() as connection:
        found = list(select_annotations(connection, valid=True))
        asked = _tasks(connection, {annotation.task for annotation in found})
        flagged = rounds.flagged_before(connection)
        erasures = people.list_erasures(connection)
        version = newest_guideline(connection)
        guideline = rounds.guideline(connection, version) if version is not None else None
    settled = {annotation.task for annotation in found if annotation.purpose == "adjudication"}
    left_out: Counter[str] = Counter()
    no_example: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    for annotation in sorted(found, key=lambda annotation: (annotation.task, annotation.id)):
        task = asked[annotation.task]
        reason = reason_left_out(annotation, settled)
        if reason is not None:
            left_out[reason] += 1
            continue
        split = "heldout" if held_out(split_prompt(task), heldout) else "train"
        if split == "heldout" and "selected" in (annotation.arm, arm_of(task.columns)):
            left_out["selected"] += 1
            continue
        made = examples_of(annotation, task)
        kinds.update(example.kind for example in made)
        no_example[annotation.kind] += not made
        old = (annotation.guideline_version or 0) < flagged
        rows.append({"task": to_json(task), "annotation": _frozen(annotation), "split": split, "old_guideline": old})
    if not rows:
        raise DataError(f"There are no labels to freeze{f' ({_told(left_out)} are left out)' if left_out else ''}.")
    frozen = snapshot_hash(rows)
    before = _record(folder)
    if before is not None and before["hash"] != frozen and not replace_old:
        raise DataError(
            f"{folder} has a snapshot of other labels ({before['hash'][:16]}), which runs may name. Freeze into another round, or replace it with --replace."
        )
    snapshot = Snapshot(
        folder=folder,
        round=round,
        hash=frozen,
        rows=len(rows),
        heldout=sum(row["split"] == "heldout" for row in rows),
        examples=dict(kinds),
        left_out=dict(left_out),
        no_example=dict(+no_example),
        erasures=len(erasures),
    )
    write_text(folder / ROWS, "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows))
    record = {
        "schema": 1,
        "round": round,
        "hash": frozen,
        "rows": snapshot.rows,
        "heldout": snapshot.heldout,
        "heldout_share": heldout,
        "examples": snapshot.examples,
        "left_out": snapshot.left_out,
        "no_example": snapshot.no_example,
        "annotators": len({row["annotation"]["annotator"] for row in rows}),
        "guideline": None if guideline is None else {"version": guideline.version, "hash": guideline.hash},
        "erasures": [erasures_note(e) for e in erasures],
        "created": moment(store.clock()),
    }
    write_text(folder / RECORD, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    return snapshot


def split_prompt(task: Task) -> str:
    """The id of the prompt that decides whether a task is held out: all turns of a conversation that was held here follow its first."""
    opening = task.columns.get(OPENING)
    return opening if isinstance(opening, str) else task.prompt_id


def erasures_note(erasure: people.Erasure) -> dict[str, Any]:
    """What a snapshot says of an erasure."""
    return {"at": moment(erasure.at), "annotator": erasure.annotator, "annotations": erasure.annotations, "texts": erasure.texts}


def _frozen(annotation: Annotation) -> dict[str, Any]:
    """An annotation without what is no label: reasons, and what other tools said of it."""
    found = to_json(replace(annotation, rationale=None))
    del found["columns"]
    return found


def reason_left_out(annotation: Annotation, settled: set[str]) -> str | None:
    if annotation.purpose in ("gold", "repeat"):
        return annotation.purpose
    if annotation.kind in CLOSING:
        return annotation.kind
    if annotation.value == ERASED:
        return "erased"
    return "settled" if annotation.task in settled and annotation.purpose != "adjudication" else None


def _tasks(connection: Any, ids: set[str]) -> dict[str, Task]:
    ordered = sorted(ids)
    found: dict[str, Task] = {}
    for start in range(0, len(ordered), _CHUNK):
        query = sa.select(tasks.c.body).where(tasks.c.id.in_(ordered[start : start + _CHUNK]))
        found |= {task.id: task for task in map(task_of, connection.execute(query))}
    return found


def _record(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
