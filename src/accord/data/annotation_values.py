"""What the value of an annotation may hold, kind by kind; a value that is none is refused with the reason.

| kind    | value |
|---------|-------|
| pair    | `{"choice": 0 | 1 | "tie" | "both_bad"}`; strength 1 to 4 with a choice of 0 or 1 |
| ranking | `{"ranks": [1, 2, 2]}`: one an answer, 1 is best, equal ranks are ties |
| rating  | `{"rating": 1..7}` (7 is best), optional `"flags": ["wrong", ...]` |
| steps   | `{"labels": [1, 0, -1, null]}` one a step, or `{"first_error": 2}` (null: none); optional `"alternative": {"step": 2, "text": ...}` |
| edit    | `{"of": 0, "text": ...}`: a better text for that answer |
| chat, one recorded conversation | `{"turns": [{"turn": 0, "rating": 5, "flags": [...], "text": ...}]}`: a rating, a better text, or both |
| chat, two of them | `{"turns": [{"turn": 0, "choice": 1, "strength": 2}]}` |
| chat, held live | `{"turns": [{"user": ..., "answers": [...], "choice": ..., "strength": ...}]}`: no choice where a turn has one answer |
| flag, skip | `{"reason": ...}` |
| undo    | `{}` |

`turn` counts the assistant's turns of the conversation from 0; turns that are left out are not judged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, cast, get_args

from accord.data.value_checks import (
    check_choice,
    check_encodable,
    check_index,
    check_keys,
    check_rating,
    check_strength,
    check_text,
    is_integer,
    is_number,
)
from accord.errors import DataError
from accord.types import Annotation, AnnotationKind, Completion, LabelSource, Message, Task

ERASED = {"erased": True}
"""The value of an annotation whose text was erased on request."""
BESIDE: tuple[AnnotationKind, ...] = ("edit",)
"""Kinds that may stand beside the answer to a task of another kind."""
CLOSING: tuple[AnnotationKind, ...] = ("flag", "skip")
"""Kinds that end an annotator's work on a task without an answer."""

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)
ALTERNATIVES = "step_alternatives"
"""Column of a steps task with other texts for each step, a list a step: annotators may take one of them for a better step."""
LAST_ROUND = 999_999
"""The highest number that a round may have."""

Value = dict[str, Any]


def check_annotation(annotation: Annotation, task: Task) -> Annotation:
    """The annotation, after checking every field against its task.

    Raises:
        DataError: naming task and field, with what it may be.
    """
    place = f"Annotation of task {task.id}"
    kind = annotation.kind
    if kind not in get_args(AnnotationKind):
        raise DataError(f'{place}: there is no kind "{kind}". The kinds are: {", ".join(get_args(AnnotationKind))}.')
    if annotation.source not in get_args(LabelSource):
        raise DataError(f'{place}: there is no source "{annotation.source}". The sources are: {", ".join(get_args(LabelSource))}.')
    if kind not in (*kinds_for(task), "undo"):
        raise DataError(f"{place}: a {task.kind} task takes no {kind}. It takes: {', '.join(kinds_for(task))}.")
    if annotation.value != ERASED:
        check_value(kind, annotation.value, task)
    _check_strength(annotation, place)
    _check_probability(annotation, place)
    order = annotation.shown_order
    if order and sorted(order) != list(range(len(task.completions))):
        raise DataError(f"{place}: shown_order {list(order)} is no order of its {len(task.completions)} answers.")
    seconds = annotation.seconds
    if seconds is not None and not (is_number(seconds) and 0 <= seconds < math.inf):
        raise DataError(f"{place}: seconds is {seconds!r}; it must be 0 or more.")
    if annotation.rationale is not None:
        check_text(annotation.rationale, f"{place}: rationale")
    if annotation.created and not _MOMENT.fullmatch(annotation.created):
        raise DataError(f"{place}: created is {annotation.created!r:.40}; it is a moment in UTC such as 2024-05-01T12:00:00.000Z.")
    return annotation


def kinds_for(task: Task) -> list[AnnotationKind]:
    """The kinds of annotation that a task takes."""
    beside: list[AnnotationKind] = [kind for kind in BESIDE if task.kind not in (kind, "chat")]
    return [task.kind, *beside, *CLOSING]


