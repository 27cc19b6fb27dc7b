"""Label Studio's exports (pairwise and ranker) and Potato's pairwise judgements; each annotator's judgement is an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from accord.data.fields import Fields, Row
from accord.data.layouts.annotation_tools import ITEM, item_key, prompt_name, ranked_answers
from accord.data.layouts.base import Format, single, with_columns
from accord.data.layouts.pairs import Judge, Verdict, judged, shown
from accord.types import Completion, Example, Message


def parse_label_studio(fields: Fields) -> list[Example]:
    """Label Studio: {"data", "annotations": [{"result": [{"type": "pairwise" | "ranker", "value"}]}]}.

    In a ranker with one list its order is the ranking. With buckets, the first named bucket is ordered from the best; then come
    the items left unsorted (`_`), tied; then each further bucket, its items tied.
    """
    data = fields.record("data").row
    item = fields.rest("annotations")
    found: list[Example] = []
    skipped: list[object] = []
    for annotation in fields.records("annotations"):
        results = [result for result in annotation.records("result") if result.row.get("type") in ("pairwise", "ranker")]
        if annotation.row.get("was_cancelled") is True or not results:
            skipped.append(dict(annotation.row))
            continue
        columns = {ITEM: item, "data": dict(data), "annotator": annotation.row.get("completed_by"), "annotation": dict(annotation.row)}
        found.append(_label_studio_example(fields, data, results[0], columns))
    if not found:
        fields.fail("has no annotation with a pairwise or ranker result; only judged tasks can be learned from.")
    item["skipped"] = skipped
    return found


def write_label_studio(examples: Sequence[Example]) -> Row:
    """The inverse of `parse_label_studio`; examples from elsewhere become one pairwise task each."""
    first = examples[0]
    if "annotation" not in first.columns:
        texts = {"prompt": first.prompt[-1].content, "answer1": first.completions[0].text, "answer2": first.completions[1].text}
        result = {"from_name": "comparison", "to_name": "answer1,answer2", "type": "pairwise", "value": {"selected": "left"}}
        return {"data": texts, "annotations": [{"result": [result], "was_cancelled": False}], "predictions": []}
    item = dict(cast("Mapping[str, object]", first.columns[ITEM]))
    skipped = cast("list[object]", item.pop("skipped", []))
    annotations = [example.columns["annotation"] for example in examples]
    return {**item, "data": first.columns["data"], "annotations": [*annotations, *skipped]}


def parse_potato(fields: Fields) -> list[Example]:
    """Potato's pairwise judgement, joined with its item: {"prompt", "responses": [A, B], "preference": {"selection": "A"}}."""
    prompt = (Message("user", fields.text("prompt")),)
    names = ("left", "right") if "responses" not in fields.row else ()
    texts = [fields.text(name) for name in names] if names else fields.texts("responses")
    if len(texts) != 2:
        fields.fail(f'field "responses" has {len(texts)} texts; a pair has two.')
    judge = SCALE if "preference_scale" in fields.row else SELECTION
    return [judged(fields, prompt, [Completion((Message("assistant", text),)) for text in texts], judge)]


def write_potato(example: Example) -> Row:
    """The inverse of `parse_potato`."""
    stated, sides = shown(example, SCALE if example.strength is not None else SELECTION)
    return with_columns({**stated, "prompt": example.prompt[-1].content, "responses": [side.text for side in sides]}, example)


def _read_selection(fields: Fields) -> Verdict:
    value = fields.record("preference").text("selection")
    vote = {"a": 1.0, "b": 0.0, "tie": 0.5}.get(value.lower())
    if vote is None:
        fields.fail(f'"preference" selects "{value}"; it must be A, B or tie.')
    return Verdict(vote)


def _read_scale(fields: Fields) -> Verdict:
    value = fields.record("preference_scale").number("scale_value")
    return Verdict(0.5 if value == 0 else float(value < 0), abs(value) or None)


SELECTION = Judge(_read_selection, lambda verdict: {"preference": {"selection": "tie" if verdict.vote == 0.5 else "A"}})
SCALE = Judge(_read_scale, lambda verdict: {"preference_scale": {"scale_value": 0 if verdict.vote == 0.5 else -(verdict.strength or 1)}})


def _label_studio_example(fields: Fields, data: Mapping[str, object], result: Fields, columns: Mapping[str, Any]) -> Example:
    prompt, value = prompt_name(fields, data), result.record("value")
    if result.row["type"] == "pairwise":
        named = [name.strip() for name in str(result.row.get("to_name", "")).split(",")]
        names = (
            named
            if len(named) == 2 and all(name in data for name in named)
            else [n for n in data if n != prompt and isinstance(data[n], str)]
        )
        selected = value.text("selected")
        if len(names) != 2 or selected not in ("left", "right"):
            fields.fail(
                f'the pairwise result selects "{selected}" among {", ".join(names)}; it needs left or right and two texts in "data".'
            )
        order = names if selected == "left" else names[::-1]
        ranking = ranked_answers(fields, data, [(name, rank) for rank, name in enumerate(order, start=1)], columns, prompt)
        return Example("preference", ranking.prompt, ranking.completions, columns=ranking.columns, where=fields.where)
    texts = {**data, **_listed_texts(data)}
    return ranked_answers(fields, texts, _buckets(value.record("ranker")), columns, prompt)


def _listed_texts(data: Mapping[str, object]) -> Row:
    texts: Row = {}
    for value in data.values():
        for entry in cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else ():
            if isinstance(entry, Mapping):
                record = cast("Mapping[str, object]", entry)
                texts[str(record.get("id"))] = record.get("body", record.get("text", record.get("title")))
    return texts


def _buckets(ranker: Fields) -> list[tuple[str, int]]:
    named = [name for name in ranker.row if name != "_"]
    loose = ranker.texts("_") if "_" in ranker.row else []
    if not named:
        return [(name, rank) for rank, name in enumerate(loose, start=1)]
    best = ranker.texts(named[0])
    order = [(name, rank) for rank, name in enumerate(best, start=1)]
    rank = len(best) + 1
    for names in (loose, *(ranker.texts(name) for name in named[1:])):
        order += [(name, rank) for name in names]
        rank += bool(names)
    return order


def _task(row: Mapping[str, object]) -> bool:
    return isinstance(row.get("data"), Mapping) and "annotations" in row


def _judgement(row: Mapping[str, object]) -> bool:
    verdict = row.get("preference", row.get("preference_scale"))
    return isinstance(verdict, Mapping) and ("selection" in verdict or "scale_value" in verdict)


FORMATS = [
    Format(
        "label_studio_ranker",
        "ranking",
        "Label Studio tasks need data and annotations.",
        lambda row: _task(row) and '"ranker"' in repr(row).replace("'", '"'),
        parse_label_studio,
        write_label_studio,
        together=item_key,
    ),
    Format(
        "label_studio",
        "preference",
        "Label Studio tasks need data and annotations.",
        _task,
        parse_label_studio,
        write_label_studio,
        together=item_key,
    ),
    Format("potato", "preference", "Potato judgements need prompt, responses, preference.", _judgement, parse_potato, single(write_potato)),
]
"""From the most demanding to the least."""
