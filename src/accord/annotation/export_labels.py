"""Labels of a project in the layouts of other tools: the way back of `import_labels`, and the way out for what was labelled here.

A label that came in the same layout leaves with everything that its row said, answers in their old places; any other gets what the layout needs. What a
layout has no place for is counted, by kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from accord.annotation import people
from accord.annotation.import_labels import IMPORTED, VOTE
from accord.annotation.snapshot import reason_left_out
from accord.annotation.store import Store
from accord.annotation.tool_columns import ONE_VOTE, renamed, tool_of, with_all_votes
from accord.data.annotation_examples import examples_of
from accord.data.fields import Fields
from accord.data.files import data_suffix
from accord.data.formats import FORMATS, detect, named
from accord.data.kinds import as_kind, can_become
from accord.data.layouts.annotation_tools import ITEM
from accord.data.layouts.base import Format
from accord.data.write import WriteReport, write_examples
from accord.errors import ConfigError, DataError
from accord.types import Annotation, Completion, Example, Task, content_hash

ALIASES = {"trl": "preference", "csv": "winner"}
"""Names of formats that people know, with the layout they mean."""


@dataclass(frozen=True)
class LabelsExported:
    """What was written, and what was not."""

    report: WriteReport
    labels: int
    not_held: dict[str, int] = field(default_factory=dict[str, int])
    """Labels that the layout has no place for, by what they are."""
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    """Labels that a snapshot would leave out too: gold, repeats, skips, flags, erased and settled ones."""
    personal: tuple[str, ...] = ()
    """Columns that name people and were left out."""


def format_names() -> list[str]:
    """What `export_labels` takes as a format."""
    return sorted({*ALIASES, *(layout.name for layout in FORMATS if layout.kind not in ("text", "prompt"))})


def export_labels(store: Store, path: Path, format: str, *, names: bool = False) -> LabelsExported:
    """Write the labels that count now.

    Args:
        path: the file; its ending says which type (.jsonl, .json, .csv, ...).
        format: one of `format_names`.
        names: True writes annotators' names, as they were imported or entered. False writes their keys and leaves out columns that name people.
    Raises:
        ConfigError: if there is no such format.
        DataError: if no label fits into it.
    """
    if format not in format_names():
        raise ConfigError(f'There is no format "{format}" for labels. The formats are: {", ".join(format_names())}.')
    layout = named(ALIASES.get(format, format))
    found = list(store.annotations())
    tasks = {task.id: task for task in store.tasks()}
    settled = {annotation.task for annotation in found if annotation.purpose == "adjudication"}
    writing = _Writing(store, layout, tasks, names, plain=data_suffix(path) in (".csv", ".tsv"))
    skipped: Counter[str] = Counter()
    kept = 0
    rows: dict[str, list[Example]] = {}
    votes: dict[str, dict[str, Example]] = {}
    for annotation in found:
        reason = reason_left_out(annotation, settled)
        if reason is not None:
            skipped[reason] += 1
            continue
        for example in writing.examples(annotation):
            vote = _vote_in(layout, annotation)
            key = example.where if layout.together else str(len(rows)) if vote is None else f"{example.where} of {annotation.task}"
            rows.setdefault(key, []).append(example)
            if vote is not None:
                votes.setdefault(key, {})[vote] = example
            kept += 1
    if not rows:
        raise DataError(f"No label of the project fits into the format {format}{_told(writing.not_held | skipped)}.")
    rows |= {key: _joined(rows[key], group) for key, group in votes.items()}
    report = write_examples((example for group in rows.values() for example in group), path, layout.name)
    del report.lost["plain text"]
    return LabelsExported(report, kept, dict(writing.not_held), dict(skipped), tuple(sorted(writing.personal)))


class _Writing:
    """Makes the examples of one layout."""

    def __init__(self, store: Store, layout: Format, tasks: Mapping[str, Task], names: bool, plain: bool) -> None:
        self.layout, self.tasks, self.names, self.plain = layout, tasks, names, plain
        self.people = {person.id: person.name for person in store.annotators()}
        with store.database.writing() as connection:
            self.key = people.pseudonym_key(connection)
        self.not_held: Counter[str] = Counter()
        self.personal: set[str] = set()

    def examples(self, annotation: Annotation) -> list[Example]:
        """What an annotation becomes in the layout; counts what has no place in it."""
        task, origin = self.tasks[annotation.task], annotation.columns.get(IMPORTED)
        made = examples_of(annotation, task)
        wanted = [
            example for example in made if can_become(example.kind, self.layout.kind) and _same_meaning(example.kind, self.layout.kind)
        ]
        self.not_held.update([_what(annotation)] * (not wanted))
        found: list[Example] = []
        for example in (changed for one in wanted for changed in as_kind(one, self.layout.kind)):
            if origin is not None and origin["layout"] == self.layout.name:
                example = self._as_it_came(example, task, annotation)
            else:
                example = self._as_needed(example, task, annotation)
            if _fits(example, self.layout, cells=self.plain):
                found.append(example)
            else:
                self.not_held["tie" if _tied(example) else f"{annotation.kind} that cannot be written without losing something"] += 1
        return found

    def _as_it_came(self, example: Example, task: Task, annotation: Annotation) -> Example:
        origin = annotation.columns[IMPORTED]
        columns = {name: value for name, value in annotation.columns.items() if name != IMPORTED}
        if not self.names:
            tool, own = tool_of(self.layout.name), self.people.get(annotation.annotator)
            columns, personal = renamed(columns, lambda who: annotation.annotator if who == own else self._other(tool, who))
            self.personal |= personal
        order: list[int] = origin["order"]
        if example.ranks is not None:
            example = replace(example, ranks=tuple(example.ranks[at] for at in order))
        if example.ranks is not None or example.probability == 0.5:
            example = replace(example, completions=tuple(task.completions[at] for at in order))
        return replace(example, columns=columns, plain=origin["plain"], strength=origin["strength"], where=origin["row"])

    def _other(self, tool: str, who: str) -> str:
        return who if who in self.people else people.pseudonym(self.key, f"{tool}/{who}")

    def _as_needed(self, example: Example, task: Task, annotation: Annotation) -> Example:
        who = self.people.get(annotation.annotator, annotation.annotator) if self.names else annotation.annotator
        if example.ranks is not None:
            example = _best_first(example)
        item = _item(task, example)
        columns = _BUILT.get(self.layout.name, _provenance)(item, annotation, who, example)
        if self.plain:
            lists = [name for name, value in columns.items() if isinstance(value, (list, dict))]
            self.not_held.update(f'column "{name}", which a cell cannot hold' for name in lists)
            columns = {name: value for name, value in columns.items() if name not in lists}
        strength = example.columns.get("strength_level") if self.layout.name == "potato" else example.strength
        return self._recognised(replace(example, columns=columns, strength=cast("Any", strength), where=f"label {item.id}"), task)

    def _recognised(self, example: Example, task: Task) -> Example:
        """The example without columns of the task by which its row would be taken for one of another layout."""
        found = example
        for name in task.columns:
            try:
                taken_for = detect(self.layout.write([found]))
            except DataError:  # it does not fit at all, which is counted where it is written
                break
            if taken_for is self.layout or taken_for is None:
                break
            found = replace(found, columns={one: value for one, value in found.columns.items() if one != name})
            self.not_held[f'column "{name}", by which a row is taken for {taken_for.name}'] += 1
        return found


@dataclass(frozen=True)
class _Item:
    """What a tool shows: a prompt and answers, in an order that says nothing about which is better."""

    id: str
    prompt: str
    answers: tuple[Completion, ...]

    def place(self, completion: Completion) -> int:
        """Where an answer stands."""
        return [answer.id for answer in self.answers].index(completion.id)

    def names(self, example: Example, name: str) -> list[str]:
        """What the answers of an example are called, in its order."""
        return [f"{name}{self.place(completion) + 1}" for completion in example.completions]

    def texts(self, name: str) -> dict[str, str]:
        """The prompt and the answers by name."""
        return {"prompt": self.prompt, **{f"{name}{place}": answer.text for place, answer in enumerate(self.answers, start=1)}}


def _item(task: Task, example: Example) -> _Item:
    """The task as it is, or the part of it, or what an annotator wrote, that an example is of."""
    prompt = example.prompt[-1].content if example.prompt else ""
    if example.prompt == task.prompt and {answer.id for answer in example.completions} == {answer.id for answer in task.completions}:
        return _Item(task.id, prompt, task.completions)
    answers = tuple(sorted(example.completions, key=lambda answer: content_hash(["order", answer.id])))
    return _Item(content_hash([example.prompt_id, *(answer.id for answer in answers)]), prompt, answers)


def _best_first(example: Example) -> Example:
    """A ranking, its answers from the best, ranks without gaps: what tools that list answers by rank give back."""
    ranks = example.ranks or ()
    order = sorted(range(len(ranks)), key=lambda place: ranks[place])
    levels = sorted(set(ranks))
    dense = tuple(levels.index(ranks[place]) + 1 for place in order)
    return replace(example, completions=tuple(example.completions[place] for place in order), ranks=dense)


def _vote_in(layout: Format, annotation: Annotation) -> str | None:
    """The column of a label that came as one of several votes in a row of the layout."""
    origin: Mapping[str, Any] = annotation.columns.get(IMPORTED) or {}
    return origin.get(VOTE) if origin.get("layout") == layout.name else None


def _joined(rows: list[Example], votes: Mapping[str, Example]) -> list[Example]:
    """Votes that came in one row as one row again; each by itself where the first annotator's, without which there is none, is not there."""
    return [with_all_votes(votes)] if ONE_VOTE in votes else rows


