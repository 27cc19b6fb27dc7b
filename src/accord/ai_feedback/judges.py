"""Judges: one interface over pairwise questions, ratings, checklists, principles, rules and reward models.

Every judge compares; those that look at one answer at a time also rate. Pairwise judges are asked in both orders, always.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from accord.ai_feedback.asking import Answer, LanguageModel, Question, ask
from accord.ai_feedback.judge_prompts import JudgePrompt
from accord.ai_feedback.reading import read
from accord.ai_feedback.store import AnswerStore
from accord.ai_feedback.verdicts import OK, Answered, Comparison, Rating, Reading, Verdict, averaged, conversation_text, preferred, why
from accord.errors import ConfigError
from accord.rollouts.random import uniform
from accord.types import LabelSource

ORDERS = ("first, second", "second, first")
"""What `Reading.asked` says of the two orders."""


class Judge(Protocol):
    """Anything that prefers one of two answers."""

    @property
    def name(self) -> str:
        """Short and without blanks: the annotator's name of its labels."""
        ...

    @property
    def source(self) -> LabelSource:
        """ai, or rule: what a rule said is never counted as AI feedback."""
        ...

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """A verdict on each, invalid with its reason where there is none."""
        ...

    def about(self) -> dict[str, Any]:
        """What its verdicts depend on, JSON-able: models, prompt and its hash, seed."""
        ...


@runtime_checkable
class Rater(Judge, Protocol):
    """A judge that looks at one answer at a time."""

    def rate(self, answers: Sequence[Answered]) -> list[Rating]:
        """A rating of each, invalid with its reason where there is none."""
        ...


@dataclass
class ModelJudge:
    """What judges that ask a language model share."""

    model: LanguageModel
    prompt: JudgePrompt
    store: AnswerStore = field(default_factory=AnswerStore)
    seed: int = 0
    """Of the principle drawn for each comparison, and of what is reasoned."""
    source: LabelSource = "ai"

    kind: ClassVar[str] = ""
    """Of the prompts it takes."""

    def __post_init__(self) -> None:
        if self.prompt.kind != self.kind:
            raise ConfigError(
                f"The judge prompt {self.prompt.name} is of the kind {self.prompt.kind}; {type(self).__name__} needs {self.kind}."
            )

    @property
    def name(self) -> str:
        return f"{self.model.name}/{self.prompt.name}"

    def about(self) -> dict[str, Any]:
        asked = {"prompt": self.prompt.name, "prompt_hash": self.prompt.hash}
        return {"judge": self.name, "model": self.model.name, **asked, "seed": self.seed}


class PairwiseJudge(ModelJudge):
    """Asks which of two answers is better, in both orders, and averages."""

    kind = "pairwise"

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return self.compare_shown([(one, one.swapped) for one in comparisons])

    def compare_shown(self, orders: Sequence[tuple[Comparison, Comparison]]) -> list[Verdict]:
        """As `compare`, where the two orders are more than each other's mirror: two debates about the same two answers.

        Args:
            orders: of each comparison, what is shown with its first answer first, and with its second first.
        """
        principles = [self.principle(one) for one, _ in orders]
        questions = [self._question(shown, principle) for both, principle in zip(orders, principles, strict=True) for shown in both]
        answers = ask(self.model, questions, self.store)
        asked_in = ORDERS * len(orders)
        readings = [self._reading(*asked) for asked in zip(questions, answers, asked_in, strict=True)]
        return [
            averaged(readings[2 * index], readings[2 * index + 1], judge=self.name, source=self.source, principle=principle)
            for index, principle in enumerate(principles)
        ]

    def principle(self, comparison: Comparison) -> str | None:
        """The principle that a comparison is judged by: the same in both orders, drawn by seed and comparison alone. None: the prompt has none."""
        principles = self.prompt.principles
        return principles[int(uniform(self.seed, 0, comparison.id, 0, 0) * len(principles))] if principles else None

    def _question(self, shown: Comparison, principle: str | None) -> Question:
        places = {"conversation": conversation_text(shown.prompt), "first": shown.first, "second": shown.second}
        return self.prompt.question(seed=self.seed, **places, **({} if principle is None else {"principle": principle}))

    def _reading(self, question: Question, answer: Answer, order: str) -> Reading:
        probabilities, status, mass = read(question, answer)
        if probabilities is None:
            return _reading(question, answer, order, None, None, status, mass)
        first = probabilities[next(iter(question.options))]
        value = clamped(first, self.prompt.clamp)
        return _reading(question, answer, order, probabilities, value, status, mass, clamped=value != first)


class RatingJudge(ModelJudge):
    """Asks how good one answer is; the rating is the expected value over the numbers."""

    kind = "rating"

    def rate(self, answers: Sequence[Answered]) -> list[Rating]:
        questions = [self.prompt.question(seed=self.seed, conversation=conversation_text(one.prompt), answer=one.answer) for one in answers]
        return [self._rating(*asked) for asked in zip(questions, ask(self.model, questions, self.store), strict=True)]

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return compared_by_rating(self, comparisons)

    def _rating(self, question: Question, answer: Answer) -> Rating:
        probabilities, status, mass = read(question, answer)
        distribution = {float(name): share for name, share in (probabilities or {}).items()}
        value = None if probabilities is None else math.fsum(number * share for number, share in distribution.items())
        reading = _reading(question, answer, "answer", probabilities, value, status, mass)
        scale = [float(name) for name in question.options]
        return Rating(value, distribution, min(scale), max(scale), (reading,), None if value is not None else status)


