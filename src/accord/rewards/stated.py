"""Which part of a text is its answer: the last place that is marked as one.

Marks are <answer>...</answer>, \\boxed{...}, "#### ..." (GSM8K) and the words "answer is", "answer:", "answer =". The last one in the
text counts, whatever its kind, and the verdict says so where there were several. Thinking (up to the last </think>) is never read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Mark = Literal["answer tag", "boxed", "####", "words", "none"]


@dataclass(frozen=True)
class Stated:
    """The stated answer of a text."""

    text: str
    """What stands at the mark; the whole text (after thinking) where nothing is marked."""
    mark: Mark
    count: int
    """How many marked answers the text has."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a verdict must say about the choice."""
        return (f"the last of {self.count} stated answers counts",) if self.count > 1 else ()


_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_NOT = r"(?!\s*(?:not\b|n['’]t\b|below\b|above\b|as follows\b))"
_WORDS = re.compile(
    r"\banswers?(?:[ \t]+(?:to|for)\b[^.\n:=]{0,80}?)?[*_ \t]*(?:(?:is|are|was|equals|must be|should be|would be|will be|comes to)\b"
    + _NOT
    + r"(?:[ \t]+(?:therefore|thus|then|simply|just)\b)?[*_ \t]*:?|:|=)[*_]*",
    re.IGNORECASE,
)
_ABBREVIATIONS = re.compile(r"(?:\b[ap]\.m|\bapprox|\bNo|\bRs|\bMr|\bMrs|\bDr|\bSt|\b[A-Z])$")


def without_thinking(text: str) -> str | None:
    """The text after its thinking; None where thinking began and never ended, so that nothing is an answer yet."""
    _, closed, after = text.rpartition("</think>")
    rest = after if closed else text
    return None if "<think>" in rest else rest


def stated_answers(text: str) -> list[Stated]:
    """All marked answers of a text without its thinking, in the order of their marks."""
    found: list[tuple[int, str, Mark]] = []
    for match in _TAG.finditer(text):
        found.append((match.start(), match.group(1).strip(), "answer tag"))
    for start, content in boxes(text):
        found.append((start, content.strip(), "boxed"))
    for match in _HASHES.finditer(text):
        found.append((match.start(), match.group(1).strip(), "####"))
    for match in _WORDS.finditer(text):
        region = _sentence(text[match.end() :])
        if region and not _begins_with_mark(region):
            found.append((match.start(), region, "words"))
    found.sort(key=lambda item: item[0])
    return [Stated(content, mark, len(found)) for _, content, mark in found]


def stated_answer(text: str) -> Stated | None:
    """The last stated answer; the whole text where none is marked. None where the text is empty or all thinking."""
    rest = without_thinking(text)
    if rest is None or not rest.strip():
        return None
    found = stated_answers(rest)
    return found[-1] if found else Stated(rest.strip(), "none", 0)


def boxes(text: str) -> list[tuple[int, str]]:
    r"""Where each \boxed{...} (or \fbox) begins, and what is in it, braces inside it matched. One that never closes is none."""
    found: list[tuple[int, str]] = []
    closed = _closings(text) if "box" in text else {}
    for match in re.finditer(r"\\(?:boxed|fbox)\s*(\{|(?=\S))", text):
        if not match.group(1):  # \boxed 5
            bare = re.match(r"[^\s$}\\]+", text[match.end() :])
            if bare:
                found.append((match.start(), bare.group()))
            continue
        start = match.end() - 1
        if start in closed:
            found.append((match.start(), text[start + 1 : closed[start]]))
    return found


def _closings(text: str) -> dict[int, int]:
    """Where each brace that is closed is closed, in one pass however many there are."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if match.group() == "{":
            opened.append(match.start())
        elif match.group() == "}" and opened:
            found[opened.pop()] = match.start()
    return found


def braced(text: str, start: int) -> str | None:
    """What is between the brace at `start` and the one that closes it; None where nothing closes it."""
    depth, position = 0, start
    while position < len(text):
        if text[position] == "\\":
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start + 1 : position]
        position += 1
    return None


def _begins_with_mark(region: str) -> bool:
    """What follows is marked itself and counted there."""
    return bool(re.match(r"[\s$*_(\[\\]*(?:<answer>|\\?(?:boxed|fbox)\b|####)", region))


def _sentence(rest: str) -> str:
    """The first line of what follows, up to the end of its sentence."""
    rest = re.sub(r"^(?:\s|\\\[|\$\$)+", "", rest)
    line = rest.split("\n", 1)[0]
    for match in re.finditer(r"[.!?](?=[\s*_\"')\]]|$)|</answer>", line):
        if not (match.group() == "." and match.end() < len(line) and _ABBREVIATIONS.search(line[: match.start()])):
            return line[: match.start()].strip()
    return line.strip()