def _same_meaning(kind: str, wanted: str) -> bool:
    """Whether turning one kind into another keeps what was said: pairs of a ranking do, the chosen answer alone does not."""
    return kind == wanted or {kind, wanted} == {"preference", "ranking"}


def _fits(example: Example, layout: Format, *, cells: bool) -> bool:
    """Whether a layout can hold the example, and a tie as a tie. cells: True wants every value in a cell of a table; False takes lists too."""
    try:
        row = layout.write([example])
        (again,) = layout.read(Fields(row, example.where, layout.needs))
    except (DataError, ValueError):
        return False
    if cells and any(isinstance(value, (list, dict)) for value in row.values()):
        return False
    same = [c.messages for c in again.completions] == [c.messages for c in example.completions] and again.prompt == example.prompt
    said = again.ranks == example.ranks and again.label == example.label and again.step_labels == example.step_labels
    return same and said and (again.probability == 0.5) == (example.probability == 0.5)


def _tied(example: Example) -> bool:
    return example.probability == 0.5 or (example.ranks is not None and len(set(example.ranks)) == 1)


def _what(annotation: Annotation) -> str:
    if annotation.kind == "pair" and annotation.value.get("choice") == "both_bad":
        return "both bad"
    return "rating of 4" if annotation.value.get("rating") == 4 else annotation.kind


