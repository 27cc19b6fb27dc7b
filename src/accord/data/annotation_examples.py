"""From tasks and what annotators said about them to examples that methods train on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from accord.data.annotation_values import ERASED, Value, assistant_turns
from accord.data.fields import common_turns
from accord.errors import ConfigError, DataError
from accord.types import Annotation, Completion, Example, Message, Task, TaskKind, content_hash, task_id

MARGINS = {1: 0.0, 2: 1 / 3, 3: 2 / 3, 4: 1.0}
"""Margin of the reward loss for each strength: the small set of Llama 2 (Touvron et al. 2023, arXiv:2307.09288, Table 27)."""
NEUTRAL = 4
"""The rating that calls an answer neither desirable nor undesirable."""


def examples_of(annotation: Annotation, task: Task, *, where: str = "", **more: Any) -> list[Example]:
    """What an annotation teaches.

    | annotation | examples |
    |------------|----------|
    | pair: a choice | a preference, with the margin of its strength and the probability of its source |
    | pair: a tie | a preference with probability 0.5 |
    | pair: both bad | two undesirable labelled answers |
    | ranking | a ranking |
    | rating | a labelled answer: desirable above 4, undesirable below; 4 teaches nothing |
    | steps | a solution with labels; with an alternative also the solution up to it, ended by the better step |
    | edit | a demonstration, and a preference for the edited text |
    | chat | the same for each turn that was judged, its prompt the conversation up to there; column `turn` counts the assistant's turns from 0;
      turns at which two conversations say the same teach nothing |
    | flag, skip, undo, or erased | nothing |

    Args:
        annotation: a valid one, checked by `check_annotation`.
        task: what it is about.
        where: file and row, for messages.
        more: further columns.
    Returns:
        examples whose columns say where they come from: annotator, label_source, round, guideline_version, task_id, annotation_id.
    """
    make = _MAKERS.get(annotation.kind)
    if make is None or annotation.value == ERASED:
        return []
    columns = {**task.columns, **provenance(annotation), **more}
    return [replace(found, columns={**columns, **found.columns}, where=where) for found in make(annotation, task)]


def provenance(annotation: Annotation) -> dict[str, Any]:
    """The columns that say where an example's label comes from."""
    return {
        "annotator": annotation.annotator,
        "label_source": annotation.source,
        "round": annotation.round,
        "guideline_version": annotation.guideline_version,
        "task_id": annotation.task,
        "annotation_id": annotation.id,
        "arm": annotation.arm,
    }


def tasks_of(example: Example, *, round: int = 0, kind: TaskKind | None = None) -> list[Task]:
    """The tasks that ask people what an example already says, or something else about its answers.

    Answers are put in an order that says nothing about which is better. Rows with nothing to judge have no task.

    Args:
        kind: of task. A rating or a chat asks about each answer of a row by itself, a chat of two conversations about both. None: a pair, a ranking,
            a rating, an edit or the steps, whatever the row holds.
    Raises:
        ConfigError: if rows of this kind cannot be asked about in that way.
    """
    usual = _USUAL.get(example.kind)
    if usual is None:
        return []
    wanted = kind or usual
    if wanted != usual and (wanted not in ("rating", "edit", "chat") or example.kind == "steps"):
        raise ConfigError(f"{example.where}: a {example.kind} makes no {wanted} task. It makes: {', '.join(sorted({usual, *_ANY}))}.")
    answers = tuple(sorted(example.completions, key=lambda completion: content_hash(["order", completion.id])))
    together = [answers]
    if wanted == "rating" or (wanted == "chat" and (len(answers) != 2 or not all(map(_goes_on, answers)))):
        together = [(answer,) for answer in answers]
    found: list[Task] = []
    for group in together:
        prompt, asked = _from_first_answer(example.prompt, group[0]) if wanted == "chat" and len(group) == 1 else (example.prompt, group)
        found.append(Task(task_id(wanted, prompt, asked, round), wanted, prompt, asked, round=round, columns=dict(example.columns)))
    return found


