"""What annotation tools have in common: an item with a prompt and answers, and several annotators who judged it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accord.data.fields import Fields
from accord.types import Completion, Example, Message

_PROMPTS = ("prompt", "instruction", "question", "input", "query")
ITEM = "item"
"""Column that keeps what the item held besides prompt and answers."""


def ranked_answers(
    fields: Fields, texts: Mapping[str, object], order: Sequence[tuple[str, int]], columns: Mapping[str, Any], prompt: str
) -> Example:
    """The ranking that an annotator gave.

    Args:
        fields: the row, for error messages.
        texts: name to text of prompt and answers.
        order: name of each ranked answer and its rank, 1 the best.
        columns: what to keep.
        prompt: name of the prompt among `texts`.
    """
    values = Fields(texts, fields.where, fields.needs)
    turns = (Message("user", values.text(prompt)),)
    answers = tuple(Completion((Message("assistant", values.text(name)),)) for name, _ in order)
    if len(answers) < 2:
        fields.fail(f"ranks {len(answers)} answers; a ranking needs at least 2.")
    kept = {**columns, "names": [name for name, _ in order]}
    return Example("ranking", turns, answers, ranks=tuple(rank for _, rank in order), columns=kept, where=fields.where)


def prompt_name(fields: Fields, texts: Mapping[str, object]) -> str:
    """The name of the prompt among the texts of an item."""
    found = next((name for name in _PROMPTS if isinstance(texts.get(name), str)), None)
    if found is None:
        fields.fail(f"has no prompt among {', '.join(texts)}; it must be named {' or '.join(_PROMPTS)}.")
    return found


def item_key(example: Example) -> str:
    """Key of the item that an example came from: its annotators' examples are written back as one row."""
    kept = example.columns.get(ITEM)
    return repr((example.where, example.prompt_id)) if isinstance(kept, Mapping) else example.id
