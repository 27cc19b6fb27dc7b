"""Solutions with a label a step: TRL's stepwise rows, PRM800K, Math-Shepherd, PRMBench, ProcessBench, Potato.

Labels are 1 right, 0 neutral, -1 wrong, None not judged, everywhere. A boolean is 1 or -1; a number 0 is never read as wrong.
Soft labels have a column of their own, `step_probabilities`, so that a 0 there cannot be mistaken for a neutral step.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from accord.data.fields import Fields, Row, describe, message_rows
from accord.data.layouts.base import Format, has, single, with_columns
from accord.errors import DataError
from accord.types import Completion, Example, Message

Label = int | None
MARK = "ки"
"""The step tag of Math-Shepherd."""


def solution(
    fields: Fields, prompt: str | tuple[Message, ...], steps: Sequence[str], labels: Sequence[Label], columns: Mapping[str, Any]
) -> Example:
    """An example of kind "steps": one assistant message a step."""
    if not steps or len(steps) != len(labels):
        fields.fail(f"has {len(steps)} steps and {len(labels)} labels; it needs one label a step and at least one step.")
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    completion = Completion(tuple(Message("assistant", step) for step in steps))
    return Example(
        "steps", turns, (completion,), step_labels=tuple(labels), plain=isinstance(prompt, str), columns=dict(columns), where=fields.where
    )


def parse_stepwise(fields: Fields) -> list[Example]:
    """{"prompt", "completions", "labels"}: labels are true and false (TRL), or 1, 0, -1 and null (accord); `step_probabilities` is optional."""
    prompt, steps = fields.turns("prompt", "user"), fields.texts("completions")
    labels = [step_label(fields, f"labels[{index}]", value) for index, value in enumerate(fields.items("labels"))]
    text = fields.text("prompt") if fields.is_text("prompt") else prompt
    soft = _step_probabilities(fields, len(steps)) if fields.has("step_probabilities") else None
    return [replace(solution(fields, text, steps, labels, fields.rest()), step_probabilities=soft)]


def write_steps(example: Example) -> Row:
    """The inverse of `parse_stepwise` with labels 1, 0, -1 and null."""
    return _stepwise_row(example, list(example.step_labels or ()))


def write_stepwise(example: Example) -> Row:
    """The inverse of `parse_stepwise` with labels true and false; a neutral or missing label does not fit and is written as null."""
    return _stepwise_row(example, [None if not label else label > 0 for label in example.step_labels or ()])


def step_label(fields: Fields, name: str, value: object) -> Label:
    """One label: a boolean, 1, 0, -1 or null."""
    if value is None:
        return None
    if isinstance(value, bool):
        return 1 if value else -1
    if isinstance(value, (int, float)) and value in (-1, 0, 1):
        return int(value)
    fields.fail(f'field "{name}" must be true, false, 1, 0, -1 or null and is {describe(value)}.')


def parse_prm800k(fields: Fields) -> list[Example]:
    """PRM800K: each alternative that was not chosen ends a solution of its own after the chosen steps; so does the chosen path."""
    question, label = fields.record("question"), fields.record("label")
    problem, steps = question.text("problem"), label.records("steps")
    outside = {**fields.rest(), "question": question.rest(), "label": _skeleton(label.row)}
    found: list[Example] = []
    path: list[str] = []
    labels: list[Label] = []
    for number, step in enumerate(steps):
        alternatives = step.records("completions") if step.has("completions") else []
        chosen = step.integer("chosen_completion") if step.has("chosen_completion") else None
        if chosen is not None and not 0 <= chosen < len(alternatives):
            step.fail(f"chosen_completion is {chosen} and there are {len(alternatives)} completions.")
        for index, alternative in enumerate(alternatives):
            if index != chosen:
                rating = step_label(alternative, "rating", alternative.row.get("rating"))
                columns = {**outside, "place": [number, index]}
                found.append(solution(fields, problem, [*path, alternative.text("text")], [*labels, rating], columns))
        following = (
            alternatives[chosen] if chosen is not None else step.record("human_completion") if step.has("human_completion") else None
        )
        if following is None:
            break
        path.append(following.text("text"))
        labels.append(step_label(following, "rating", following.row.get("rating")) if chosen is not None else 1)
    else:
        if path:
            found.append(solution(fields, problem, path, labels, {**outside, "place": [len(steps) - 1, None]}))
    if not found:
        fields.fail("has no labelled step; there is nothing to learn from it.")
    return found


def write_prm800k(examples: Sequence[Example]) -> Row:
    """The inverse of `parse_prm800k`."""
    first = examples[0]
    skeleton = first.columns.get("label")
    if not isinstance(skeleton, Mapping) or "place" not in first.columns:
        count = len(first.completions[0].messages)
        steps: list[Any] = [{"completions": [dict[str, Any]()], "human_completion": None, "chosen_completion": 0} for _ in range(count)]
        label, places = cast("dict[str, Any]", {"steps": steps, "finish_reason": "solution"}), [(count - 1, None)]
    else:
        label = copy.deepcopy(cast("dict[str, Any]", skeleton))
        places = [cast("tuple[int, int | None]", example.columns["place"]) for example in examples]
    for example, (number, index) in zip(examples, places, strict=True):
        texts, ratings = [m.content for m in example.completions[0].messages], example.step_labels or ()
        for at, (text, rating) in enumerate(zip(texts, ratings, strict=True)):
            step: dict[str, Any] = label["steps"][at]
            chosen: int | None = step.get("chosen_completion")
            if at == number and index is not None:
                step["completions"][index] |= {"text": text, "rating": rating}
            elif chosen is not None:
                step["completions"][chosen] |= {"text": text, "rating": rating}
            else:
                step["human_completion"]["text"] = text
    kept = first.columns.get("question")
    question: Row = dict(cast("Mapping[str, object]", kept)) if isinstance(kept, Mapping) else {}
    outside = {name: value for name, value in first.columns.items() if name != "place"}
    return {**outside, "question": {**question, "problem": first.prompt[-1].content}, "label": label}


def parse_shepherd(fields: Fields) -> list[Example]:
    """Math-Shepherd: the solution as one text with a tag after each step, and again with + or - in the tag's place."""
    text, labelled = fields.text("input"), fields.text("label")
    *pieces, tail = text.split(MARK)
    labels: list[Label] = []
    at = 0
    for piece in pieces:
        at += len(piece)
        sign = labelled[at : at + 1]
        if labelled[at - len(piece) : at] != piece or sign not in ("+", "-"):
            fields.fail(f'fields "input" and "label" do not match at step {len(labels) + 1}: a + or - must stand in the place of "{MARK}".')
        labels.append(1 if sign == "+" else -1)
        at += 1
    if not pieces or tail.strip() or labelled[at:].strip():
        fields.fail(f'field "input" must end every step with "{MARK}".')
    start = re.search(r"\s*Step 1:", pieces[0])
    if start is None:
        fields.fail('field "input" has no "Step 1:", so the question cannot be told from the solution.')
    steps = [pieces[0][start.start() :].strip(), *(piece.strip() for piece in pieces[1:])]
    return [solution(fields, pieces[0][: start.start()], steps, labels, fields.rest())]


