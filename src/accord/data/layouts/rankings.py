"""Several answers with scores or ranks: UltraFeedback (raw and binarized), Nectar, OpenAssistant trees, rated answers (HelpSteer)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from accord.data.fields import Fields, Row, message_rows
from accord.data.layouts.base import Format, has, single, with_columns
from accord.data.layouts.comparisons import helpsteer_text, helpsteer_turns
from accord.data.layouts.dialogues import hh_text, hh_turns
from accord.data.layouts.trl import pair, split_turns
from accord.errors import DataError
from accord.types import Completion, Example, Message

_SOURCE_KEYS = ("message_id", "synthetic", "model_name", "user_id")


def dense_ranks(scores: Sequence[float]) -> tuple[int, ...]:
    """Ranks of scores, 1 for the largest; equal scores share a rank and the next rank follows without a gap."""
    levels = sorted(set(scores), reverse=True)
    return tuple(levels.index(score) + 1 for score in scores)


def parse_ultrafeedback(fields: Fields) -> list[Example]:
    """UltraFeedback as published: answers ranked by the mean of their aspect ratings, else by the overall score."""
    prompt = (Message("user", fields.text("instruction")),)
    scores: list[float] = []
    completions: list[Completion] = []
    others: list[Row] = []
    for record in fields.records("completions"):
        completions.append(Completion((Message("assistant", record.text("response")),)))
        scores.append(record.number("fine-grained_score" if record.has("fine-grained_score") else "overall_score"))
        others.append({name: value for name, value in record.row.items() if name != "response"})
    return [_ranking(fields, prompt, completions, dense_ranks(scores), {"completions": others})]


def write_ultrafeedback(example: Example) -> Row:
    """The inverse of `parse_ultrafeedback`."""
    records = [{"response": c.text, **kept} for c, kept in zip(example.completions, _kept(example, "completions", _score_row), strict=True)]
    return with_columns({"instruction": example.prompt[-1].content, "completions": records}, example)


def parse_nectar(fields: Fields) -> list[Example]:
    """Nectar: a dialogue as one text and answers with ranks, 1 the best."""
    prompt = hh_turns(fields, fields.text("prompt"), "prompt")
    if prompt[-1].role == "assistant" and not prompt[-1].content.strip():
        prompt = prompt[:-1]
    completions: list[Completion] = []
    ranks: list[int] = []
    others: list[Row] = []
    for record in fields.records("answers"):
        completions.append(Completion((Message("assistant", record.text("answer")),)))
        ranks.append(record.integer("rank"))
        others.append({name: value for name, value in record.row.items() if name != "answer"})
    return [_ranking(fields, prompt, completions, tuple(ranks), {"answers": others})]


def write_nectar(example: Example) -> Row:
    """The inverse of `parse_nectar`."""
    records = [{"answer": c.text, **kept} for c, kept in zip(example.completions, _kept(example, "answers", _rank_row), strict=True)]
    return with_columns({"prompt": hh_text(example.prompt) + "\n\nAssistant: ", "answers": records}, example)


def parse_rated(fields: Fields) -> list[Example]:
    """HelpSteer's rated answers, one a row: neighbouring rows with the same prompt are one ranking by helpfulness."""
    records = fields.records("rows")
    prompt = helpsteer_turns(records[0])
    completions = [Completion((Message("assistant", record.text("response")),)) for record in records]
    others: list[Row] = [{name: v for name, v in record.row.items() if name not in ("prompt", "response")} for record in records]
    if len(records) < 2:
        fields.fail("is the only rated answer to its prompt; a ranking needs at least 2 neighbouring rows with the same prompt.")
    return [_ranking(fields, prompt, completions, dense_ranks([record.number("helpfulness") for record in records]), {"rows": others})]


def write_rated(example: Example) -> Row:
    """The inverse of `parse_rated`."""
    prompt = helpsteer_text(example)
    kept = _kept(example, "rows", _helpfulness_row)
    return {"rows": [{**prompt, "response": c.text, **other} for c, other in zip(example.completions, kept, strict=True)]}


def parse_binarized(fields: Fields) -> list[Example]:
    """UltraFeedback binarized: the prompt as text, and whole conversations as `chosen` and `rejected`."""
    text = fields.text("prompt")
    prompt, answers = split_turns(fields, fields.messages("chosen"), fields.messages("rejected"))
    questions = [message.content for message in prompt if message.role == "user"]
    if text not in questions:
        fields.fail('field "prompt" is not among the user turns of "chosen" and "rejected": the prompts differ.')
    if text != questions[0]:
        fields.keep("prompt")
    return [pair(prompt, Completion(answers[0]), Completion(answers[1]), fields)]


def write_binarized(example: Example) -> Row:
    """The inverse of `parse_binarized`."""
    row: Row = {"prompt": example.columns.get("prompt") or next(m.content for m in example.prompt if m.role == "user")}
    for name, completion in zip(("chosen", "rejected"), example.completions, strict=True):
        row[name] = message_rows((*example.prompt, *completion.messages), name, example.columns)
    return with_columns(row, example)