def known_value(example: Example, task: Task) -> Value:
    """What an example says, as the right value of a task that `tasks_of` made of it.

    Raises:
        DataError: if it does not say for certain what the task asks.
    """
    places = {answer.id: place for place, answer in enumerate(example.completions)}
    order = [places.get(answer.id, 0) for answer in task.completions]
    if task.kind == "pair" and example.kind == "preference" and example.probability in (None, 0.5, 1.0):
        return {"choice": "tie" if example.probability == 0.5 else order.index(0)}
    if task.kind == "ranking" and example.ranks is not None:
        return {"ranks": [example.ranks[place] for place in order]}
    if task.kind == "steps" and example.step_labels is not None and None not in example.step_labels:
        return {"labels": list(example.step_labels)}
    raise DataError(
        f"{example.where}: a {example.kind} does not say for certain what a {task.kind} task asks. Gold is made of pairs (ties are one), rankings, and "
        "solutions with every step judged."
    )


_USUAL: dict[str, TaskKind] = {"preference": "pair", "ranking": "ranking", "labelled": "rating", "demonstration": "edit", "steps": "steps"}
_ANY = ("rating", "edit", "chat")


def _goes_on(answer: Completion) -> bool:
    return len(assistant_turns(answer)) > 1


def _from_first_answer(prompt: tuple[Message, ...], answer: Completion) -> tuple[tuple[Message, ...], tuple[Completion, ...]]:
    """A conversation cut before the assistant's first turn, so that each of its turns can be judged."""
    start = next((place for place, message in enumerate(prompt) if message.role == "assistant"), len(prompt))
    return prompt[:start], (replace(answer, messages=(*prompt[start:], *answer.messages)),)


def _of_pair(annotation: Annotation, task: Task) -> list[Example]:
    return _compared(task.prompt, task.completions, annotation.value["choice"], annotation.strength, annotation.probability)


def _compared(
    prompt: tuple[Message, ...], answers: tuple[Completion, ...], choice: Any, strength: int | None, probability: float | None = None
) -> list[Example]:
    if choice == "both_bad":
        return [Example("labelled", prompt, (answer,), label=False) for answer in answers]
    if choice == "tie":
        return [Example("preference", prompt, answers, probability=0.5)]
    sure = None if probability is None else probability if choice == 0 else 1 - probability
    level = {} if strength is None else {"strength_level": strength}
    margin = None if strength is None else MARGINS[strength]
    return [Example("preference", prompt, (answers[choice], answers[1 - choice]), probability=sure, strength=margin, columns=level)]


def _of_ranking(annotation: Annotation, task: Task) -> list[Example]:
    return [Example("ranking", task.prompt, task.completions, ranks=tuple(annotation.value["ranks"]))]


def _of_rating(annotation: Annotation, task: Task) -> list[Example]:
    return _rated(task.prompt, task.completions[0], annotation.value)


def _rated(prompt: tuple[Message, ...], answer: Completion, value: Value) -> list[Example]:
    rating = cast("int", value["rating"])
    if rating == NEUTRAL:
        return []
    columns = {"rating": rating, "rating_flags": value.get("flags", [])}
    return [Example("labelled", prompt, (answer,), label=rating > NEUTRAL, columns=columns)]


def step_labels(value: Value, count: int) -> tuple[int | None, ...]:
    """A label a step: those given, or from the first error on: right before it, wrong at it, not judged after it."""
    if "labels" in value:
        return tuple(value["labels"])
    error = cast("int | None", value["first_error"])
    return tuple(1 if error is None or step < error else -1 if step == error else None for step in range(count))


