"""Argilla's exports of rankings, nested records and the flat form of its datasets; each annotator's ranking is an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from accord.data.fields import Fields, Row
from accord.data.layouts.annotation_tools import ITEM, item_key, prompt_name, ranked_answers
from accord.data.layouts.base import Format
from accord.types import Example


def parse_argilla(fields: Fields) -> list[Example]:
    """Argilla's nested record: {"fields", "responses": {question: [{"user_id", "value"}]}, "status"}."""
    texts = fields.record("fields").row
    responses = fields.record("responses") if fields.has("responses") else Fields({}, fields.where)
    question = next((name for name in responses.row if _is_ranking(responses.row[name])), None)
    if question is None:
        fields.fail(f'has no response with a ranking (status "{fields.row.get("status")}"); only judged records can be learned from.')
    item = {
        **fields.rest(),
        "fields": dict(texts),
        "responses": {k: v for k, v in responses.row.items() if k != question},
        "question": question,
    }
    found: list[Example] = []
    for response in responses.records(question):
        columns = {ITEM: item, "annotator": response.row.get("user_id"), "response": dict(response.row)}
        found.append(ranked_answers(fields, texts, _argilla_order(response, response.value("value")), columns, prompt_name(fields, texts)))
    return found


def write_argilla(examples: Sequence[Example]) -> Row:
    """The inverse of `parse_argilla`."""
    item, question, texts, names = _argilla_item(examples[0])
    entries = [_response(example, names) for example in examples]
    others = cast("Mapping[str, object]", item.get("responses", {}))
    outside = {name: value for name, value in item.items() if name != "question"}
    return {**outside, "fields": texts, "responses": {**others, question: entries}, "status": item.get("status", "completed")}


def parse_argilla_flat(fields: Fields) -> list[Example]:
    """Argilla's flat form: `ranking.responses`, `ranking.responses.users`, `ranking.responses.status` beside the texts."""
    column = next(name for name in fields.row if _flat_ranking(name, fields.row[name]))
    question, values = column.removesuffix(".responses"), fields.items(column)
    users = fields.items(f"{column}.users") if fields.has(f"{column}.users") else [None] * len(values)
    statuses = fields.items(f"{column}.status") if fields.has(f"{column}.status") else [None] * len(values)
    item = {**fields.rest(), "question": question, "status_column": fields.has(f"{column}.status")}
    found: list[Example] = []
    for value, user, status in zip(values, users, statuses, strict=False):
        columns = {ITEM: item, "annotator": user, "response": {"user_id": user, "value": value, "status": status}}
        found.append(ranked_answers(fields, fields.row, _argilla_order(fields, value), columns, prompt_name(fields, fields.row)))
    return found


def write_argilla_flat(examples: Sequence[Example]) -> Row:
    """The inverse of `parse_argilla_flat`."""
    item, question, texts, names = _argilla_item(examples[0])
    responses = [_response(example, names) for example in examples]
    row: Row = {name: value for name, value in item.items() if name not in ("question", "status_column")} | texts
    row[f"{question}.responses"] = [response["value"] for response in responses]
    row[f"{question}.responses.users"] = [response["user_id"] for response in responses]
    if item.get("status_column", True):
        row[f"{question}.responses.status"] = [response.get("status", "submitted") for response in responses]
    return row


def _argilla_order(fields: Fields, value: object) -> list[tuple[str, int]]:
    entries = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else ()
    if not entries:
        fields.fail("has a response without a ranking.")
    if all(isinstance(entry, str) for entry in entries):
        return [(str(entry), rank) for rank, entry in enumerate(entries, start=1)]
    records = [Fields(cast("Mapping[str, object]", entry), fields.where) for entry in entries if isinstance(entry, Mapping)]
    return [(record.text("value"), record.integer("rank")) for record in records]


def _argilla_item(example: Example) -> tuple[Row, str, Row, list[str]]:
    kept = example.columns.get(ITEM)
    if isinstance(kept, Mapping) and "question" in kept and "names" in example.columns:
        item = dict(cast("Mapping[str, object]", kept))
        names = cast("list[str]", example.columns["names"])
        return item, str(item["question"]), dict(cast("Mapping[str, object]", item.get("fields", {}))), names
    texts: Row = {"prompt": example.prompt[-1].content}
    names = [f"response_{index}" for index in range(1, len(example.completions) + 1)]
    texts |= {name: completion.text for name, completion in zip(names, example.completions, strict=True)}
    return {}, "ranking", texts, names


def _response(example: Example, names: Sequence[str]) -> Row:
    kept = example.columns.get("response")
    if isinstance(kept, Mapping):
        return dict(cast("Mapping[str, object]", kept))
    value = [{"value": name, "rank": rank} for name, rank in zip(names, example.ranks or (), strict=True)]
    return {"user_id": example.columns.get("annotator"), "value": value}


def _is_ranking(value: object) -> bool:
    entries = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else ()
    return any(isinstance(e, Mapping) and isinstance(cast("Mapping[str, object]", e).get("value"), (list, tuple)) for e in entries)


def _flat_ranking(name: str, value: object) -> bool:
    entries = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else ()
    return name.endswith(".responses") and any(isinstance(entry, (list, tuple)) for entry in entries)


def _nested(row: Mapping[str, object]) -> bool:
    return isinstance(row.get("fields"), Mapping) and "responses" in row


FORMATS = [
    Format("argilla", "ranking", "Argilla records need fields and responses.", _nested, parse_argilla, write_argilla, together=item_key),
    Format(
        "argilla_flat",
        "ranking",
        "Flat Argilla rows need a column NAME.responses with rankings.",
        lambda row: any(_flat_ranking(name, value) for name, value in row.items()),
        parse_argilla_flat,
        write_argilla_flat,
        together=item_key,
    ),
]
"""Nested first, then flat."""
