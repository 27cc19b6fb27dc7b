"""What is judged, what a judge said of it, and how it came to that: plain data with a JSON form.

A failure is a reason, never a number: a judge that says nothing has no probability, not one of 0.5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from accord.types import Completion, Example, LabelSource, Message, content_hash

OK = "ok"
"""The status of a reading that can be used."""
INCONSISTENT_WEIGHT = 0.25
"""What is left of a preference that changed its side with the order of the answers."""


@dataclass(frozen=True)
class Answered:
    """A prompt and one answer to it."""

    prompt: tuple[Message, ...]
    answer: str
    columns: dict[str, Any] = field(default_factory=dict[str, Any])
    """The row's other columns, for rules that read them."""

    @property
    def id(self) -> str:
        """Stable id from what is said (16 hex digits)."""
        return content_hash([[[m.role, m.content] for m in self.prompt], self.answer])


@dataclass(frozen=True)
class Comparison:
    """A prompt and two answers to it."""

    prompt: tuple[Message, ...]
    first: str
    second: str
    columns: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def id(self) -> str:
        """Stable id, the same whichever answer comes first: what is drawn for a comparison does not depend on its order (16 hex digits)."""
        return content_hash([[[m.role, m.content] for m in self.prompt], sorted((self.first, self.second))])

    @property
    def swapped(self) -> Comparison:
        """The same with the second answer first."""
        return Comparison(self.prompt, self.second, self.first, self.columns)

    @property
    def answers(self) -> tuple[Answered, Answered]:
        """Each answer by itself."""
        return Answered(self.prompt, self.first, self.columns), Answered(self.prompt, self.second, self.columns)


def comparison_of(example: Example) -> Comparison:
    """The two answers of a preference, the preferred one first."""
    first, second = (answer_text(completion) for completion in example.completions)
    return Comparison(example.prompt, first, second, example.columns)


def answer_text(completion: Completion) -> str:
    """An answer as a judge reads it: its text, or the turns of one that goes on after the first."""
    return completion.messages[0].content if len(completion.messages) == 1 else conversation_text(completion.messages)


def conversation_text(messages: Sequence[Message]) -> str:
    """A conversation as a judge reads it: one question as it is, more turns with who said them."""
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in messages)


@dataclass(frozen=True)
class Reading:
    """One question to a judge, and what was read from its answer."""

    asked: str
    """What stood in the question: "first, second", "second, first", "first", "second: item 3"."""
    probabilities: dict[str, float] | None
    """Of each option, summing to 1. None: there is no valid answer."""
    value: float | None
    """Of a comparison: the probability that the answer shown first is better, clamped where the recipe asks. Of a rating: its expected
    value. Of a checklist's item: the probability that it holds."""
    status: str = OK
    """"ok", or why there is no valid answer."""
    mass: float | None = None
    """Probability that the judge says one of the options at all. None: it was read from text."""
    clamped: bool = False
    prompt_hash: str = ""
    text: str = ""
    """What the judge wrote; empty where only its probabilities were read."""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """Money, in the currency of the prices given."""


@dataclass(frozen=True)
class Verdict:
    """Which of two answers a judge prefers."""

    probability: float | None
    """That the first answer is better, averaged over both orders. None: invalid."""
    readings: tuple[Reading, ...]
    judge: str
    source: LabelSource
    invalid: str | None = None
    """Why there is no probability."""
    consistent: bool = True
    """False: the two orders prefer different answers. True also where order plays no part, as with ratings and rules."""
    principle: str | None = None

    @property
    def choice(self) -> int | None:
        """0 or 1, the index of the better answer; None for a tie, an inconsistent or an invalid verdict."""
        if self.probability is None or not self.consistent or self.probability == 0.5:
            return None
        return 0 if self.probability > 0.5 else 1

    @property
    def soft_label(self) -> float | None:
        """The probability to train on. An inconsistent verdict is drawn to 0.5 until a quarter of it is left.

        The gradient of a soft-label loss at equal scores is its distance from 0.5, so this is a near-tie of that weight.
        """
        if self.probability is None or self.consistent:
            return self.probability
        return 0.5 + INCONSISTENT_WEIGHT * (self.probability - 0.5)


@dataclass(frozen=True)
class Rating:
    """What a judge thinks of one answer."""

    value: float | None
    """Expected value. None: invalid."""
    distribution: dict[float, float]
    """Probability of each value; empty where invalid."""
    low: float
    high: float
    """Ends of the scale."""
    readings: tuple[Reading, ...]
    invalid: str | None = None

    @property
    def rescaled(self) -> float | None:
        """The value with the scale's ends at -1 and 1."""
        return None if self.value is None else 2 * (self.value - self.low) / (self.high - self.low) - 1


def averaged(forward: Reading, backward: Reading, *, judge: str, source: LabelSource, principle: str | None = None) -> Verdict:
    """One verdict from both orders: p = (p_AB(A) + 1 - p_BA(B)) / 2, where p is of the answer shown first.

    Args:
        forward: the first answer was shown first.
        backward: the second answer was shown first.
    """
    readings = (forward, backward)
    if forward.value is None or backward.value is None:
        return Verdict(None, readings, judge, source, invalid=why(readings), principle=principle)
    probability = (forward.value + 1 - backward.value) / 2
    same_side = _side(forward.value) == -_side(backward.value)
    return Verdict(probability, readings, judge, source, consistent=same_side, principle=principle)


def preferred(first: dict[float, float], second: dict[float, float]) -> float:
    """P(x > y) + P(x = y) / 2 for independent x and y with these distributions."""
    return sum(p * q * (1.0 if x > y else 0.5 if x == y else 0.0) for x, p in first.items() for y, q in second.items())


def why(readings: Sequence[Reading]) -> str:
    """The first reason among them."""
    return next(reading.status for reading in readings if reading.value is None)


def as_record(value: Verdict | Rating) -> dict[str, Any]:
    """A JSON-able dict of it, fields that say nothing left out."""
    record = dataclasses.asdict(value)
    record["readings"] = [_said(Reading(**reading)) for reading in record["readings"]]
    return {name: one for name, one in record.items() if one is not None}


def _said(reading: Reading) -> dict[str, Any]:
    unsaid = {item.name: item.default for item in dataclasses.fields(reading) if item.name != "status"}
    return {name: one for name, one in dataclasses.asdict(reading).items() if one is not None and one != unsaid.get(name)}


def _side(probability: float) -> int:
    return (probability > 0.5) - (probability < 0.5)