def write_shepherd(example: Example) -> Row:
    """The inverse of `parse_shepherd`."""
    steps = [message.content for message in example.completions[0].messages]
    signs = ["+" if label == 1 else "-" for label in example.step_labels or ()]
    lines = [f"{step} {MARK}" for step in steps]
    labelled = [f"{step} {sign}" for step, sign in zip(steps, signs, strict=True)]
    question = example.prompt[-1].content
    return with_columns({"input": f"{question} " + "\n".join(lines), "label": f"{question} " + "\n".join(labelled)}, example)


def parse_prmbench(fields: Fields) -> list[Example]:
    """PRMBench: a right solution and its twin with planted errors (numbered from 1), two examples a row."""
    questions = [fields.text("original_question"), fields.text("modified_question")]
    originals, modified = fields.texts("original_process"), fields.texts("modified_process")
    wrong = [int(str(number)) for number in fields.items("error_steps")]
    if any(not 1 <= number <= len(modified) for number in wrong):
        fields.fail(f'field "error_steps" names {wrong} and there are {len(modified)} steps.')
    labels: list[Label] = [-1 if number in wrong else 1 for number in range(1, len(modified) + 1)]
    first = solution(fields, questions[0], originals, [1] * len(originals), {**fields.rest(), "twin": "original"})
    return [first, solution(fields, questions[1], modified, labels, {**fields.rest(), "twin": "modified"})]


