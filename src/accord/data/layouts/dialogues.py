"""Conversations and instructions as others keep them: HH-RLHF, ShareGPT, Alpaca, Dolly, OpenAI fine-tuning."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from accord.data.fields import Fields, Row, message_rows
from accord.data.layouts.base import Format, has, single, with_columns
from accord.data.layouts.trl import demonstration, pair, split_turns
from accord.data.system_column import without_system
from accord.types import Completion, Example, Message

_HH_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "model": "assistant",
    "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip
_TOOLS = ("tools", "functions")
_SHAREGPT_NAMES = {"user": "human", "assistant": "gpt", "system": "system", "tool": "tool"}


def hh_turns(fields: Fields, text: str, name: str) -> tuple[Message, ...]:
    """The turns of a dialogue written as one text with "\\n\\nHuman: " and "\\n\\nAssistant: " before each turn."""
    before, *pieces = _HH_TURN.split(text)
    if not pieces or before.strip():
        fields.fail(f'field "{name}" must begin with "\\n\\nHuman: " and mark every turn with it or "\\n\\nAssistant: ".')
    return tuple(
        Message("user" if speaker == "Human" else "assistant", content) for speaker, content in zip(pieces[::2], pieces[1::2], strict=True)
    )


def hh_text(messages: Sequence[Message]) -> str:
    """The inverse of `hh_turns`; a system turn has no place in that layout and becomes words before the first question."""
    return "".join(f"\n\n{'Assistant' if m.role == 'assistant' else 'Human'}: {m.content}" for m in messages)


def parse_hh(fields: Fields) -> list[Example]:
    """HH-RLHF: `chosen` and `rejected` are whole dialogues as text; the prompt is what they share, by whole turns."""
    chosen, rejected = (hh_turns(fields, fields.text(name), name) for name in ("chosen", "rejected"))
    prompt, answers = split_turns(fields, chosen, rejected)
    return [pair(prompt, Completion(answers[0]), Completion(answers[1]), fields)]


def write_hh(example: Example) -> Row:
    """The inverse of `parse_hh`."""
    texts = [hh_text((*example.prompt, *completion.messages)) for completion in example.completions]
    return with_columns({"chosen": texts[0], "rejected": texts[1]}, example)


def parse_sharegpt(fields: Fields) -> list[Example]:
    """ShareGPT: {"conversations": [{"from": "human", "value": ...}, ...]}."""
    entries: list[Row] = [_from_sharegpt(record) for record in fields.records("conversations")]
    return [demonstration(fields, fields.as_messages(entries, "conversations"), "conversations")]


def write_sharegpt(example: Example) -> Row:
    """The inverse of `parse_sharegpt`."""
    messages = (*without_system(example).prompt, *example.completions[0].messages)
    return with_columns({"conversations": _sharegpt_rows(messages, "conversations", example)}, example)


def parse_sharegpt_preference(fields: Fields) -> list[Example]:
    """ShareGPT with `chosen` and `rejected` turns after the conversation."""
    prompt = fields.as_messages([_from_sharegpt(record) for record in fields.records("conversations")], "conversations")
    answers = [fields.as_messages([_from_sharegpt(fields.record(name))], name) for name in ("chosen", "rejected")]
    return [pair(prompt, Completion(answers[0]), Completion(answers[1]), fields)]


def write_sharegpt_preference(example: Example) -> Row:
    """The inverse of `parse_sharegpt_preference`."""
    row: Row = {"conversations": _sharegpt_rows(without_system(example).prompt, "conversations", example)}
    for name, completion in zip(("chosen", "rejected"), example.completions, strict=True):
        row[name] = _sharegpt_rows(completion.messages, name, example)[0]
    return with_columns(row, example)


def parse_alpaca(fields: Fields) -> list[Example]:
    """Alpaca: {"instruction", "input", "output"}, with `system` and `history` [[question, answer], ...] where given."""
    prompt, completion = alpaca_prompt(fields, "input"), Completion((Message("assistant", fields.text("output")),))
    return [Example("demonstration", prompt, (completion,), columns=fields.rest(), where=fields.where)]


def write_alpaca(example: Example) -> Row:
    """The inverse of `parse_alpaca`."""
    return with_columns({**alpaca_fields(example, "input"), "output": example.completions[0].text}, example)


def parse_alpaca_preference(fields: Fields) -> list[Example]:
    """Alpaca with `chosen` and `rejected` in place of `output`."""
    prompt = alpaca_prompt(fields, "input")
    answers = [Completion((Message("assistant", fields.text(name)),)) for name in ("chosen", "rejected")]
    return [pair(prompt, answers[0], answers[1], fields)]


def write_alpaca_preference(example: Example) -> Row:
    """The inverse of `parse_alpaca_preference`."""
    chosen, rejected = (completion.text for completion in example.completions)
    return with_columns({**alpaca_fields(example, "input"), "chosen": chosen, "rejected": rejected}, example)


def parse_dolly(fields: Fields) -> list[Example]:
    """Dolly: {"instruction", "context", "response"}."""
    prompt, completion = alpaca_prompt(fields, "context"), Completion((Message("assistant", fields.text("response")),))
    return [Example("demonstration", prompt, (completion,), columns=fields.rest(), where=fields.where)]


def write_dolly(example: Example) -> Row:
    """The inverse of `parse_dolly`."""
    return with_columns({**alpaca_fields(example, "context"), "response": example.completions[0].text}, example)


def parse_openai_preference(fields: Fields) -> list[Example]:
    """OpenAI preference tuning: {"input": {"messages"}, "preferred_output", "non_preferred_output"}; older dumps say `_completion`."""
    inner = fields.record("input")
    prompt = fields.as_messages(inner.value("messages"), "input")
    names = [f"{side}_{'output' if f'{side}_output' in fields.row else 'completion'}" for side in ("preferred", "non_preferred")]
    answers = [fields.as_messages(fields.value(name), side) for name, side in zip(names, ("preferred", "non_preferred"), strict=True)]
    example = pair(prompt, Completion(answers[0]), Completion(answers[1]), fields)
    kept = inner.rest()
    for name in _TOOLS:
        if kept.get(name) and name not in example.columns:
            example.columns[name] = kept.pop(name)  # where rendering looks for them
    if kept:
        example.columns["input"] = kept
    return [example]


def write_openai_preference(example: Example) -> Row:
    """The inverse of `parse_openai_preference`."""
    kept = example.columns.get("input")
    outer: Row = dict(cast("Mapping[str, object]", kept)) if isinstance(kept, Mapping) else {}
    row: Row = {"input": {**outer, "messages": message_rows(example.prompt, "input", example.columns)}}
    moved = {name: example.columns[name] for name in _TOOLS if name not in outer and name in example.columns}
    cast("Row", row["input"]).update(moved)
    example = replace(example, columns={name: value for name, value in example.columns.items() if name not in moved})
    for side, completion in zip(("preferred", "non_preferred"), example.completions, strict=True):
        row[f"{side}_output"] = message_rows(completion.messages, side, example.columns)
    return with_columns(row, example)


def _from_sharegpt(record: Fields) -> Row:
    speaker, content = record.text("from"), record.text("value")
    role = _SHAREGPT_ROLES.get(speaker)
    if role is None:
        record.fail(f'"from" is "{speaker}"; it must be human, gpt, system or tool.')
    return {"role": role, "content": content, **({} if _SHAREGPT_NAMES[role] == speaker else {"from": speaker}), **record.rest()}


def _sharegpt_rows(messages: Sequence[Message], name: str, example: Example) -> list[Row]:
    rows: list[Row] = []
    for message in message_rows(messages, name, example.columns):
        extra = {key: value for key, value in message.items() if key not in ("role", "content")}
        rows.append({"from": _SHAREGPT_NAMES[str(message["role"])], "value": message["content"], **extra})
    return rows


def alpaca_prompt(fields: Fields, extra: str) -> tuple[Message, ...]:
    """The prompt of an instruction with its input (the column `extra`), after the system text and the history where there are any."""
    messages = [Message("system", fields.optional_text("system"))] if fields.optional_text("system") else []
    for turn in fields.items("history") if fields.row.get("history") else []:
        texts = cast("Sequence[object]", turn) if isinstance(turn, (list, tuple)) else ()
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            fields.fail('field "history" must be a list of [question, answer] texts.')
        messages += [Message("user", str(texts[0])), Message("assistant", str(texts[1]))]
    instruction, context = fields.text("instruction"), fields.optional_text(extra)
    if context:
        fields.keep(extra)
    return (*messages, Message("user", f"{instruction}\n\n{context}" if context else instruction))


def alpaca_fields(example: Example, extra: str) -> Row:
    """The inverse of `alpaca_prompt`."""
    messages, row = list(example.prompt), Row()
    context = example.columns.get(extra)
    ending = f"\n\n{context}" if context else ""
    row["instruction"] = messages.pop().content.removesuffix(ending)
    row[extra] = context if context is not None or extra in example.columns else ""
    if messages and messages[0].role == "system":
        row["system"] = messages.pop(0).content
    if messages:
        row["history"] = [[question.content, answer.content] for question, answer in zip(messages[::2], messages[1::2], strict=False)]
    return row


def _hh(row: Mapping[str, object]) -> bool:
    sides = (row.get("chosen"), row.get("rejected"))
    return "prompt" not in row and all(isinstance(side, str) for side in sides) and any("\n\nAssistant:" in str(side) for side in sides)


def _alpaca_preference(row: Mapping[str, object]) -> bool:
    return "instruction" in row and all(isinstance(row.get(side), str) for side in ("chosen", "rejected"))


def _openai_preference(row: Mapping[str, object]) -> bool:
    return "input" in row and ("preferred_output" in row or "preferred_completion" in row)


FORMATS = [
    Format(
        "openai_preference",
        "preference",
        "OpenAI preference rows need input, preferred_output, non_preferred_output.",
        _openai_preference,
        parse_openai_preference,
        single(write_openai_preference),
    ),
    Format("hh", "preference", "HH-RLHF rows need chosen and rejected.", _hh, parse_hh, single(write_hh)),
    Format(
        "sharegpt_preference",
        "preference",
        "ShareGPT preference rows need conversations, chosen, rejected.",
        has("conversations", "chosen", "rejected"),
        parse_sharegpt_preference,
        single(write_sharegpt_preference),
    ),
    Format("sharegpt", "demonstration", "ShareGPT rows need conversations.", has("conversations"), parse_sharegpt, single(write_sharegpt)),
    Format(
        "alpaca_preference",
        "preference",
        "Alpaca preference rows need instruction, chosen, rejected.",
        _alpaca_preference,
        parse_alpaca_preference,
        single(write_alpaca_preference),
    ),
    Format(
        "alpaca",
        "demonstration",
        "Alpaca rows need instruction and output.",
        has("instruction", "output"),
        parse_alpaca,
        single(write_alpaca),
    ),
    Format(
        "dolly",
        "demonstration",
        "Dolly rows need instruction and response.",
        has("instruction", "context", "response"),
        parse_dolly,
        single(write_dolly),
    ),
]
"""From the most demanding to the least."""
