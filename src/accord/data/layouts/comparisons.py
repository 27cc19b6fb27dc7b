"""Tables of comparisons: winner columns, Chatbot Arena, HelpSteer2 and 3, SHP, PandaLM, LLMBar, OpenAI's summaries, a scored copy of HH-RLHF."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from accord.data.fields import Fields, Row, message_rows
from accord.data.layouts.base import Format, has, single, with_columns
from accord.data.layouts.dialogues import alpaca_fields, alpaca_prompt, hh_text, hh_turns
from accord.data.layouts.pairs import Judge, Prompt, Verdict, judged, shown, text_prompt, two_answers
from accord.data.layouts.trl import split_turns
from accord.types import Completion, Example, Message

_SIDE = r"(?:model|answer|response|output|completion|assistant|option|choice|text)?[ _-]*"
_FIRST = re.compile(_SIDE + r"(?:a|1|left|first)", re.IGNORECASE)
_SECOND = re.compile(_SIDE + r"(?:b|2|right|second)", re.IGNORECASE)
_TIE = re.compile(r"tie\b.*|draw|equal|same|both|neither|none|both[ _-]?(?:bad|good)|no preference", re.IGNORECASE)
VOTE = re.compile(r"annotator\d+")
"""Columns of PandaLM's rows, one an annotator: 1 and 2 say which answer is better, 0 is a tie."""
_HELPSTEER_TURN = re.compile(r"\n<extra_id_1>(User|Assistant)\n")


def winner(name: str, first: str) -> Judge:
    """A column that names the winner, in any of the usual spellings (A, model_a, response_1, left, "tie (bothbad)").

    Args:
        name: the column.
        first: what to write when the first answer won.
    """

    def read(fields: Fields) -> Verdict:
        value = fields.value(name)
        whole = isinstance(value, float) and value.is_integer()
        text = str(int(value)) if whole and isinstance(value, float) else str(value).strip()
        for pattern, vote in ((_FIRST, 1.0), (_SECOND, 0.0), (_TIE, 0.5)):
            if value is not None and pattern.fullmatch(text):
                return Verdict(vote)
        fields.fail(f'field "{name}" is "{text}"; it must say which answer won: A, B or tie (also model_a, response_1, left, 1, ...).')

    return Judge(read, lambda verdict: {name: "tie" if verdict.vote == 0.5 else first})


def signed(name: str) -> Judge:
    """A number below zero where the first answer is better and above zero where the second is, its size saying by how much."""

    def read(fields: Fields) -> Verdict:
        value = fields.number(name)
        return Verdict(0.5 if value == 0 else float(value < 0), abs(value) or None)

    return Judge(read, lambda verdict: {name: 0 if verdict.vote == 0.5 else -(verdict.strength or 1)})


def parse_arena(fields: Fields) -> list[Example]:
    """Chatbot Arena: two conversations that begin alike, and a winner; MT-Bench's votes are on the turn that they name, and both are written down."""
    first, second = (_until(fields, fields.messages(name)) for name in ("conversation_a", "conversation_b"))
    prompt, answers = split_turns(fields, first, second, names=("conversation_a", "conversation_b"))
    return [judged(fields, prompt, [Completion(answer) for answer in answers], _ARENA)]