def write_prmbench(examples: Sequence[Example]) -> Row:
    """The inverse of `parse_prmbench`."""
    if len(examples) != 2:
        raise DataError(
            f"{examples[0].where}: PRMBench holds a right solution and its wrong twin; this is {len(examples)}. Write another format."
        )
    row: Row = {name: value for name, value in examples[0].columns.items() if name != "twin"}
    for name, example in zip(("original", "modified"), examples, strict=True):
        row[f"{name}_question"] = example.prompt[-1].content
        row[f"{name}_process"] = [message.content for message in example.completions[0].messages]
    row["error_steps"] = [number for number, label in enumerate(examples[1].step_labels or (), start=1) if label == -1]
    return row


def _first_error(name: str, prompt: str, index: str, none: int | None, *columns: str) -> Format:
    """A solution with the index of its first wrong step, counted from 0; what follows the error is not judged."""

    def parse(fields: Fields) -> list[Example]:
        question, steps = fields.text(prompt), fields.texts("steps")
        wrong = fields.integer(index) if fields.value(index) is not None else None
        wrong = len(steps) if wrong == none or wrong is None else wrong
        if not 0 <= wrong <= len(steps):
            fields.fail(f'field "{index}" is {wrong} and there are {len(steps)} steps.')
        labels: list[Label] = [1 if i < wrong else -1 if i == wrong else None for i in range(len(steps))]
        return [solution(fields, question, steps, labels, fields.rest())]

    def write(example: Example) -> Row:
        steps = [message.content for message in example.completions[0].messages]
        labels = example.step_labels or ()
        return with_columns(
            {prompt: example.prompt[-1].content, "steps": steps, index: labels.index(-1) if -1 in labels else none}, example
        )

    needs = (prompt, "steps", index, *columns)
    return Format(name, "steps", f"{name} rows need {', '.join(needs)}.", has(*needs), parse, single(write))


def parse_potato(fields: Fields) -> list[Example]:
    """Potato's step rewards, joined with the item: {"prompt", "steps": [{"index", "reward", "text"}], "annotator", "mode"}."""
    prompt, records = fields.text("prompt"), sorted(fields.records("steps"), key=lambda record: record.integer("index"))
    for record in records:
        if not record.has("text"):
            record.fail('has no "text": the export holds labels only. Add the item\'s prompt as "prompt" and each step\'s text as "text".')
    labels = [step_label(record, "reward", record.value("reward")) for record in records]
    return [solution(fields, prompt, [record.text("text") for record in records], labels, fields.rest())]


def write_potato(example: Example) -> Row:
    """The inverse of `parse_potato`."""
    pairs = zip(example.completions[0].messages, example.step_labels or (), strict=True)
    steps = [{"index": index, "reward": label, "text": message.content} for index, (message, label) in enumerate(pairs)]
    return with_columns({"prompt": example.prompt[-1].content, "steps": steps}, example)


