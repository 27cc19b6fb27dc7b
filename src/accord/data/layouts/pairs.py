"""Two answers as they were shown and a verdict on them: what every table of comparisons has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from accord.data.fields import Fields, Row, message_rows
from accord.data.layouts.base import Format, has, single, with_columns
from accord.types import Completion, Example, Message


@dataclass(frozen=True)
class Verdict:
    """Which of two shown answers is better."""

    vote: float
    """1: the first, 0: the second, 0.5: a tie, between them the share of votes for the first."""
    strength: float | None = None
    """By how much, in the data's own units; None: not stated."""


@dataclass(frozen=True)
class Judge:
    """How a layout states the verdict: read it from a row, write the columns that say it."""

    read: Callable[[Fields], Verdict]
    write: Callable[[Verdict], Row]


@dataclass(frozen=True)
class Prompt:
    """How a layout states the prompt."""

    read: Callable[[Fields], tuple[Message, ...]]
    write: Callable[[Example], Row]


def two_answers(
    name: str, columns: Sequence[str], answers: tuple[str, str], judge: Judge, prompt: Prompt, *, plain: bool = False
) -> Format:
    """The format of a table with a prompt, two answers as text, and a verdict.

    The columns that state the verdict are kept among the example's columns, so that the order shown is not lost.

    Args:
        name: name of the format.
        columns: the columns by which it is recognised.
        answers: the two columns with the answers as shown.
        judge: reads and writes who won.
        prompt: reads and writes the prompt.
        plain: True: prompt and answers are plain text to continue. False: they are chat turns.
    """

    def parse(fields: Fields) -> list[Example]:
        turns = prompt.read(fields)
        sides = [Completion((Message("assistant", fields.text(column)),)) for column in answers]
        return [replace(judged(fields, turns, sides, judge), plain=plain)]

    def write(example: Example) -> Row:
        stated, sides = shown(example, judge)
        return with_columns({**prompt.write(example), **stated, **{c: side.text for c, side in zip(answers, sides, strict=True)}}, example)

    return Format(name, "preference", f"{name} rows need {', '.join(columns)}.", has(*columns), parse, single(write))


def judged(fields: Fields, prompt: tuple[Message, ...], sides: Sequence[Completion], judge: Judge) -> Example:
    """The preference that a verdict on two shown answers means; the columns that state it stay among its columns."""
    first, second = sides
    before = fields.taken
    verdict = judge.read(fields)
    completions = (first, second) if verdict.vote >= 0.5 else (second, first)
    probability = None if verdict.vote in (0, 1) else max(verdict.vote, 1 - verdict.vote)
    kept = {name: fields.row[name] for name in fields.row if name in fields.taken - before}
    return Example(
        "preference",
        prompt,
        completions,
        probability=probability,
        strength=verdict.strength,
        columns={**fields.rest(), **kept},
        where=fields.where,
    )


def shown(example: Example, judge: Judge) -> tuple[Row, tuple[Completion, Completion]]:
    """The columns that state the verdict, and the two answers in the order in which they were shown."""
    chosen, rejected = example.completions
    stated = judge.write(Verdict(1.0 if example.probability is None else example.probability, example.strength))
    if all(name in example.columns for name in stated):
        stated = {name: example.columns[name] for name in stated}
    vote = judge.read(Fields({**example.columns, **stated}, example.where)).vote
    return stated, (chosen, rejected) if vote >= 0.5 else (rejected, chosen)


def text_prompt(name: str) -> Prompt:
    """A prompt in one column: one question as text, or chat messages."""

    def write(example: Example) -> Row:
        one = len(example.prompt) == 1 and example.prompt[0].role == "user"
        return {name: example.prompt[0].content if one else message_rows(example.prompt, name, example.columns)}

    return Prompt(lambda fields: fields.turns(name, "user"), write)