def parse_tree(fields: Fields) -> list[Example]:
    """OpenAssistant: a tree of messages; every question with two or more ranked answers is a ranking, its path the prompt."""
    outside = {name: value for name, value in fields.row.items() if name != "prompt"}
    found: list[Example] = []

    def walk(node: Fields, path: tuple[Message, ...]) -> None:
        speaker = node.text("role")
        if speaker not in ("prompter", "assistant"):
            node.fail(f'"role" is "{speaker}"; it must be prompter or assistant.')
        path = (*path, Message("user" if speaker == "prompter" else "assistant", node.text("text")))
        replies = node.records("replies") if node.has("replies") else []
        ranked = [reply for reply in replies if reply.has("rank")]
        if speaker == "prompter" and len(ranked) >= 2:
            completions = tuple(Completion((Message("assistant", reply.text("text")),), source=_tree_source(reply)) for reply in ranked)
            columns = {**outside, "unranked": [reply.text("text") for reply in replies if not reply.has("rank")]}
            ranks = tuple(reply.integer("rank") + 1 for reply in ranked)
            found.append(Example("ranking", path, completions, ranks=ranks, columns=columns, where=fields.where))
        for reply in replies:
            walk(reply, path)

    walk(fields.record("prompt"), ())
    if not found:
        fields.fail("is a tree without any question that has two ranked answers; there is nothing to learn from it.")
    return found


def write_tree(examples: Sequence[Example]) -> Row:
    """A tree with the questions and answers of its rankings (what else the original tree held is not kept)."""
    root: dict[str, Any] = {}
    for example in examples:
        level: list[dict[str, Any]] = [root] if root else []
        for message in example.prompt:
            node = next((n for n in level if n["text"] == message.content), None)
            if node is None:
                node = cast(
                    "dict[str, Any]",
                    {"text": message.content, "role": "prompter" if message.role == "user" else "assistant", "replies": []},
                )
                level.append(node)
                root = root or node
            level = cast("list[dict[str, Any]]", node["replies"])
        for completion, rank in zip(example.completions, example.ranks or (), strict=True):
            level.append({"text": completion.text, "role": "assistant", "rank": rank - 1, **completion.source, "replies": []})
        for text in cast("Sequence[str]", example.columns.get("unranked", ())):
            level.append({"text": text, "role": "assistant", "replies": []})
    outside = {name: value for name, value in examples[0].columns.items() if name != "unranked"}
    return {"message_tree_id": examples[0].id, **outside, "prompt": root}


def _tree_source(reply: Fields) -> dict[str, Any]:
    return {name: reply.row[name] for name in _SOURCE_KEYS if reply.has(name)}


def _tree_key(example: Example) -> str:
    return str(example.columns.get("message_tree_id") or example.id)


def _ranking(
    fields: Fields, prompt: tuple[Message, ...], completions: Sequence[Completion], ranks: tuple[int, ...], columns: Mapping[str, Any]
) -> Example:
    if len(completions) < 2:
        fields.fail(f"has {len(completions)} answers; a ranking needs at least 2.")
    return Example("ranking", prompt, tuple(completions), ranks=ranks, columns={**fields.rest(), **columns}, where=fields.where)


def _kept(example: Example, name: str, row: Callable[[int], Row]) -> list[Row]:
    kept = example.columns.get(name)
    if isinstance(kept, list) and len(cast("list[Row]", kept)) == len(example.completions):
        return cast("list[Row]", kept)
    if example.ranks is None:
        raise DataError(f"{example.where} has no ranks.")
    return [row(rank) for rank in example.ranks]


def _score_row(rank: int) -> Row:
    return {"overall_score": -float(rank)}


def _helpfulness_row(rank: int) -> Row:
    return {"helpfulness": 5 - rank}


def _rank_row(rank: int) -> Row:
    return {"rank": rank}


def _rated(row: Mapping[str, object]) -> bool:
    joined = row.get("rows")
    first = cast("list[object]", joined)[0] if isinstance(joined, list) and joined else row
    return isinstance(first, Mapping) and {"prompt", "response", "helpfulness"} <= set(cast("Row", first))


def _raw(row: Mapping[str, object]) -> bool:
    entries = row.get("completions")
    return (
        "instruction" in row
        and isinstance(entries, (list, tuple))
        and all(isinstance(e, Mapping) and "response" in e for e in cast("list[object]", entries))
    )


def _binarized(row: Mapping[str, object]) -> bool:
    sides = (row.get("chosen"), row.get("rejected"))
    whole = all(isinstance(side, (list, tuple)) and len(cast("list[object]", side)) > 1 for side in sides)
    return isinstance(row.get("prompt"), str) and whole


FORMATS = [
    Format(
        "ultrafeedback",
        "ranking",
        "UltraFeedback rows need instruction and completions (each with response and a score).",
        _raw,
        parse_ultrafeedback,
        single(write_ultrafeedback),
    ),
    Format(
        "ultrafeedback_binarized",
        "preference",
        "These rows need prompt (text), chosen and rejected (conversations).",
        _binarized,
        parse_binarized,
        single(write_binarized),
    ),
    Format(
        "nectar",
        "ranking",
        "Nectar rows need prompt and answers (each with answer and rank).",
        has("prompt", "answers"),
        parse_nectar,
        single(write_nectar),
    ),
    Format(
        "oasst_trees",
        "ranking",
        "OpenAssistant trees need message_tree_id and prompt.",
        has("message_tree_id", "prompt"),
        parse_tree,
        write_tree,
        together=_tree_key,
    ),
    Format(
        "helpsteer_ratings",
        "ranking",
        "Rated rows need prompt, response, helpfulness.",
        _rated,
        parse_rated,
        single(write_rated),
        join_on="prompt",
    ),
]
"""From the most demanding to the least."""
