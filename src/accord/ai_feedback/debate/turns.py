"""What a debater wrote, taken apart: the argument that others may read, and everything else, which nobody but the transcript sees."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from accord.ai_feedback.debate.quotes import Segment, cut_to, plain_line, segments_of

LETTERS = ("A", "B")
"""Names of the sides, in the order in which their answers are shown."""
SILENT = "(says nothing)"
_HIDDEN = re.compile(r"<\s*(?P<end>/?)\s*(?:thinking|think|thoughts?|scratchpad|reasoning)\b[^<>]*>?", re.IGNORECASE)
_ARGUMENT = re.compile(r"<\s*(?P<end>/?)\s*argument\b[^<>]*>", re.IGNORECASE)


@dataclass(frozen=True)
class Statement:
    """One argument as everybody may read it. It has no place for anything hidden."""

    side: int
    """0: it argues for the answer that is shown first."""
    round: int
    """From 1."""
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """One line, quotes in marks that say whether they are verified."""
        return " ".join(segment.shown for segment in self.segments) or SILENT


@dataclass(frozen=True)
class Turn:
    """A statement with what lies behind it, for the transcript alone."""

    statement: Statement
    debater: str
    raw: str = ""
    """All that the debater wrote, its hidden thinking too."""
    cut: bool = False
    """The argument was longer than its limit, or the text ended for lack of tokens."""
    silent: bool = False
    """Nothing in the text was an argument."""
    prompt_hash: str = ""
    tokens: int = 0
    cost: float = 0.0
    error: str | None = None
    """Why there is no text at all."""


@dataclass(frozen=True)
class Shown:
    """All that a judge sees of a question."""

    question: str
    answers: tuple[str, str]
    """In the order in which this judge sees them."""
    passage: str = ""
    """What it may read of the evidence itself; empty where that is hidden."""
    statements: tuple[Statement, ...] = ()

    @property
    def text(self) -> str:
        """The question and what is shown with it, for language models. Each statement is one line that begins with its side's letter."""
        parts = [f"Question: {plain_line(self.question)}"]
        if self.passage:
            parts.append(f"From the text that the question is about:\n{plain_line(self.passage)}")
        if self.statements:
            parts.append("\n".join(["What was argued:", *spoken_lines(self.statements, self.answers)]))
        if len(parts) == 1:
            parts.append("Nobody has seen the text that the question is about.")
        return "\n\n".join(parts)


def spoken_lines(statements: Sequence[Statement], answers: tuple[str, str]) -> list[str]:
    """A line a statement, in their order."""
    return [
        f"{LETTERS[one.side]} (round {one.round}, for {plain_line(answers[one.side])}): {one.text}"
        for one in sorted(statements, key=lambda one: one.round)
    ]


def public_part(text: str, *, tagged: bool) -> str:
    """What others may read of a debater's text.

    Thinking is hidden from its tag to the end of the text where its end is missing, and from the beginning where its start is.

    Args:
        tagged: True: the debater was told to put its argument between <argument> tags, so nothing else is one. False: all that is not
            thinking is the argument.
    """
    said = _without_hidden(text)
    if not tagged:
        return _ARGUMENT.sub(" ", said)
    found: list[str] = []
    start: int | None = None
    for tag in _ARGUMENT.finditer(said):
        if not tag["end"]:
            start = tag.end() if start is None else start
        elif start is not None:
            found.append(said[start : tag.start()])
            start = None
    if start is not None:
        found.append(said[start:])
    return " ".join(found)


def turn_of(
    text: str, evidence: str, *, side: int, round: int, debater: str, words: int, tagged: bool, ended: bool = True, **paid: object
) -> Turn:
    """A turn from what a debater wrote.

    Args:
        words: longest argument; what is beyond is left out and the turn says so.
        ended: False: the text was cut off for lack of tokens.
        paid: `prompt_hash`, `tokens` and `cost` of the turn.
    """
    segments, cut = cut_to(segments_of(public_part(text, tagged=tagged), evidence), words)
    statement = Statement(side, round, segments)
    return Turn(statement, debater, text, cut or not ended, not segments, **paid)  # type: ignore[arg-type]


def _without_hidden(text: str) -> str:
    kept: list[str] = []
    depth, place = 0, 0
    for tag in _HIDDEN.finditer(text):
        if depth == 0:
            kept.append(text[place : tag.start()])
        if not tag["end"]:
            depth += 1
        elif depth:
            depth -= 1
        else:
            kept.clear()  # its start was in what the model was given
        place = tag.end()
    if depth == 0:
        kept.append(text[place:])
    return " ".join(kept)
