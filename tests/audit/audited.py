"""Subjects of an audit that follow a script: what they write and which option they prefer are functions of the conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from accord.audit.subjects import Choice, Weighed, Written
from accord.types import Message

Prompt = tuple[Message, ...]
SURE = 8.0
"""Nats by which a script prefers an option."""


class Scripted:
    """Answers by one function, prefers by another."""

    def __init__(
        self,
        says: Callable[[Prompt], str] = lambda prompt: "That is all there is to say about it today.",
        prefers: Callable[[Choice], int] = lambda choice: 0,
        nll: float = 2.0,
        name: str = "script",
    ) -> None:
        self.says, self.prefers, self.nll, self.name = says, prefers, nll, name

    def write(self, prompts: Sequence[Prompt]) -> list[Written]:
        texts = [self.says(prompt) for prompt in prompts]
        return [Written(text, tuple(range(len(text.split()))), True) for text in texts]

    def weigh(self, choices: Sequence[Choice]) -> list[Weighed]:
        found = []
        for choice in choices:
            best = self.prefers(choice)
            totals = tuple(-1.0 if index == best else -1.0 - SURE for index in range(len(choice.options)))
            found.append(Weighed(totals, totals))
        return found

    def read(self, texts: Sequence[str]) -> list[float]:
        return [self.nll + 0.01 * (index % 3) for index in range(len(texts))]