def _of_steps(annotation: Annotation, task: Task) -> list[Example]:
    steps = task.completions[0].messages
    labels = step_labels(annotation.value, len(steps))
    found = [Example("steps", task.prompt, task.completions, step_labels=labels)] if any(v is not None for v in labels) else []
    better = annotation.value.get("alternative")
    if better is not None:
        at = cast("int", better["step"])
        written = _written((*steps[:at], Message("assistant", better["text"])), annotation, finished=False)
        found.append(Example("steps", task.prompt, (written,), step_labels=(*labels[:at], 1)))
    return found


def _of_edit(annotation: Annotation, task: Task) -> list[Example]:
    before = task.completions[cast("int", annotation.value["of"])]
    return _edited(task.prompt, before, annotation.value["text"], annotation)


def _edited(prompt: tuple[Message, ...], before: Completion, text: str, annotation: Annotation) -> list[Example]:
    after = _written((*before.messages[:-1], Message("assistant", text)), annotation)
    return [Example("demonstration", prompt, (after,)), Example("preference", prompt, (after, before))]


def _of_chat(annotation: Annotation, task: Task) -> list[Example]:
    makers = (_of_live_turns, _of_one_conversation, _of_two_conversations)
    return makers[len(task.completions)](annotation, task)


def _of_live_turns(annotation: Annotation, task: Task) -> list[Example]:
    found: list[Example] = []
    prompt = task.prompt
    for number, turn in enumerate(annotation.value["turns"]):
        prompt = (*prompt, Message("user", turn["user"]))
        answers = tuple(Completion((Message("assistant", text),)) for text in turn["answers"])
        choice = turn.get("choice")
        if len(answers) == 2:
            found += _at_turn(number, _compared(prompt, answers, choice, turn.get("strength")))
        prompt = (*prompt, *answers[choice if choice in (0, 1) else 0].messages)
    return found


def _of_one_conversation(annotation: Annotation, task: Task) -> list[Example]:
    (whole,) = task.completions
    found: list[Example] = []
    for turn in annotation.value["turns"]:
        answer = up_to_turn(whole, turn["turn"])
        prompt, answer = (*task.prompt, *answer.messages[:-1]), replace(answer, messages=answer.messages[-1:])
        made = _rated(prompt, answer, turn) if "rating" in turn else []
        made += _edited(prompt, answer, turn["text"], annotation) if "text" in turn else []
        found += _at_turn(turn["turn"], made)
    return found


def _of_two_conversations(annotation: Annotation, task: Task) -> list[Example]:
    found: list[Example] = []
    for turn in annotation.value["turns"]:
        answers = tuple(up_to_turn(whole, turn["turn"]) for whole in task.completions)
        shared = common_turns(*(answer.messages for answer in answers))
        prompt = (*task.prompt, *answers[0].messages[:shared])
        answers = tuple(replace(answer, messages=answer.messages[shared:]) for answer in answers)
        if answers[0].id == answers[1].id:
            continue
        found += _at_turn(turn["turn"], _compared(prompt, answers, turn["choice"], turn.get("strength")))
    return found


def up_to_turn(whole: Completion, turn: int) -> Completion:
    """A conversation that ends with one of the assistant's turns; only its last turn may have been cut off."""
    place, _ = assistant_turns(whole)[turn]
    return replace(whole, messages=whole.messages[: place + 1], finished=whole.finished or place + 1 < len(whole.messages))


def _at_turn(turn: int, found: list[Example]) -> list[Example]:
    return [replace(example, columns={**example.columns, "turn": turn}) for example in found]


def _written(messages: tuple[Message, ...], annotation: Annotation, *, finished: bool = True) -> Completion:
    return Completion(messages, finished, {"kind": annotation.source, "annotator": annotation.annotator})


_MAKERS: dict[str, Callable[[Annotation, Task], list[Example]]] = {
    "pair": _of_pair,
    "ranking": _of_ranking,
    "rating": _of_rating,
    "steps": _of_steps,
    "edit": _of_edit,
    "chat": _of_chat,
}
