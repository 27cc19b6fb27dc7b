"""Who is audited: something that answers prompts, weighs written answers against each other and reads text. A model, or a script in tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from accord.types import Message


@dataclass(frozen=True)
class Written:
    """An answer that was sampled."""

    text: str
    ids: tuple[int, ...]
    """Its tokens."""
    finished: bool
    """Whether it ended by itself."""


@dataclass(frozen=True)
class Choice:
    """A conversation that may go on in one of several ways."""

    prompt: tuple[Message, ...]
    options: tuple[str, ...]


@dataclass(frozen=True)
class Weighed:
    """What a model thinks of each option of a choice."""

    totals: tuple[float, ...]
    """log-probability of each, nats."""
    per_token: tuple[float, ...]
    """The same a token of the option, so that a longer one has no handicap."""

    @property
    def best(self) -> int:
        """The option it prefers: the likeliest a token; of equal ones the first."""
        return max(range(len(self.per_token)), key=lambda index: self.per_token[index])

    def prefers(self, index: int) -> float:
        """1 where this option is the likeliest a token, 0 where another is, 0.5 where it shares the place."""
        top = max(self.per_token)
        return (1.0 / sum(value == top for value in self.per_token)) if self.per_token[index] == top else 0.0


class Weighs(Protocol):
    """Somebody who weighs options."""

    def weigh(self, choices: Sequence[Choice]) -> list[Weighed]:
        """What it thinks of the options of each choice."""
        ...


class Subject(Weighs, Protocol):
    """Somebody to audit."""

    @property
    def name(self) -> str:
        """As the user called it."""
        ...

    def write(self, prompts: Sequence[tuple[Message, ...]]) -> list[Written]:
        """An answer to each prompt."""
        ...

    def read(self, texts: Sequence[str]) -> list[float]:
        """Nats a token of each text, smaller is more familiar."""
        ...


def user(text: str) -> tuple[Message, ...]:
    """A conversation of one question."""
    return (Message("user", text),)
