"""Who judges the pairs of a round when it is no person: a judge, which is any reward, or a simulated panel, which knows the truth and errs at a known rate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from accord.annotation.assign import arm_of, uniform
from accord.config.rounds import RoundsOptions
from accord.errors import ConfigError
from accord.models.opened import Opened
from accord.recipes.selection import Question
from accord.rewards.combine import FunctionReward, LearnedReward, RewardSource, combined
from accord.rewards.process import ProcessReward
from accord.rewards.sources import load_rewards
from accord.types import Annotation, AnnotationKind, LabelSource, Rollout, Score, content_hash

Verdict = Literal[0, 1, "tie"]
SOURCE = "label_source"
"""Attribute of a reward function or source that says whose labels its are: ai for one that asks a model. Without it they are a rule's."""


class Feedback(Protocol):
    """Labels without people."""

    source: LabelSource
    words: str
    """Who judges, for the page."""

    def label(self, questions: Sequence[Question], wanted: int) -> list[Annotation]:
        """What is said of each task; the same questions get the same annotations, ids and all.

        Args:
            wanted: annotators wanted for each task, where there are several.
        """
        ...

    def scores(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """What each answer is worth to who judges; None where it could not be scored."""
        ...


@dataclass
class Judge:
    """The sum of some rewards, which prefers the answer that earns more. It sees one answer at a time, so no order can sway it.

    An answer that cannot be scored makes its pair a skip with the reason, never a loss.
    """

    rewards: Sequence[RewardSource]
    source: LabelSource
    words: str

    def label(self, questions: Sequence[Question], wanted: int) -> list[Annotation]:
        who = f"judge:{_key(self.words)}"
        found: list[Annotation] = []
        for question, (first, second) in zip(questions, self._pairs(questions), strict=True):
            verdict = preferred(first, second)
            reason = first.error or second.error or "no score"
            found.append(_annotation(question, who, self.source, verdict, reason))
        return found

    def scores(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        return [score.value for score in combined(self.rewards, rollouts)]

    def _pairs(self, questions: Sequence[Question]) -> list[tuple[Score, Score]]:
        flat = combined(self.rewards, [rollout for question in questions for rollout in question.rollouts])
        return list(zip(flat[::2], flat[1::2], strict=True))


@dataclass
class Panel(Judge):
    """A judge whose scores are the truth, and members who each turn round a share of what it says. Ties stay ties.

    Whether a member errs depends on seed, member and task alone.
    """

    noise: float = 0.25
    """Share of choices that are turned round."""
    seed: int = 0

    def label(self, questions: Sequence[Question], wanted: int) -> list[Annotation]:
        found: list[Annotation] = []
        for question, (first, second) in zip(questions, self._pairs(questions), strict=True):
            truth = preferred(first, second)
            reason = first.error or second.error or "no score"
            for member in range(1, wanted + 1):
                said = truth if truth is None else turned(truth, self.noise, self.seed, member, question.task.id)
                found.append(_annotation(question, f"panel-{member}", self.source, said, reason))
        return found


def preferred(first: Score, second: Score) -> Verdict | None:
    """Which of two answers has the higher score; None where one has none."""
    if first.value is None or second.value is None:
        return None
    return "tie" if first.value == second.value else 0 if first.value > second.value else 1


def turned(truth: Verdict, noise: float, *key: object) -> Verdict:
    """The other answer in a share `noise` of all cases, which ones follows from the key; a tie stays one."""
    if truth == "tie" or uniform("flip", *key) >= noise:
        return truth
    return 0 if truth == 1 else 1


def feedback_of(rounds: RoundsOptions, opened: Opened, seed: int) -> Feedback | None:
    """The judge or the panel that the options name; None: people judge.

    Raises:
        ConfigError: if a reward is not there, or says that its labels have a source that is none.
        DataError: if a folder holds no reward model, or one on another base.
    """
    if rounds.feedback == "people":
        return None
    rewards = load_rewards(rounds.reward_model, rounds.reward, opened.policy, opened.renderer, aggregation="min")
    named = ", ".join([*(rounds.reward_model or []), *(rounds.reward or [])])
    if rounds.feedback == "judge":
        return Judge(rewards, source_of(rewards), f"a judge: {named}")
    return Panel(
        rewards, "simulated", f"a simulated panel: {named}, {100 * rounds.noise:g} % of its labels turned round", rounds.noise, seed
    )


def source_of(rewards: Sequence[RewardSource]) -> LabelSource:
    """Whose labels a sum of rewards gives: ai if a model has a part in it, else a rule's."""
    return "ai" if "ai" in map(_source_of, rewards) else "rule"


def _source_of(reward: RewardSource) -> str:
    if isinstance(reward, (LearnedReward, ProcessReward)):
        return "ai"
    says: Any = reward.function if isinstance(reward, FunctionReward) else reward
    stated = getattr(says, SOURCE, "rule")
    if stated not in get_args(LabelSource) or stated in ("human", "simulated"):
        raise ConfigError(f"Reward {reward.name} says that its labels come from {stated!r}; {SOURCE} is ai, debate or rule.")
    return str(stated)


def _annotation(question: Question, who: str, source: LabelSource, verdict: Verdict | None, reason: str) -> Annotation:
    task = question.task
    kind: AnnotationKind = "skip" if verdict is None else "pair"
    value: dict[str, Any] = {"reason": reason} if verdict is None else {"choice": verdict}
    key = content_hash(["feedback", who, task.id])
    return Annotation(key, task.id, kind, value, who, source=source, round=task.round, arm=arm_of(task.columns))


def _key(words: str) -> str:
    """A key that annotators may have, told apart by a hash where it had to be shortened."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", words.partition(": ")[2]).strip("-")
    return plain if len(plain) <= 40 else f"{plain[:30]}-{content_hash(words, 8)}"