def check_value(kind: AnnotationKind, value: object, task: Task) -> Value:
    """The value, after checking it against its task.

    Raises:
        DataError: naming task and key, with what it may be.
    """
    place = f"Annotation of task {task.id}"
    if not isinstance(value, Mapping):
        raise DataError(f"{place}: a value is an object such as {_EXAMPLES[kind]}, not {value!r:.80}.")
    found = dict(cast("Mapping[str, Any]", value))
    return _CHECKS[kind](found, task, place)


def pair_value(value: Value, task: Task, place: str) -> Value:
    """`{"choice": 0 | 1 | "tie" | "both_bad"}`."""
    check_keys(value, place, "pair", {"choice"})
    check_choice(value["choice"], place)
    return value


def ranking_value(value: Value, task: Task, place: str) -> Value:
    """`{"ranks": [...]}`: one rank an answer, the best is 1."""
    check_keys(value, place, "ranking", {"ranks"})
    ranks, count = value["ranks"], len(task.completions)
    if not isinstance(ranks, list) or len(cast("list[object]", ranks)) != count:
        raise DataError(f'{place}: "ranks" must be a list of {count} ranks, one an answer; found {ranks!r:.80}.')
    entries = cast("list[object]", ranks)
    if not all(is_integer(rank) and 1 <= cast("int", rank) <= count for rank in entries) or 1 not in entries:
        raise DataError(
            f'{place}: "ranks" is {entries}; ranks are whole numbers from 1 (the best, always there) to {count}, equal ones are ties.'
        )
    return value


def rating_value(value: Value, task: Task, place: str) -> Value:
    """`{"rating": 1..7, "flags": [...]}`."""
    check_keys(value, place, "rating", {"rating"}, {"flags"})
    check_rating(value, place)
    return value


def steps_value(value: Value, task: Task, place: str) -> Value:
    """`{"labels": [...]}` or `{"first_error": index or null}`, with an optional alternative for one step."""
    if ("labels" in value) == ("first_error" in value):
        raise DataError(f'{place}: a steps value has "labels" (one a step) or "first_error" (which step, or null), one of the two.')
    check_keys(value, place, "steps", {"labels"} if "labels" in value else {"first_error"}, {"alternative"})
    count = len(task.completions[0].messages)
    if "labels" in value:
        labels = value["labels"]
        entries = cast("list[object]", labels) if isinstance(labels, list) else None
        if entries is None or len(entries) != count:
            raise DataError(f'{place}: "labels" must be a list of {count} labels, one a step; found {labels!r:.80}.')
        if not all(label is None or (is_integer(label) and label in (1, 0, -1)) for label in entries):
            raise DataError(f'{place}: "labels" is {entries}; a label is 1 (right), 0 (neutral), -1 (wrong) or null (not judged).')
    elif value["first_error"] is not None:
        check_index(value["first_error"], count, f'{place}: "first_error"', "a step", "or null where there is none")
    if value.get("alternative") is not None:
        other = value["alternative"]
        if not isinstance(other, Mapping):
            raise DataError(f'{place}: "alternative" is {other!r:.80}; it is {{"step": which, "text": the better step}}.')
        better = dict(cast("Mapping[str, Any]", other))
        check_keys(better, place, "steps alternative", {"step", "text"})
        check_index(better["step"], count, f'{place}: "step" of the alternative', "a step")
        check_text(better["text"], f'{place}: "text" of the alternative')
    return value


def edit_value(value: Value, task: Task, place: str) -> Value:
    """`{"of": index, "text": ...}`: a text that differs from the answer's own."""
    check_keys(value, place, "edit", {"of", "text"})
    check_index(value["of"], len(task.completions), f'{place}: "of"', "an answer")
    check_text(value["text"], f'{place}: "text"')
    if cast("str", value["text"]).strip() == task.completions[cast("int", value["of"])].text.strip():
        raise DataError(f'{place}: "text" is the same as answer {value["of"]}; an edit changes something.')
    return value