class RubricJudge(ModelJudge):
    """Asks a checklist of yes/no questions about one answer; the rating is the expected weight of the items that hold."""

    kind = "rubric"

    def rate(self, answers: Sequence[Answered]) -> list[Rating]:
        items = self.prompt.items
        questions = [
            self.prompt.question(seed=self.seed, conversation=conversation_text(one.prompt), answer=one.answer, item=item.ask)
            for one in answers
            for item in items
        ]
        replies = ask(self.model, questions, self.store)
        asked = list(zip(questions, replies, strict=True))
        return [self._rating(asked[start : start + len(items)]) for start in range(0, len(asked), len(items))]

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return compared_by_rating(self, comparisons)

    def _rating(self, asked: Sequence[tuple[Question, Answer]]) -> Rating:
        readings: list[Reading] = []
        for number, (item, (question, answer)) in enumerate(zip(self.prompt.items, asked, strict=True), start=1):
            probabilities, status, mass = read(question, answer)
            value = None if probabilities is None else probabilities[item.want]
            said = status if value is not None else f"item {number}: {status}"
            readings.append(_reading(question, answer, f"item {number}", probabilities, value, said, mass))
        most = float(sum(item.weight for item in self.prompt.items))
        if any(reading.value is None for reading in readings):
            return Rating(None, {}, 0.0, most, tuple(readings), why(readings))
        weights = [item.weight for item in self.prompt.items]
        held = sums([(weight, reading.value or 0.0) for weight, reading in zip(weights, readings, strict=True)])
        return Rating(math.fsum(total * share for total, share in held.items()), held, 0.0, most, tuple(readings))


@dataclass
class ScoreJudge:
    """Prefers the answer with the higher score: a rule, or a reward model.

    Args:
        scores: a number for each answer, larger is better; None with a reason where there is none.
        probability: of a gap in score, that the answer that is ahead is better. None: the higher score is surely better, equal ones tie.
        details: what its verdicts depend on.
    """

    scores: Callable[[Sequence[Answered]], list[tuple[float | None, str]]]
    name: str
    source: LabelSource = "rule"
    probability: Callable[[float], float] | None = None
    details: dict[str, Any] = field(default_factory=dict[str, Any])

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        scored = self.scores([answer for one in comparisons for answer in one.answers])
        return [self._verdict(scored[2 * index], scored[2 * index + 1]) for index in range(len(comparisons))]

    def about(self) -> dict[str, Any]:
        return {"judge": self.name, **self.details}

    def _verdict(self, *scored: tuple[float | None, str]) -> Verdict:
        readings = tuple(
            Reading(which, None, value, OK if value is not None else reason)
            for which, (value, reason) in zip(("first", "second"), scored, strict=True)
        )
        first, second = (reading.value for reading in readings)
        if first is None or second is None:
            return Verdict(None, readings, self.name, self.source, invalid=why(readings))
        gap = first - second
        sure = 0.5 if gap == 0 else float(gap > 0)
        return Verdict(self.probability(gap) if self.probability else sure, readings, self.name, self.source)


def judge_of(model: LanguageModel, prompt: JudgePrompt, store: AnswerStore | None = None, *, seed: int = 0) -> Judge:
    """The judge that asks a model in the way its prompt says."""
    made = {"pairwise": PairwiseJudge, "rating": RatingJudge, "rubric": RubricJudge}[prompt.kind]
    return made(model, prompt, AnswerStore() if store is None else store, seed)


def compared_by_rating(judge: Rater, comparisons: Sequence[Comparison]) -> list[Verdict]:
    """Verdicts from ratings: the probability that a draw from the first answer's rating is above one from the second's, ties counting half."""
    ratings = judge.rate([answer for one in comparisons for answer in one.answers])
    found: list[Verdict] = []
    for first, second in zip(ratings[::2], ratings[1::2], strict=True):
        readings = (*_named(first, "first"), *_named(second, "second"))
        reason = first.invalid or second.invalid
        probability = None if reason else preferred(first.distribution, second.distribution)
        found.append(Verdict(probability, readings, judge.name, judge.source, invalid=reason))
    return found


def clamped(probability: float, ends: tuple[float, float] | None) -> float:
    """The probability kept inside the ends; None leaves it."""
    return probability if ends is None else min(max(probability, ends[0]), ends[1])


def sums(parts: Sequence[tuple[int, float]]) -> dict[float, float]:
    """The distribution of a sum of independent weights, each of which counts with its probability."""
    found = {0.0: 1.0}
    for weight, probability in parts:
        grown: dict[float, float] = {}
        for total, share in found.items():
            grown[total] = grown.get(total, 0.0) + share * (1 - probability)
            grown[total + weight] = grown.get(total + weight, 0.0) + share * probability
        found = grown
    return found


def _reading(
    question: Question,
    answer: Answer,
    asked: str,
    probabilities: dict[str, float] | None,
    value: float | None,
    status: str,
    mass: float | None,
    *,
    clamped: bool = False,
) -> Reading:
    paid = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens, "cost": answer.cost}
    return Reading(asked, probabilities, value, status, mass, clamped, question.hash, answer.text, answer.model, **paid)


def _named(rating: Rating, which: str) -> tuple[Reading, ...]:
    """The readings of one answer, saying which it is."""
    return tuple(Reading(**{**vars(one), "asked": which if one.asked == "answer" else f"{which}: {one.asked}"}) for one in rating.readings)
