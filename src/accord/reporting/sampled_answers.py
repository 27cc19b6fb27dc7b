"""What a policy answered in its first round and answers now, from the rollouts.jsonl that online methods write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from accord.reporting.run_files import CHUNK, first_lines, json_object, last_lines, signature
from accord.types import Message, Role

LONGEST_ANSWER = 6000
"""Characters of a text that is shown; the rest is counted."""


@dataclass(frozen=True)
class Answer:
    """One sampled answer.

    Args:
        cut: characters of the answer that are not in `text`.
        score: None where it could not be scored; `error` says why.
        parts: what the score is made of.
        finished: True if it ended by itself. False if it was cut off at the longest length.
    """

    prompt_id: str
    prompt: tuple[Message, ...]
    text: str
    cut: int
    tokens: int
    score: float | None
    error: str
    parts: dict[str, float]
    finished: bool
    round: int
    """From 1."""


@dataclass(frozen=True)
class Sampled:
    """Answers of the first round and of the newest one, one to a prompt; prompts of both come first, in the same order.

    Args:
        unreadable: lines looked at that are no answers.
    """

    start: tuple[Answer, ...] = ()
    now: tuple[Answer, ...] = ()
    unreadable: int = 0


def sampled(path: Path, *, prompts: int = 4, limit: int = 4 * CHUNK) -> Sampled:
    """Answers of a run at the start and now, nothing where it writes none.

    Args:
        prompts: how many to show of each.
        limit: bytes that are read at each end of the file: rounds of many long answers are seen in part.
    """
    size = signature(path)
    first, bad = _answers(first_lines(path, limit=limit))
    whole = size is not None and size[0] <= limit
    last, worse = (first, 0) if whole else _answers(last_lines(path, limit=limit))
    if not first or not last:
        return Sampled(unreadable=bad + worse)
    start, now = _one_a_prompt(first, first[0].round), _one_a_prompt(last, last[-1].round)
    shared = [name for name in now if name in start]
    chosen_start, chosen_now = ([*shared, *(name for name in part if name not in shared)][:prompts] for part in (start, now))
    return Sampled(tuple(start[name] for name in chosen_start), tuple(now[name] for name in chosen_now), bad + worse)


def _one_a_prompt(answers: Iterable[Answer], number: int) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for answer in answers:
        if answer.round == number:
            found.setdefault(answer.prompt_id, answer)
    return found


def _answers(lines: Iterable[bytes]) -> tuple[list[Answer], int]:
    found = [answer_of(line) for line in lines]
    return [answer for answer in found if answer is not None], sum(answer is None for answer in found)


def answer_of(line: bytes) -> Answer | None:
    """A line of rollouts.jsonl; None if it is none."""
    row = json_object(line)
    if row is None:
        return None
    name, text, step, ids = (row.get(key) for key in ("prompt_id", "text", "policy_step", "completion_ids"))
    prompt = _messages(row.get("prompt"))
    if not isinstance(name, str) or not isinstance(text, str) or not isinstance(step, int) or prompt is None:
        return None
    score = row.get("score")
    judged = cast("dict[str, Any]", score) if isinstance(score, dict) else {}
    parts = judged.get("parts")
    return Answer(
        name,
        prompt,
        text[:LONGEST_ANSWER],
        max(0, len(text) - LONGEST_ANSWER),
        len(cast("list[Any]", ids)) if isinstance(ids, list) else 0,
        _number(judged.get("value")),
        judged["error"] if isinstance(judged.get("error"), str) else "",
        {key: float(value) for key, value in cast("dict[str, Any]", parts).items() if _number(value) is not None}
        if isinstance(parts, dict)
        else {},
        row.get("finish_reason") == "stop",
        step + 1,
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300 else None


def _messages(value: Any) -> tuple[Message, ...] | None:
    if not isinstance(value, list):
        return None
    found: list[Message] = []
    for one in cast("list[Any]", value):
        turn = cast("dict[str, Any]", one) if isinstance(one, dict) else {}
        role, content = turn.get("role"), turn.get("content")
        if role not in get_args(Role) or not isinstance(content, str):
            return None
        more = len(content) - LONGEST_ANSWER
        found.append(Message(cast("Role", role), content if more <= 0 else f"{content[:LONGEST_ANSWER]} … ({more} more characters)"))
    return tuple(found)