def _provenance(item: _Item, annotation: Annotation, who: str, example: Example) -> dict[str, Any]:
    """The columns of any row: what the task was made from, who said it, when, how long it took."""
    more = {"seconds": annotation.seconds, "created": annotation.created}
    return {**example.columns, "annotator": who, **{name: value for name, value in more.items() if value}}


def _won(item: _Item, example: Example) -> str:
    """Which of two answers was preferred: A, B or tie."""
    return "tie" if example.probability == 0.5 else "AB"[item.place(example.completions[0])]


def _csv(item: _Item, annotation: Annotation, who: str, example: Example) -> dict[str, Any]:
    return {**_provenance(item, annotation, who, example), "winner": _won(item, example)}


def _summaries(item: _Item, annotation: Annotation, who: str, example: Example) -> dict[str, Any]:
    policies = [{"policy": answer.source.get("model", "")} for answer in item.answers]
    choice = item.place(example.completions[0])
    return {"info": {"id": item.id, "post": item.prompt}, "summaries": policies, "choice": choice, "worker": who}


def _potato(item: _Item, annotation: Annotation, who: str, example: Example) -> dict[str, Any]:
    won, level = _won(item, example), example.columns.get("strength_level")
    stated: dict[str, Any] = {"preference": {"selection": won}}
    if level is not None:
        stated = {"preference_scale": {"scale_value": -level if won == "A" else level}}
    return {"id": item.id, "annotator": who, **stated, "created": annotation.created}


def _argilla(item: _Item, annotation: Annotation, who: str, example: Example) -> dict[str, Any]:
    names = item.names(example, "response_")
    value = [{"value": one, "rank": rank} for one, rank in zip(names, example.ranks or (), strict=True)]
    record = {"id": item.id, "fields": item.texts("response_"), "metadata": {}, "status": "completed", "question": "ranking"}
    return {ITEM: record, "annotator": who, "names": names, "response": {"user_id": who, "value": value, "status": "submitted"}}


def _argilla_flat(item: _Item, annotation: Annotation, who: str, example: Example) -> dict[str, Any]:
    record = {"id": item.id, **item.texts("response_"), "question": "ranking", "status_column": True}
    return {**_argilla(item, annotation, who, example), ITEM: record}


def _label_studio(item: _Item, annotation: Annotation, who: str, example: Example) -> dict[str, Any]:
    names = item.names(example, "answer")
    selected = "left" if _won(item, example) == "A" else "right"
    result = {"from_name": "comparison", "to_name": "answer1,answer2", "type": "pairwise", "value": {"selected": selected}}
    return _studio(item, annotation, who, item.texts("answer"), names, result)


def _label_studio_ranker(item: _Item, annotation: Annotation, who: str, example: Example) -> dict[str, Any]:
    names = item.names(example, "answer")
    items = [{"id": f"answer{place}", "body": answer.text} for place, answer in enumerate(item.answers, start=1)]
    result = {"from_name": "ranking", "to_name": "items", "type": "ranker", "value": {"ranker": {"_": names}}}
    return _studio(item, annotation, who, {"prompt": item.prompt, "items": items}, names, result)


def _studio(
    item: _Item, annotation: Annotation, who: str, data: dict[str, Any], names: list[str], result: dict[str, Any]
) -> dict[str, Any]:
    entry = {
        "id": annotation.id,
        "completed_by": who,
        "was_cancelled": False,
        "created_at": annotation.created,
        "lead_time": annotation.seconds,
    }
    return {ITEM: {"id": item.id}, "data": data, "annotator": who, "annotation": {**entry, "result": [result]}, "names": names}


_BUILT: dict[str, Callable[[_Item, Annotation, str, Example], dict[str, Any]]] = {
    "winner": _csv,
    "openai_comparisons": _summaries,
    "potato": _potato,
    "argilla": _argilla,
    "argilla_flat": _argilla_flat,
    "label_studio": _label_studio,
    "label_studio_ranker": _label_studio_ranker,
}


def _told(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{count} {name}' for name, count in counts.items())})" if counts else ""