def _step_probabilities(fields: Fields, count: int) -> tuple[float | None, ...]:
    values = fields.entries("step_probabilities")
    found = tuple(values.optional_number(index) for index in values.row)
    if len(found) != count or any(value is not None and not 0 <= value <= 1 for value in found):
        fields.fail(f'field "step_probabilities" must have {count} entries, one a step, each from 0 to 1 or null.')
    return found


def _stepwise_row(example: Example, labels: Sequence[object]) -> Row:
    prompt: object = example.prompt[-1].content if example.plain else message_rows(example.prompt, "prompt", example.columns)
    row: Row = {"prompt": prompt, "completions": [m.content for m in example.completions[0].messages], "labels": labels}
    if example.step_probabilities is not None:
        row["step_probabilities"] = list(example.step_probabilities)
    return with_columns(row, example)


def _skeleton(label: Mapping[str, object]) -> Row:
    def bare(value: object, *drop: str) -> object:
        return (
            {name: item for name, item in cast("Mapping[str, object]", value).items() if name not in drop}
            if isinstance(value, Mapping)
            else value
        )

    steps: list[Row] = []
    for step in cast("Sequence[Mapping[str, object]]", label["steps"]):
        completions = cast("Sequence[object] | None", step.get("completions"))
        human = bare(step["human_completion"], "text") if "human_completion" in step else None
        steps.append({**step, "completions": [bare(c, "text", "rating") for c in completions or ()], "human_completion": human})
    return {**label, "steps": steps}


def _prm800k_key(example: Example) -> str:
    if "place" not in example.columns:
        return example.id
    return repr((example.columns.get("labeler"), example.columns.get("timestamp"), example.prompt_id, example.where))


def _twin_key(example: Example) -> str:
    return repr((example.columns.get("idx"), example.where)) if "twin" in example.columns else example.id


def _boolean_labels(row: Mapping[str, object]) -> bool:
    labels = row.get("labels")
    values = cast("Sequence[object]", labels) if isinstance(labels, (list, tuple)) else ()
    return "prompt" in row and "completions" in row and any(isinstance(value, bool) for value in values)


def _shepherd(row: Mapping[str, object]) -> bool:
    return isinstance(row.get("input"), str) and MARK in str(row["input"]) and "label" in row


def _potato(row: Mapping[str, object]) -> bool:
    entries = row.get("steps")
    return isinstance(entries, (list, tuple)) and any(isinstance(e, Mapping) and "reward" in e for e in cast("Sequence[object]", entries))


def _formats() -> Iterator[Format]:
    yield Format("prm800k", "steps", "PRM800K rows need question and label.", _prm800k, parse_prm800k, write_prm800k, together=_prm800k_key)
    yield Format("math_shepherd", "steps", "Math-Shepherd rows need input and label.", _shepherd, parse_shepherd, single(write_shepherd))
    columns = ("original_question", "original_process", "modified_process", "error_steps")
    yield Format(
        "prmbench", "steps", f"PRMBench rows need {', '.join(columns)}.", has(*columns), parse_prmbench, write_prmbench, together=_twin_key
    )
    yield _first_error("processbench", "problem", "label", -1, "final_answer_correct")
    yield _first_error("bigbench_mistake", "input", "mistake_index", None)
    yield Format(
        "potato_steps",
        "steps",
        "Potato step rows need prompt and steps (index, reward, text).",
        _potato,
        parse_potato,
        single(write_potato),
    )
    needs = "Step rows need prompt, completions, labels."
    yield Format("stepwise", "steps", needs, _boolean_labels, parse_stepwise, single(write_stepwise))
    yield Format("steps", "steps", needs, has("prompt", "completions", "labels"), parse_stepwise, single(write_steps))


def _prm800k(row: Mapping[str, object]) -> bool:
    label = row.get("label")
    return isinstance(row.get("question"), Mapping) and isinstance(label, Mapping) and "steps" in label


FORMATS = list(_formats())
"""From the most demanding to the least."""
