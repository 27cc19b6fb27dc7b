"""A question to a language model, its answer, and asking each question once: what judges, critics and debaters are built on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from accord.ai_feedback.store import AnswerStore, Spent
from accord.types import Message, content_hash

OUT_OF_BUDGET = "not asked: the budget is spent"
"""The error of answers that a budget left out. Asking again with more goes on there."""


@dataclass(frozen=True)
class Question:
    """What a model is asked."""

    messages: tuple[Message, ...]
    options: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Answers that are read as probabilities, with the spellings of each; empty where free text is wanted."""
    max_new_tokens: int = 0
    """Longest text in tokens. 0, with options: the option is the first thing said, and no text is needed."""
    verdict: str = "Answer: {option}"
    """The line that states an option, in text."""
    temperature: float = 0.0
    """Of the text: 0 takes the most likely token."""
    seed: int = 0

    @property
    def hash(self) -> str:
        """Of the messages (16 hex digits)."""
        return content_hash([[message.role, message.content] for message in self.messages])


@dataclass(frozen=True)
class Answer:
    """What a model answered: raw, so that it can be read again."""

    text: str = ""
    masses: dict[str, float] | None = None
    """Probability of each option (not normalised), read from the model's own distribution. Options it cannot spell are missing."""
    top: tuple[tuple[str, dict[str, float]], ...] | None = None
    """From a server: each token of the text with the log-probabilities of the likeliest ones in its place, itself among them."""
    finish: str = "stop"
    """stop, or length: the text was cut off."""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    error: str | None = None
    """Why there is no answer. Such an answer is not kept, so it is asked for again."""


Keep = Callable[[int, Answer], None]
"""Called with the index of a question and its answer as soon as there is one."""


class LanguageModel(Protocol):
    """Something that answers questions: in this process, or behind a server."""

    @property
    def name(self) -> str:
        """Short, for people and annotators' names."""
        ...

    def key(self, question: Question) -> str:
        """Hash of everything that determines the answer."""
        ...

    def answer(self, questions: Sequence[Question], keep: Keep, spent: Spent) -> list[Answer]:
        """An answer to each.

        Args:
            keep: called for every answer that was obtained, before anything else can fail; answers with an error are not.
            spent: what the store's answers have cost so far, for budgets.
        """
        ...


def ask(model: LanguageModel, questions: Sequence[Question], store: AnswerStore) -> list[Answer]:
    """An answer to each question; those that the store has are not asked again, equal questions are asked once.

    Raises:
        what the model raises; the answers it gave before that are in the store.
    """
    keys = [model.key(question) for question in questions]
    known = store.known(keys)
    missing = list({key: question for key, question in zip(keys, questions, strict=True) if key not in known}.items())
    if missing:
        store.queue({key: _request(model, question) for key, question in missing})

        def keep(index: int, answer: Answer) -> None:
            store.keep(missing[index][0], dataclasses.asdict(answer), tokens=_tokens(answer), cost=answer.cost)

        answers = model.answer([question for _, question in missing], keep, store.spent())
        known |= {key: dataclasses.asdict(answer) for (key, _), answer in zip(missing, answers, strict=True)}
    return [answer_of(known[key]) for key in keys]


def answer_of(stored: dict[str, Any]) -> Answer:
    """An answer from its JSON form."""
    top = stored["top"]
    return Answer(**{**stored, "top": None if top is None else tuple((token, dict(near)) for token, near in top)})


def _request(model: LanguageModel, question: Question) -> dict[str, Any]:
    return {"model": model.name, **dataclasses.asdict(question)}


def _tokens(answer: Answer) -> int:
    return answer.prompt_tokens + answer.completion_tokens