def chat_value(value: Value, task: Task, place: str) -> Value:
    """`{"turns": [...]}`: what was said of the turns of recorded conversations, or the turns of one that was held live."""
    check_keys(value, place, "chat", {"turns"})
    turns = cast("list[object]", value["turns"]) if isinstance(value["turns"], list) else []
    if not turns:
        raise DataError(f'{place}: "turns" must be a list with at least one turn; found {value["turns"]!r:.80}.')
    last = -1
    for number, entry in enumerate(turns, start=1):
        here = f"{place}: turn {number}"
        if not isinstance(entry, Mapping):
            wanted = "turn and what is said of it" if task.completions else "user and answers"
            raise DataError(f"{here} is {entry!r:.80}; a turn is an object with {wanted}.")
        turn = dict(cast("Mapping[str, Any]", entry))
        if not task.completions:
            _live_turn(turn, here)
            continue
        check_keys(turn, here, "chat turn", {"turn"}, {"rating", "flags", "text"} if len(task.completions) == 1 else {"choice", "strength"})
        check_index(turn["turn"], turn_count(task), f'{here}: "turn"', "an assistant's turn")
        if turn["turn"] <= last:
            raise DataError(f'{here}: "turn" is {turn["turn"]} after {last}; each turn is judged once, in their order.')
        last = turn["turn"]
        _recorded_turn(turn, task, here)
    return value


def _live_turn(turn: Value, here: str) -> None:
    """A turn with what the user said, the answers, and the choice where there were two."""
    check_keys(turn, here, "chat turn", {"user", "answers"}, {"choice", "strength"})
    check_text(turn["user"], f'{here}: "user"')
    answers = cast("list[object]", turn["answers"]) if isinstance(turn["answers"], list) else []
    if len(answers) not in (1, 2):
        raise DataError(f'{here}: "answers" must be a list of one or two texts.')
    for answer in answers:
        check_text(answer, f'{here}: "answers"')
    if len(answers) == 2:
        check_choice(turn.get("choice"), here)
    elif turn.get("choice") is not None:
        raise DataError(f'{here}: "choice" is {turn["choice"]!r} and there is one answer; leave it out.')
    check_strength(turn.get("strength"), turn.get("choice"), here)


def _recorded_turn(turn: Value, task: Task, here: str) -> None:
    """What is said of one turn of one conversation, or of two side by side."""
    if len(task.completions) == 2:
        check_choice(turn.get("choice"), here)
        check_strength(turn.get("strength"), turn.get("choice"), here)
        return
    if "rating" in turn:
        check_rating(turn, here)
    elif "text" not in turn or "flags" in turn:
        raise DataError(f'{here}: a turn of one conversation needs a "rating", or a better "text".')
    if "text" in turn:
        check_text(turn["text"], f'{here}: "text"')
        _, said = assistant_turns(task.completions[0])[cast("int", turn["turn"])]
        if cast("str", turn["text"]).strip() == said.content.strip():
            raise DataError(f'{here}: "text" is the same as what was said; an edit changes something.')


def assistant_turns(completion: Completion) -> list[tuple[int, Message]]:
    """The assistant's turns of a conversation, each with its place among the messages."""
    return [(place, message) for place, message in enumerate(completion.messages) if message.role == "assistant"]


def turn_count(task: Task) -> int:
    """How many of the assistant's turns a chat task has to judge: of two conversations, those that both have."""
    return min((len(assistant_turns(completion)) for completion in task.completions), default=0)


def reason_value(value: Value, task: Task, place: str) -> Value:
    """`{"reason": ...}` of a flag or a skip."""
    check_keys(value, place, "flag or skip", {"reason"})
    check_text(value["reason"], f'{place}: "reason"')
    return value


def undo_value(value: Value, task: Task, place: str) -> Value:
    """`{}`: what is taken back is in `supersedes`."""
    check_keys(value, place, "undo", set())
    return value


