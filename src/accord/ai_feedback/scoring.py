"""Judges that are no language models: rules, any reward of accord's, reward models."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from accord.ai_feedback.judges import ScoreJudge
from accord.ai_feedback.verdicts import Answered
from accord.audit import detectors
from accord.errors import AccordError, ConfigError
from accord.models.opened import open_model
from accord.rewards.combine import RewardSource
from accord.rewards.learned import RewardModel
from accord.rewards.named import NAMED, reward_of
from accord.types import Completion, Example, Message, Rollout, content_hash

RULES: dict[str, tuple[Callable[[str], float], str]] = {
    "shorter": (lambda text: -float(detectors.word_count(text)), "fewer words"),
    "longer": (lambda text: float(detectors.word_count(text)), "more words: what length alone explains"),
    "no-flattery": (lambda text: -float(detectors.opens_with_flattery(text)) - detectors.flattery(text) / 100, "less praise, none first"),
    "no-refusal": (lambda text: -float(detectors.refuses(text)), "does not decline"),
    "no-repetition": (lambda text: -detectors.repetition(text), "fewer repeated word triples"),
    "readable": (lambda text: -detectors.gibberish(text), "more like English prose"),
}
"""Rules by name, larger is better; the words say which answer is preferred."""


def rule_judge(name: str) -> ScoreJudge:
    """A rule of `RULES`, a reward that comes with accord (`constraints`, `accuracy=numeric`), or `file.py:function`.

    Raises:
        ConfigError: if there is no such rule.
    """
    if name in RULES:
        rule = RULES[name][0]
        return ScoreJudge(lambda answers: [(rule(one.answer), "") for one in answers], f"rule:{name}", details={"rule": name})
    if ":" not in name and name.partition("=")[0] not in NAMED:
        near = difflib.get_close_matches(name, [*RULES, *NAMED], 1)
        hint = f"Did you mean {near[0]}?" if near else f"Rules: {', '.join([*RULES, *NAMED])}; your own: file.py:function."
        raise ConfigError(f"There is no rule {name!r}. {hint}")
    source = reward_of(name)
    return ScoreJudge(lambda answers: _scores(source, answers), f"rule:{Path(name).name}", details={"rule": name})


def reward_model_judge(folder: str, *, force: bool = False) -> ScoreJudge:
    """A reward model, which gives the answer with the higher score the probability sigmoid(gap) (Bradley and Terry 1952).

    Scores have variance 1 on a policy's answers, so the probability is only as well calibrated as `judge check` finds it.

    Raises:
        as opening a model does.
    """
    opened = open_model(folder, force=force)
    model = RewardModel.load(opened.policy, Path(folder), opened.renderer)

    def scores(answers: Sequence[Answered]) -> list[tuple[float | None, str]]:
        units = [opened.renderer.unit(_demonstration(one)) for one in answers]
        return [(score, "") for score in model.score(units).mean(1).tolist()]

    details = {"reward_model": folder, "stack": list(opened.stack)}
    return ScoreJudge(scores, Path(folder).name, "ai", lambda gap: 1 / (1 + math.exp(-gap)), details)


def _scores(source: RewardSource, answers: Sequence[Answered]) -> list[tuple[float | None, str]]:
    """What a reward says of each answer.

    Raises:
        AccordError: as the reward does, naming the judge's row.
    """
    rollouts = [_rollout(one) for one in answers]
    try:
        return [(score.value, score.error or "no score") for score in source.score(rollouts)]
    except AccordError as error:
        raise type(error)(f"The rule {source.name}: {error}") from error


def _rollout(one: Answered) -> Rollout:
    """An answer as rewards see sampled ones; it has no tokens."""
    prompt_id = content_hash([[message.role, message.content] for message in one.prompt])
    return Rollout(prompt_id, one.prompt, (), (), one.answer, (), "stop", columns=one.columns)


def _demonstration(one: Answered) -> Example:
    return Example("demonstration", one.prompt, (Completion((Message("assistant", one.answer),)),))