def _until(fields: Fields, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation up to the answer that was voted on: the one whose number, counted from 1, is in the column `turn`. No such column: all."""
    turn = fields.row.get("turn")
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    return messages[: answers[turn - 1] + 1] if isinstance(turn, int) and 1 <= turn < len(answers) else messages


def write_arena(example: Example) -> Row:
    """The inverse of `parse_arena`."""
    row, sides = shown(example, _ARENA)
    for name, completion in zip(("conversation_a", "conversation_b"), sides, strict=True):
        row[name] = message_rows((*example.prompt, *completion.messages), name, example.columns)
    return with_columns(row, example)


def parse_hh_scored(fields: Fields) -> list[Example]:
    """A copy of HH-RLHF with {"text": [dialogue, dialogue], "score": [number, number]}; the larger score is preferred."""
    texts = fields.texts("text")
    if len(texts) != 2:
        fields.fail(f'field "text" has {len(texts)} dialogues; a pair has two.')
    first, second = (hh_turns(fields, text, f"text[{index}]") for index, text in enumerate(texts))
    prompt, answers = split_turns(fields, first, second, names=("text[0]", "text[1]"))
    return [judged(fields, prompt, [Completion(answer) for answer in answers], _SCORES)]


def write_hh_scored(example: Example) -> Row:
    """The inverse of `parse_hh_scored`."""
    stated, sides = shown(example, _SCORES)
    return with_columns({**stated, "text": [hh_text((*example.prompt, *side.messages)) for side in sides]}, example)


def parse_summaries(fields: Fields) -> list[Example]:
    """OpenAI's comparisons of summaries: {"info": {"post" or "article", ...}, "summaries": [{"text", ...}, {"text", ...}], "choice": 0 or 1}.

    The prompt has subreddit, title and post as headed parts (Stiennon et al. 2020, arXiv:2009.01325); a text without the first two is the prompt.
    """
    info = fields.record("info")
    post = info.text("post" if info.has("post") else "article")
    heads = [("SUBREDDIT: r/", info.optional_text("subreddit")), ("TITLE: ", info.optional_text("title"))]
    named = [f"{head}{text}" for head, text in heads if text]
    prompt = (Message("user", "\n\n".join([*named, f"POST: {post}", "TL;DR:"]) if named else post),)
    summaries = fields.records("summaries")
    if len(summaries) != 2:
        fields.fail(f'field "summaries" has {len(summaries)} texts; a comparison has two.')
    sides = [Completion((Message("assistant", summary.text("text")),)) for summary in summaries]
    example = judged(fields, prompt, sides, SUMMARY_CHOICE)
    example.columns["info"] = dict(info.row)
    example.columns["summaries"] = [{name: value for name, value in summary.row.items() if name != "text"} for summary in summaries]
    return [example]


def write_summaries(example: Example) -> Row:
    """The inverse of `parse_summaries`."""
    stated, sides = shown(example, SUMMARY_CHOICE)
    kept = example.columns.get("summaries")
    others = cast("list[Row]", kept) if isinstance(kept, list) else [Row(), Row()]
    summaries = [{"text": side.text, **other} for side, other in zip(sides, others, strict=True)]
    info = example.columns.get("info", {"post": example.prompt[-1].content})
    return with_columns({"info": info, "summaries": summaries, **stated}, example)


def helpsteer_turns(fields: Fields) -> tuple[Message, ...]:
    """The prompt of HelpSteer2: a conversation as one text with "<extra_id_1>User" and "<extra_id_1>Assistant" between the turns."""
    first, *pieces = _HELPSTEER_TURN.split(fields.text("prompt"))
    later = [Message("user" if s == "User" else "assistant", text) for s, text in zip(pieces[::2], pieces[1::2], strict=True)]
    return (Message("user", first), *later)


def helpsteer_text(example: Example) -> Row:
    """The inverse of `helpsteer_turns`."""
    first, *later = example.prompt
    return {"prompt": first.content + "".join(f"\n<extra_id_1>{m.role.capitalize()}\n{m.content}" for m in later)}


def _read_better(fields: Fields) -> Verdict:
    better = fields.integer("better_response_id")
    if better not in (0, 1):
        fields.fail(f'field "better_response_id" is {better}; it is 0 (response_0) or 1.')
    return Verdict(1.0 - better)


def _read_choice(fields: Fields) -> Verdict:
    choice = fields.integer("choice")
    if choice not in (0, 1):
        fields.fail(f'field "choice" is {choice}; it is 0 (the first summary) or 1.')
    return Verdict(1.0 - choice)


def _read_scores(fields: Fields) -> Verdict:
    scores = fields.entries("score")
    if len(scores.row) != 2:
        fields.fail(f'field "score" has {len(scores.row)} numbers; a pair has two.')
    first, second = scores.number("0"), scores.number("1")
    return Verdict(0.5 if first == second else float(first > second))


def _read_annotators(fields: Fields) -> Verdict:
    votes = [fields.integer(name) for name in sorted(fields.row) if VOTE.fullmatch(name)]
    if any(vote not in (0, 1, 2) for vote in votes):
        fields.fail(f"the annotators say {votes}; each must be 1, 2 or 0 (a tie).")
    return Verdict(sum((0.5, 1.0, 0.0)[vote] for vote in votes) / len(votes))


def _write_annotators(verdict: Verdict) -> Row:
    return {"annotator1": 0 if verdict.vote == 0.5 else 1}


def _hh_scored(row: Mapping[str, object]) -> bool:
    return "score" in row and isinstance(row.get("text"), (list, tuple))


ANNOTATORS = Judge(_read_annotators, _write_annotators)
SUMMARY_CHOICE = Judge(_read_choice, lambda verdict: {"choice": 0})
_BETTER = Judge(_read_better, lambda verdict: {"better_response_id": 0})
_ARENA = winner("winner", "model_a")
_SCORES = Judge(_read_scores, lambda verdict: {"score": [0.5, 0.5] if verdict.vote == 0.5 else [1.0, 0.0]})
_SHP = Judge(lambda fields: Verdict(float(fields.flag("labels"))), lambda verdict: {"labels": 1})
_INSTRUCTION = Prompt(lambda fields: alpaca_prompt(fields, "input"), lambda example: alpaca_fields(example, "input"))
_CONTEXT = Prompt(
    lambda fields: fields.messages("context"), lambda example: {"context": message_rows(example.prompt, "context", example.columns)}
)

FORMATS = [
    Format(
        "arena",
        "preference",
        "Arena rows need conversation_a, conversation_b, winner.",
        has("conversation_a", "conversation_b", "winner"),
        parse_arena,
        single(write_arena),
    ),
    Format(
        "openai_comparisons",
        "preference",
        "OpenAI's comparisons need info, summaries, choice.",
        has("info", "summaries", "choice"),
        parse_summaries,
        single(write_summaries),
    ),
    Format(
        "hh_scored", "preference", "These rows need text (two dialogues) and score.", _hh_scored, parse_hh_scored, single(write_hh_scored)
    ),
    two_answers(
        "helpsteer2",
        ("prompt", "response_1", "response_2", "preference_strength"),
        ("response_1", "response_2"),
        signed("preference_strength"),
        Prompt(helpsteer_turns, helpsteer_text),
    ),
    two_answers(
        "helpsteer3",
        ("context", "response1", "response2", "overall_preference"),
        ("response1", "response2"),
        signed("overall_preference"),
        _CONTEXT,
    ),
    two_answers(
        "safe_rlhf",
        ("prompt", "response_0", "response_1", "better_response_id"),
        ("response_0", "response_1"),
        _BETTER,
        text_prompt("prompt"),
    ),
    two_answers("shp", ("history", "human_ref_A", "human_ref_B", "labels"), ("human_ref_A", "human_ref_B"), _SHP, text_prompt("history")),
    two_answers("pandalm", ("instruction", "response1", "response2", "annotator1"), ("response1", "response2"), ANNOTATORS, _INSTRUCTION),
    two_answers("llmbar", ("input", "output_1", "output_2", "label"), ("output_1", "output_2"), winner("label", "1"), text_prompt("input")),
    two_answers(
        "winner",
        ("prompt", "answer_a", "answer_b", "winner"),
        ("answer_a", "answer_b"),
        winner("winner", "A"),
        text_prompt("prompt"),
        plain=True,
    ),
]
"""From the most demanding to the least."""
