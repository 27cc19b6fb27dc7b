"""Rewards that come with accord, by name: what `--reward` takes beside file.py:function."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any

from accord.errors import ConfigError
from accord.rewards.combine import RewardSource, load_function, weighted


def _accuracy(option: str) -> RewardSource:
    from accord.rewards.accuracy import AccuracyReward

    return AccuracyReward(option or "numeric")


def _format(option: str) -> RewardSource:
    from accord.rewards.format import FormatReward

    return FormatReward(readable=option or "number")


def _repetition(option: str) -> RewardSource:
    from accord.rewards.shaping import RepetitionPenalty

    return RepetitionPenalty(_whole("repetition", option or "3"))


def _constraints(option: str) -> RewardSource:
    from accord.rewards.constraints import ConstraintReward

    return ConstraintReward(all_or_nothing=_one_of("constraints", option or "share", ("share", "all")) == "all")


def _code(option: str) -> RewardSource:
    from accord.rewards.code import CodeReward

    if option:
        raise ConfigError(f"--reward code={option}: code takes no option; rows bring their tests.")
    return CodeReward()


def _gym(option: str) -> RewardSource:
    from accord.rewards.gym import GymReward

    if option:
        raise ConfigError(f"--reward gym={option}: gym takes no option; rows say which puzzle they are.")
    return GymReward()


def _judge(option: str) -> RewardSource:
    # Judges are built of models and rewards, so they stand above this module: it finds them by their path when one is named.
    return importlib.import_module("accord.ai_feedback.reward").judge_reward(option)


NAMED: dict[str, tuple[Callable[[str], RewardSource], str]] = {
    "accuracy": (
        _accuracy,
        "1 where the answer is the row's (answer, solution or gold): accuracy=numeric, symbolic, boxed, choice, exact or normalized",
    ),
    "format": (
        _format,
        "1 for <think>..</think><answer>..</answer> whose answer can be read: format=number, choice or text; weighs 0.1 unless said",
    ),
    "constraints": (_constraints, "share of a row's instructions that hold (IFEval's columns); constraints=all: all or nothing"),
    "code": (_code, "1 where a program passes the row's tests in the sandbox"),
    "gym": (_gym, "reasoning-gym's own score of its puzzles"),
    "judge": (_judge, "a judge's rating, -1 to 1: judge=MODEL, judge=URL#MODEL or judge=judge.yaml (docs/judges.md)"),
    "repetition": (_repetition, "0 down to -1 for repeated word triples: repetition=3"),
}
"""What each is, by the name that `--reward` takes."""


def reward_of(spec: str) -> RewardSource:
    """`name`, `name=option` or `file.py:function`, each with a weight behind a star or without.

    Raises:
        ConfigError: if there is no such reward, file or function, or an option has no meaning.
    """
    plain, weight = weighted(spec)
    name, _, option = plain.partition("=")
    if ":" in plain and name not in NAMED:
        return load_function(spec)
    if name not in NAMED:
        near = difflib.get_close_matches(name, NAMED, 1)
        hint = f"Did you mean {near[0]}?" if near else f"Those that come with accord: {', '.join(NAMED)}; your own: file.py:function."
        raise ConfigError(f"There is no reward {name!r}. {hint}")
    source: Any = NAMED[name][0](option)
    if "*" in spec:
        source.weight = weight
    return source


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"--reward {name}={text}: a whole number is needed.") from error


def _one_of(name: str, text: str, options: tuple[str, ...]) -> str:
    if text not in options:
        raise ConfigError(f"--reward {name}={text}: it takes {' or '.join(options)}.")
    return text
