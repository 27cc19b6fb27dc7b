"""Labels that were given in other tools: rows of any layout that accord reads, as tasks and annotations of a project.

Who gave a label is known by a pseudonym; the name that the file has goes where names are kept, and what else the row says goes with the annotation's
words, so that both can be erased. A row that was imported before changes nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from accord.annotation import people
from accord.annotation.duplicates import question
from accord.annotation.extras import sa
from accord.annotation.people import MAX_NAME, Annotator
from accord.annotation.schema import annotations as annotations_table
from accord.annotation.store import Added, Store
from accord.annotation.tool_columns import annotator_in, chosen_stood_first, created_in, seconds_in, tool_of, votes_in
from accord.data.annotation_examples import MARGINS, tasks_of
from accord.data.annotation_values import check_annotation, check_task
from accord.data.fields import MESSAGE_FIELDS, Fields, one_line
from accord.data.files import OnError
from accord.data.formats import named
from accord.data.layouts.base import Format
from accord.data.read import read_located, read_source
from accord.errors import DataError
from accord.types import Annotation, Example, LabelSource, Task, content_hash

IMPORTED = "imported"
"""Column of an imported annotation that says which row of which layout it was, and where the row's answers stand in the task."""
VOTE = "vote"
"""Its key for the column that a vote had in a row with several."""
AUTO = "auto"
THUMBS = {True: 7, False: 1}
"""Ratings that stand for good and bad where a row says no more."""
_AI = ("ultrafeedback", "ultrafeedback_binarized", "nectar")
"""Layouts whose labels a model gave."""
_SCALES = ("potato", "helpsteer2", "helpsteer3")
"""Layouts whose strengths are whole numbers, 1 the weakest."""
_OURS = re.compile(r"[ap]-[0-9a-f]{12}|import:[A-Za-z0-9_.:]{1,50}")
"""Keys and pseudonyms of this tool, which say nothing to others: kept as they are."""
_OF_A_LABEL = re.compile(
    r"annotat|worker|rater|labell?er|judge|user|e-?mail|name|_by$|created|updated|seconds|time|rationale|comment|winner|preference|choice|score|vote|"
    r"^(?:item|response|annotation|data|completions|answers|rows|summaries|names|unranked|round|arm|turn)$|label_source|guideline_version|task_id",
    re.IGNORECASE,
)
"""Columns that belong to a judgement; the others belong to what was judged, and its other labels teach with them too."""


@dataclass(frozen=True)
class Label:
    """One row's judgement: of which task, and what was said."""

    task: Task
    annotation: Annotation
    """Without id and annotator."""
    annotator: str | None
    layout: str
    where: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelsImported:
    """What a file of labels brought."""

    layout: str
    tasks: Added
    annotations: Added
    annotators: int
    notes: dict[str, int] = field(default_factory=dict[str, int])
    """What had to be decided about labels, in words, with how many."""
    bad: tuple[str, ...] = ()
    """A line for each row that was left out."""


def import_labels(
    store: Store,
    path: Path,
    *,
    format: str = AUTO,
    source: LabelSource | None = None,
    round: int = 0,
    kinds: Collection[str] = (),
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
) -> LabelsImported:
    """Read labels from a file and store them; all or none.

    Args:
        path: any file that `data.read` reads, with judgements: preferences, rankings, good or bad answers, solutions with labelled steps.
        format: name of a layout. "auto": by the columns of its first row.
        source: who gave them. None: what the row says (`label_source`), else a model for layouts that models made, else people.
        round: of tasks that are not there yet.
        kinds: of tasks that the project takes. Empty: all.
        columns: which column of a table plays which part.
        skip_bad: True leaves out rows that cannot be used and names each. False stops at the first.
    Raises:
        DataError: naming file, row and field.
    """
    bad: list[str] = []
    on_error = (lambda error: bad.append(str(error))) if skip_bad else None
    there = {question(task): task for task in store.tasks()}
    labels: list[Label] = []
    for layout, example in _located(path, format, columns, on_error):
        try:
            said = votes_in(layout.name, example) or {None: example}
            labels += [_label(layout, one, vote, there, round, source, kinds) for vote, one in said.items()]
        except DataError as error:
            line = str(error) if str(error).startswith(example.where) else f"{example.where}: {error}"
            if on_error is None:
                raise DataError(line) from error
            on_error(DataError(line))
    if not labels:
        raise DataError(f"{path} has no label that can be used{f' ({bad[0]})' if bad else ''}.")
    fresh = _unknown(store, labels)
    notes = Counter(note for label in fresh for note in label.notes)
    annotations, again = _signed(store, fresh)
    if again:
        notes["labels of an annotator for a task that they labelled before in the file; all are kept and the newest counts"] = again
    tasks = store.add_tasks({label.task.id: label.task for label in fresh}.values())
    stored = store.record(annotations)
    return LabelsImported(
        layout=labels[0].layout,
        tasks=tasks,
        annotations=Added(stored.added, stored.known + len(labels) - len(fresh)),
        annotators=len({annotation.annotator for annotation in annotations}),
        notes=dict(notes),
        bad=tuple(bad),
    )