_CHECKS: dict[str, Callable[[Value, Task, str], Value]] = {
    "pair": pair_value,
    "ranking": ranking_value,
    "rating": rating_value,
    "steps": steps_value,
    "edit": edit_value,
    "chat": chat_value,
    "flag": reason_value,
    "skip": reason_value,
    "undo": undo_value,
}
_EXAMPLES = {
    "pair": '{"choice": 0}',
    "ranking": '{"ranks": [1, 2]}',
    "rating": '{"rating": 5}',
    "steps": '{"labels": [1, -1]}',
    "edit": '{"of": 0, "text": "..."}',
    "chat": '{"turns": [...]}',
    "flag": '{"reason": "..."}',
    "skip": '{"reason": "..."}',
    "undo": "{}",
}


def check_task(task: Task) -> Task:
    """The task, after checking that it can be asked.

    Raises:
        DataError: naming the task, with what is wrong.
    """
    place = f"Task {task.id}"
    needed = _COMPLETIONS.get(task.kind)
    if needed is None:
        raise DataError(f'{place}: there is no kind "{task.kind}". The kinds are: {", ".join(_COMPLETIONS)}.')
    lowest, highest = needed
    if not lowest <= len(task.completions) <= highest:
        wanted = str(lowest) if lowest == highest else f"{lowest} to {highest}"
        raise DataError(f"{place}: a {task.kind} task has {wanted} answers; this one has {len(task.completions)}.")
    if not is_integer(task.round) or not 0 <= task.round <= LAST_ROUND:
        raise DataError(f"{place}: round is {task.round!r}; it is a whole number from 0 to {LAST_ROUND:,}.")
    if not task.prompt and task.kind != "chat":
        raise DataError(f"{place} has no prompt.")
    texts = [completion.id for completion in task.completions]
    if len(set(texts)) < len(texts):
        raise DataError(f"{place} has the same answer twice; there is nothing to compare.")
    for message in (*task.prompt, *(message for completion in task.completions for message in completion.messages)):
        check_encodable(message.content, f"{place}: the text of its {message.role} turn")
    if task.kind == "chat" and task.completions and not turn_count(task):
        raise DataError(f"{place}: each conversation of a chat task has a turn of the assistant.")
    if task.kind == "steps" and not all(message.role == "assistant" for message in task.completions[0].messages):
        raise DataError(f"{place}: a solution has one assistant message a step.")
    if task.kind == "steps":
        alternatives(task)
    if task.gold is not None:
        check_value(task.kind, task.gold, task)
    return task


def alternatives(task: Task) -> list[list[str]]:
    """Other texts for each step of a solution, from its column `step_alternatives`; empty where it has none.

    Raises:
        DataError: if the column is no list of texts for each step.
    """
    found = task.columns.get(ALTERNATIVES)
    if found is None:
        return []
    count, place = len(task.completions[0].messages), f'Task {task.id}: column "{ALTERNATIVES}"'
    steps = cast("list[object]", found) if isinstance(found, list) else []
    if len(steps) != count or not all(isinstance(step, list) for step in steps):
        raise DataError(f"{place} must be a list of {count} lists of texts, one a step; found {found!r:.80}.")
    for texts in cast("list[list[object]]", steps):
        for text in texts:
            check_text(text, place)
    return cast("list[list[str]]", steps)


_COMPLETIONS = {"pair": (2, 2), "ranking": (2, 20), "rating": (1, 1), "steps": (1, 1), "edit": (1, 20), "chat": (0, 2)}
"""How many answers a task of each kind has."""


def _check_strength(annotation: Annotation, place: str) -> None:
    if annotation.kind == "pair":
        check_strength(annotation.strength, annotation.value.get("choice"), place)
    elif annotation.strength is not None:
        raise DataError(f"{place}: a {annotation.kind} has no strength; it belongs to a pair.")


def _check_probability(annotation: Annotation, place: str) -> None:
    value = annotation.probability
    if value is None:
        return
    if annotation.kind != "pair":
        raise DataError(f"{place}: a {annotation.kind} has no probability; it belongs to a pair.")
    if not is_number(value) or not 0 <= value <= 1:
        raise DataError(f"{place}: probability is {value!r}; it lies between 0 and 1.")
    choice = annotation.value.get("choice")
    fits = {0: value >= 0.5, 1: value <= 0.5, "tie": value == 0.5}
    if not fits.get(cast("Any", choice), False):
        raise DataError(f"{place}: probability {value:g} that answer 0 is better does not fit the choice {choice!r}.")
