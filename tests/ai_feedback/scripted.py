"""Language models that follow a script, for the real pipeline: a function from the question to the answer, counting what it was asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from accord.ai_feedback.asking import Answer, Keep, Question
from accord.ai_feedback.judge_prompts import JudgePrompt
from accord.ai_feedback.store import Spent
from accord.ai_feedback.verdicts import Comparison
from accord.types import Message, content_hash


class Scripted:
    """Answers by a script; equal questions have equal keys."""

    def __init__(self, script: Callable[[Question], Answer], name: str = "scripted") -> None:
        self.script, self.name = script, name
        self.asked: list[Question] = []

    def key(self, question: Question) -> str:
        return content_hash([self.name, dataclasses.asdict(question)], 32)

    def answer(self, questions: Sequence[Question], keep: Keep, spent: Spent) -> list[Answer]:
        found: list[Answer] = []
        for index, question in enumerate(questions):
            self.asked.append(question)
            answer = self.script(question)
            if answer.error is None:
                keep(index, answer)
            found.append(answer)
        return found


def first_with(probability: float) -> Callable[[Question], Answer]:
    """Gives the first option this probability and the second the rest, whatever is asked."""

    def script(question: Question) -> Answer:
        first, second = question.options
        return Answer(masses={first: probability, second: 1 - probability}, prompt_tokens=10)

    return script


def shown(question: Question) -> tuple[str, str]:
    """The two answers in a question of the packaged pairwise prompts, in the order in which they stand there."""
    text = question.messages[-1].content
    first = text.split("[Answer A]\n")[1].split("\n[End of answer A]")[0]
    second = text.split("[Answer B]\n")[1].split("\n[End of answer B]")[0]
    return first, second


def longer_is_better(question: Question) -> Answer:
    """Surely prefers the longer answer; equal lengths are a coin."""
    first, second = shown(question)
    probability = 0.5 if len(first) == len(second) else float(len(first) > len(second))
    return Answer(masses={"A": probability, "B": 1 - probability})


def comparison(first: str = "one", second: str = "two", prompt: str = "Say a number.") -> Comparison:
    return Comparison((Message("user", prompt),), first, second)


def short_prompt(**changes: Any) -> JudgePrompt:
    """A pairwise prompt in few words, for models that read few."""
    message = Message("user", "{conversation} A: {first} B: {second} Better:")
    options = {"A": ("A", " A", "(A"), "B": ("B", " B", "(B")}
    return JudgePrompt("short", "pairwise", (message,), options, **changes)