def _located(path: Path, format: str, columns: Mapping[str, str] | None, on_error: OnError | None) -> Iterator[tuple[Format, Example]]:
    rows = read_source(path, on_error=on_error)
    if format == AUTO:
        yield from read_located(rows, columns=columns, on_error=on_error)
        return
    layout = named(format)
    for row, where in rows:
        try:
            found = layout.read(Fields(row, where, layout.needs))
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        yield from ((layout, example) for example in found)


def _label(
    layout: Format,
    example: Example,
    vote: str | None,
    there: dict[str, Task],
    round: int,
    source: LabelSource | None,
    kinds: Collection[str],
) -> Label:
    if example.kind in ("demonstration", "prompt", "text"):
        raise DataError(f"{example.where} is a {example.kind}, which judges no answer. Make tasks of it: accord project import-tasks")
    (task,) = tasks_of(example, round=round)
    task = there.setdefault(question(task), replace(task, columns=_of_the_task(example)))
    check_task(task)
    if kinds and task.kind not in kinds:
        raise DataError(f"{example.where} is a label of a {task.kind}, and the kinds of project.yaml are {', '.join(kinds)}.")
    ids = [completion.id for completion in task.completions]
    order = [ids.index(completion.id) for completion in example.completions]
    columns = _plain(example.columns)
    stated = columns.get("label_source")
    said = Annotation(
        id="",
        task=task.id,
        kind=task.kind,
        value={},
        annotator="",
        source=source or cast("Any", stated or ("ai" if layout.name in _AI else "human")),
        seconds=seconds_in(columns),
        rationale=columns["rationale"] if isinstance(columns.get("rationale"), str) and columns["rationale"].strip() else None,
        round=task.round,
        created=created_in(columns),
        columns={**columns, IMPORTED: _origin(layout, example, order) | ({} if vote is None else {VOTE: vote})},
    )
    said, notes = _JUDGED[example.kind](said, example, order)
    if len(order) == 2 and (first := chosen_stood_first(layout.name, columns)) is not None:
        said = replace(said, shown_order=tuple(order if first else order[::-1]))
    check_annotation(said, task)
    return Label(task, said, annotator_in(columns), layout.name, example.where, tuple(notes))


def _origin(layout: Format, example: Example, order: list[int]) -> dict[str, Any]:
    """What writing the row back needs besides its columns."""
    return {"layout": layout.name, "row": example.where, "order": order, "plain": example.plain, "strength": example.strength}


def _of_the_task(example: Example) -> dict[str, Any]:
    """Columns of the row that say something of the question, not of the judgement."""
    return _plain({name: value for name, value in example.columns.items() if name == MESSAGE_FIELDS or not _OF_A_LABEL.search(name)})


