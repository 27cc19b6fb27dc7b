"""Rewards made harder to exploit: pessimism over an ensemble's members, bounds, and what length explains taken away."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import torch

from accord.errors import ConfigError
from accord.objectives.mitigation import bounded, log_sigmoid, residual_of
from accord.rewards.combine import LearnedReward, RewardSource, as_source
from accord.rewards.learned import RewardModel
from accord.types import Score

HELD_OUT = "heldout"
"""The part of a score that says what a reward thinks that training does not use."""
UNSHAPED = "unshaped"
"""The part of a score that says what it was before it was shaped."""


def pessimistic(sources: Sequence[RewardSource], ensemble: str, weight: float) -> list[RewardSource]:
    """The sources, reward models among them combining their heads as told.

    Args:
        ensemble: mean, worst, uncertainty or laplace, as `LearnedReward.ensemble`.
        weight: price of doubt.
    Raises:
        ConfigError: if there is no reward model to combine, or one lacks what is asked of it.
    """
    if ensemble == "mean":
        return list(sources)
    learned = [source for source in sources if isinstance(source, LearnedReward) and not source.watched]
    if not learned:
        raise ConfigError(
            f"reward_ensemble={ensemble!r} is for reward models (--reward_model runs/...), and there is none. Leave it at mean."
        )
    for source in learned:
        if ensemble == "laplace" and source.others:
            raise ConfigError(f"{source.name} has several members, and reward_ensemble='laplace' is for one. Take worst or uncertainty.")
        if ensemble == "laplace" and source.model.laplace is None:
            raise ConfigError(
                f"{source.name} does not know how sure its last layer is: reward_ensemble='laplace' needs a reward model made with accord reward --laplace."
            )
        if ensemble != "laplace" and source.num_members < 2:
            raise ConfigError(
                f"{source.name} has one head: reward_ensemble={ensemble!r} needs several (accord reward --num-heads 5), or several runs (runs/a,runs/b,runs/c)."
            )
    return [
        replace(source, ensemble=ensemble, uncertainty_weight=weight)
        if isinstance(source, LearnedReward) and not source.watched
        else source
        for source in sources
    ]


def only_watched(item: Any) -> RewardSource:
    """A reward model, function or source that scores answers beside the reward and weighs nothing: the part `heldout`."""
    if isinstance(item, RewardModel):
        return LearnedReward(item, 0.0, HELD_OUT, watched=True)
    source = copy(as_source(item))
    source.weight, source.name = 0.0, HELD_OUT
    if isinstance(source, LearnedReward):
        source.watched = True
    return source


def shaped(scores: Sequence[Score], tokens: Sequence[int], groups: Sequence[int], how: str) -> list[Score]:
    """Scores as they are to be optimised; what they were stands in the part `unshaped`. Failures stay what they are.

    Args:
        tokens: length of each answer.
        groups: which prompt each answers.
        how: none, sigmoid, log_sigmoid (both around 0, the reference's mean where rewards are normalised on its samples) or residual: less what
            length and its logarithm explain among answers to one prompt, by least squares.
    """
    known = [index for index, score in enumerate(scores) if score.value is not None]
    if how == "none" or not known:
        return list(scores)
    values = torch.tensor([scores[index].value for index in known], dtype=torch.float64)
    if how == "residual":
        found = _without_length(values, [tokens[index] for index in known], [groups[index] for index in known])
    else:
        found = bounded(values) if how == "sigmoid" else log_sigmoid(values)
    values_now: list[float | None] = [None] * len(scores)
    for index, value in zip(known, found.tolist(), strict=True):
        values_now[index] = value
    return rewarded(scores, values_now)


def rewarded(scores: Sequence[Score], values: Sequence[float | None]) -> list[Score]:
    """Scores with other values; what they were at first stands in the part `unshaped`. None leaves a score as it is."""
    return [
        score if value is None else replace(score, value=value, parts={UNSHAPED: score.value, **score.parts})
        for score, value in zip(scores, values, strict=True)
    ]


def _without_length(values: torch.Tensor, tokens: Sequence[int], groups: Sequence[int]) -> torch.Tensor:
    """Values less what length explains within groups; each group keeps its mean. Too few answers to tell are left as they are."""
    lengths = torch.tensor(tokens, dtype=torch.float64)
    features = torch.stack([lengths, lengths.log1p()], 1)
    numbers: dict[int, int] = {}
    group = torch.tensor([numbers.setdefault(one, len(numbers)) for one in groups])
    counts = torch.bincount(group).double()
    if len(values) - len(numbers) <= features.shape[1] + 1:
        return values
    table = torch.cat([values[:, None], features], 1)
    means = torch.zeros(len(numbers), 3, dtype=torch.float64).index_add(0, group, table) / counts[:, None]
    centred = table - means[group]
    spread = centred[:, 1:].std(0).clamp_min(1e-9)
    if float(spread.max()) <= 1e-6:  # all are as long
        return values
    return residual_of(centred[:, 0], centred[:, 1:] / spread) + means[group, 0]
