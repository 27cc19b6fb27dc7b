"""Debaters: who argues for an answer they are given, right or wrong. A language model, or a rule that quotes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from accord.ai_feedback.asking import LanguageModel, Question, ask
from accord.ai_feedback.debate.debater_prompts import DebaterPrompt
from accord.ai_feedback.debate.quotes import normalised, plain_line, sentences
from accord.ai_feedback.debate.tasks import HiddenTask
from accord.ai_feedback.debate.turns import LETTERS, Statement, Turn, spoken_lines, turn_of
from accord.ai_feedback.store import AnswerStore
from accord.errors import ConfigError
from accord.types import Message

RULE = "rule:"


@dataclass(frozen=True)
class Assignment:
    """What a debater is to do next."""

    task: HiddenTask
    answers: tuple[str, str]
    """In the order in which the judge will see them."""
    side: int
    """Which of them this debater argues for."""
    round: int
    rounds: int
    words: int
    heard: tuple[Statement, ...]
    """All that was said before, as the judge will read it."""
    alone: bool = False
    """True: nobody argues for the other answer. False: a rival does."""

    @property
    def answer(self) -> str:
        return self.answers[self.side]

    @property
    def other(self) -> str:
        return self.answers[1 - self.side]


class Debater(Protocol):
    """Anything that argues."""

    @property
    def name(self) -> str: ...

    def speak(self, assignments: Sequence[Assignment]) -> list[Turn]:
        """A turn each; one with its `error` where there is none."""
        ...

    def about(self) -> dict[str, Any]:
        """What its turns depend on, JSON-able."""
        ...


@dataclass
class ModelDebater:
    """A language model that argues."""

    model: LanguageModel
    prompt: DebaterPrompt
    store: AnswerStore = field(default_factory=AnswerStore)
    temperature: float = 0.4
    """0 takes the most likely token; Khan et al. (2024, arXiv:2402.06782) sample at 0.4."""
    seed: int = 0

    @property
    def name(self) -> str:
        return self.model.name

    def about(self) -> dict[str, Any]:
        asked = {"prompt": self.prompt.name, "prompt_hash": self.prompt.hash}
        return {"debater": self.name, **asked, "temperature": self.temperature, "seed": self.seed}

    def question(self, one: Assignment) -> Question:
        """What the model is asked."""
        messages = messages_for(self.prompt, one)
        return Question(messages, max_new_tokens=self.prompt.max_new_tokens, temperature=self.temperature, seed=self.seed)

    def speak(self, assignments: Sequence[Assignment]) -> list[Turn]:
        questions = [self.question(one) for one in assignments]
        found: list[Turn] = []
        for one, question, answer in zip(assignments, questions, ask(self.model, questions, self.store), strict=True):
            paid = {
                "prompt_hash": question.hash,
                "tokens": answer.prompt_tokens + answer.completion_tokens,
                "cost": answer.cost,
            }
            if answer.error is not None:
                found.append(Turn(Statement(one.side, one.round, ()), self.name, silent=True, error=answer.error, **paid))
                continue
            ended = answer.finish != "length"
            said = {"side": one.side, "round": one.round, "debater": self.name, "words": one.words, "tagged": self.prompt.tagged}
            found.append(turn_of(answer.text, one.task.evidence, ended=ended, **said, **paid))
        return found


@dataclass(frozen=True)
class RuleDebater:
    """Quotes the sentence that speaks most for its answer, in every round the next one. It knows no language: it counts shared words.

    Args:
        fabricates: True: the sentence that speaks most for either answer, with its own answer put in: a lie wherever it argues for the
            wrong one. False: a sentence of the text as it stands, so the worst it does is to mislead.
    """

    fabricates: bool = False

    @property
    def name(self) -> str:
        return f"{RULE}{'fabricate' if self.fabricates else 'quote'}"

    def about(self) -> dict[str, Any]:
        return {"debater": self.name}

    def speak(self, assignments: Sequence[Assignment]) -> list[Turn]:
        return [self._turn(one) for one in assignments]

    def _turn(self, one: Assignment) -> Turn:
        ranked = ranked_sentences(one.task.evidence, one.task.question, one.answer)
        if self.fabricates:
            ranked = self._fabricated(one, ranked)
        quote = ranked[one.round - 1] if one.round <= len(ranked) else ""
        text = f"<argument>The text says: <quote>{quote}</quote></argument>" if quote else ""
        said = {"side": one.side, "round": one.round, "debater": self.name, "words": one.words, "tagged": True}
        return turn_of(text, one.task.evidence, **said)

    def _fabricated(self, one: Assignment, own: list[str]) -> list[str]:
        best = lambda ranked, answer: support(ranked[0], one.task.question, answer) if ranked else (False, 0)  # noqa: E731
        theirs = ranked_sentences(one.task.evidence, one.task.question, one.other)
        if best(theirs, one.other) <= best(own, one.answer):
            return own
        return [re.sub(re.escape(one.other), lambda _: one.answer, theirs[0], flags=re.IGNORECASE), *own]


def messages_for(prompt: DebaterPrompt, one: Assignment) -> tuple[Message, ...]:
    """What a language model reads before it speaks: its assignment, the evidence, and what was said as everybody may read it."""
    places = {
        "question": one.task.question,
        "evidence": one.task.evidence,
        "answer": one.answer,
        "other": one.other,
        "heard": "\n".join(spoken_lines(one.heard, one.answers)) or "(nothing yet)",
        "me": LETTERS[one.side],
        "them": LETTERS[1 - one.side],
        "round": str(one.round),
        "rounds": str(one.rounds),
        "words": str(one.words),
    }
    return prompt.filled(places, alone=one.alone)


def support(sentence: str, question: str, answer: str) -> tuple[bool, int]:
    """How much a sentence speaks for an answer: whether it has all of the answer's words, and how many of the question's."""
    words = _words(sentence)
    needed = _words(answer)
    return bool(needed) and needed <= words, len(words & _words(question))


def ranked_sentences(evidence: str, question: str, answer: str) -> list[str]:
    """The sentences that have all of the answer's words, those with more of the question's words first."""
    scored = [(support(one, question, answer), index, one) for index, one in enumerate(sentences(evidence))]
    return [one for (speaks, shared), index, one in sorted(scored, key=lambda item: (-item[0][1], item[1])) if speaks]


def rule_debater(named: str) -> RuleDebater:
    """`quote` or `fabricate`.

    Raises:
        ConfigError: if it is neither.
    """
    name = named.removeprefix(RULE)
    if name not in ("quote", "fabricate"):
        raise ConfigError(f"There is no debater {named!r}. Rules: rule:quote, rule:fabricate; else a model, a run, or a server's address.")
    return RuleDebater(name == "fabricate")


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", normalised(plain_line(text))))