def _plain(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns as JSON holds them: a date, which Parquet may have, is its text."""
    return cast("dict[str, Any]", json.loads(json.dumps(columns, default=str)))


def _preference(said: Annotation, example: Example, order: list[int]) -> tuple[Annotation, list[str]]:
    """A tie, or a choice with its strength and, where the row is not sure, its probability."""
    sure = example.probability
    if sure == 0.5:
        return replace(said, value={"choice": "tie"}), []
    choice = order[0] if sure is None or sure > 0.5 else order[1]
    probability = None if sure is None else sure if order[0] == 0 else 1 - sure
    level, notes = _level(said, example)
    return replace(said, value={"choice": choice}, strength=level, probability=probability), notes


def _level(said: Annotation, example: Example) -> tuple[int | None, list[str]]:
    """Our four levels: as our own exports state them, from a tool's scale of whole numbers, or from one of our margins."""
    stated, strength = example.columns.get("strength_level"), example.strength
    levels = {level: float(level) for level in MARGINS} if said.columns[IMPORTED]["layout"] in _SCALES else MARGINS
    for level, value in levels.items():
        if str(stated) == str(level) or (stated is None and strength is not None and abs(strength - value) < 1e-9):
            return level, []
    return None, [] if strength is None else ["strengths that are none of the four levels: kept with the label, and not trained on"]


def _ranking(said: Annotation, example: Example, order: list[int]) -> tuple[Annotation, list[str]]:
    given = example.ranks or ()
    levels = sorted(set(given))
    if levels[0] != 1 or levels[-1] > len(given):
        given = tuple(levels.index(rank) + 1 for rank in given)
    ranks = [0] * len(order)
    for place, rank in zip(order, given, strict=True):
        ranks[place] = rank
    return replace(said, value={"ranks": ranks}), []


def _labelled(said: Annotation, example: Example, order: list[int]) -> tuple[Annotation, list[str]]:
    rating = example.columns.get("rating")
    if isinstance(rating, int) and 1 <= rating <= 7 and (rating > 4) == example.label:
        flags = example.columns.get("rating_flags")
        return replace(said, value={"rating": rating, **({"flags": flags} if flags else {})}), []
    thumbs = THUMBS[bool(example.label)]
    return replace(said, value={"rating": thumbs}), [
        f"labels that say only good or bad: stored as ratings of {THUMBS[True]} and {THUMBS[False]}"
    ]


def _steps(said: Annotation, example: Example, order: list[int]) -> tuple[Annotation, list[str]]:
    soft = ["probabilities of steps: kept with the label, and not trained on"] if example.step_probabilities else []
    return replace(said, value={"labels": list(example.step_labels or ())}), soft


_JUDGED = {"preference": _preference, "ranking": _ranking, "labelled": _labelled, "steps": _steps}


def _unknown(store: Store, labels: list[Label]) -> list[Label]:
    """Labels that do not come from an annotation which the store has: rows of our own exports name theirs."""
    named = [_own_id(label) for label in labels]
    if not any(named):
        return labels
    with store.database.reading() as connection:
        there = {row.id for row in connection.execute(sa.select(annotations_table.c.id))}
    return [label for label, own in zip(labels, named, strict=True) if own not in there]


def _own_id(label: Label) -> str | None:
    found = label.annotation.columns.get("annotation_id")
    return found if isinstance(found, str) and re.fullmatch(r"[0-9a-f]{16}", found) else None


def _signed(store: Store, labels: list[Label]) -> tuple[list[Annotation], int]:
    """The annotations with their ids and annotators, who are added where they are new; and how many say something again."""
    with store.database.writing() as connection:
        key = people.pseudonym_key(connection)
        known = {person.id: person for person in people.list_annotators(connection)}
    signed: list[Annotation] = []
    nobody: Counter[str] = Counter()
    seen: Counter[tuple[str, str]] = Counter()
    used: set[str] = set()
    for label in labels:
        name, who = label.annotator, label.annotator or ""
        if name is None:
            # Where a task has several labels that nobody signed, each gets a key of its own, so that all of them count.
            nobody[label.task.id] += 1
            who = f"{people.UNSIGNED}{label.layout}" + (f".{nobody[label.task.id]}" if nobody[label.task.id] > 1 else "")
            name = f"{label.layout}, not named"
        elif not _OURS.fullmatch(name):
            who = people.pseudonym(key, f"{tool_of(label.layout)}/{name}")
        if who not in known:
            role = "annotator" if label.annotation.source == "human" else "program"
            known[who] = store.add_annotator(one_line(name)[:MAX_NAME], role, id=who)
        _check_not_erased(known[who], label)
        seen[label.task.id, who] += 1
        content = [label.layout, label.task.id, who, label.annotation.value, label.annotation.strength, label.annotation.created]
        found = content_hash([*content, seen[label.task.id, who]])
        own = _own_id(label)  # the rows that an export made of one annotation share it: the first one takes it
        identity = own if own is not None and own not in used else found
        used.add(identity)
        signed.append(replace(label.annotation, id=identity, annotator=who))
    return signed, sum(count - 1 for count in seen.values())


def _check_not_erased(person: Annotator, label: Label) -> None:
    if person.erased:
        raise DataError(f"{label.where} is by somebody whose data were erased on request ({person.id}). Remove their rows from the file.")
