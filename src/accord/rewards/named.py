"""Rewards by name, as the command line takes them: `numeric`, `format*0.2`, `repetition*0.5`, or a function of your own."""

from __future__ import annotations

from accord.errors import ConfigError
from accord.rewards.accuracy import GRADERS, SEPARATE_GRADERS, AccuracyReward
from accord.rewards.combine import RewardSource, load_function, weighted
from accord.rewards.format import FormatReward
from accord.rewards.gym import GymReward
from accord.rewards.shaping import RepetitionPenalty

NAMES = (*GRADERS, *SEPARATE_GRADERS, "format", "repetition", "gym")


def named_reward(spec: str) -> RewardSource:
    """A reward by name, or `file.py:function`; `*0.5` behind either is its weight.

    numeric, choice, exact, normalized, symbolic and boxed are accuracy by that grader against the row's `answer`, `solution` or `gold`;
    format is <think>...</think><answer>...</answer> with a number in it, 0.1 if no weight is said; repetition is the penalty on
    repeated trigrams; gym is reasoning-gym's own score.

    Raises:
        ConfigError: if there is neither such a name nor such a function.
    """
    name, weight = weighted(spec)
    if ":" in name or name.endswith(".py"):
        return load_function(spec)
    if name in GRADERS or name in SEPARATE_GRADERS:
        return AccuracyReward(name, weight=weight)
    if name == "format":
        return FormatReward(weight=weight if "*" in spec else 0.1)
    if name == "repetition":
        return RepetitionPenalty(weight=weight)
    if name == "gym":
        return GymReward(weight=weight)
    raise ConfigError(f"There is no reward {name!r}. Rewards: {', '.join(NAMES)}, or file.py:function for your own.")
