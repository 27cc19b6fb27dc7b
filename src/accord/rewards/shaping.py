"""Rewards that shape how an answer is written: its length and its repetitions. Larger is better; penalties are at most 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

from accord.errors import ConfigError
from accord.rewards.combine import RewardSource
from accord.types import Rollout, Score


class OverlongPenalty:
    """Soft penalty for long answers; a `RewardSource`. DAPO's Eq. 13 (Yu et al. 2025, arXiv:2503.14476).

    0 up to max_length - cache tokens (the end token counts), falling linearly to -1 at max_length, -1 beyond it.

    Args:
        max_length: tokens at which the penalty is -1, more than `cache`.
        cache: tokens over which it falls, above 0.
    """

    def __init__(self, max_length: int, cache: int, *, weight: float = 1.0, name: str = "overlong") -> None:
        if not 0 < cache < max_length:
            raise ConfigError(f"OverlongPenalty: cache={cache} must be above 0 and below max_length={max_length}.")
        self.max_length, self.cache, self.weight, self.name = max_length, cache, weight, name

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        return [Score(self.penalty(len(rollout.completion_ids))) for rollout in rollouts]

    def penalty(self, length: int) -> float:
        """-1 to 0 for an answer of `length` tokens."""
        return max(-1.0, min(0.0, (self.max_length - self.cache - length) / self.cache))


class RepetitionPenalty:
    """Penalty for repeated word n-grams; a `RewardSource`. (As in Yeo et al. 2025, arXiv:2502.03373.)

    -(1 - different n-grams / all n-grams): 0 where none repeats, towards -1 where all are the same. A text of fewer than `size` words
    has none and gets 0.

    Args:
        size: words in an n-gram, 1 or more.
        weight: of this penalty in the sum; it is the largest possible loss.
    """

    def __init__(self, size: int = 3, *, weight: float = 1.0, name: str = "repetition") -> None:
        if size < 1:
            raise ConfigError(f"RepetitionPenalty: size={size} must be 1 or more.")
        self.size, self.weight, self.name = size, weight, name

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        return [Score(self.penalty(rollout.text)) for rollout in rollouts]

    def penalty(self, text: str) -> float:
        """-1 to 0 for a text."""
        words = text.lower().split()
        grams = list(zip(*(words[start:] for start in range(self.size))))
        return len(set(grams)) / len(grams) - 1.0 if grams else 0.0


class CosineLength:
    """An accuracy reward scaled by length; a `RewardSource` in its place. (The shape of Yeo et al. 2025, arXiv:2502.03373; the values
    are those of Open-R1's cosine reward.)

    A right answer gets from `right[0]` (no tokens) to `right[1]` (max_length) along a half cosine, any other from `wrong[0]` to
    `wrong[1]`: short right answers are worth more than long ones, and long wrong ones cost less than short ones. At `max_length`
    tokens or more it is `exceeded`. What could not be graded stays without a score.

    Args:
        accuracy: the reward that is scaled; its score 1 is right (above `threshold`).
        max_length: tokens, the end token counted, above 0.
        right, wrong: values at length 0 and at `max_length`.
        exceeded: value of answers that reach `max_length`.
    """

    def __init__(
        self,
        accuracy: RewardSource,
        max_length: int,
        *,
        right: tuple[float, float] = (1.0, 0.5),
        wrong: tuple[float, float] = (-1.0, -0.5),
        exceeded: float = -1.0,
        threshold: float = 0.5,
        weight: float = 1.0,
        name: str = "cosine",
    ) -> None:
        if max_length < 1:
            raise ConfigError(f"CosineLength: max_length={max_length} must be 1 or more.")
        self.accuracy, self.max_length, self.right, self.wrong, self.exceeded = accuracy, max_length, right, wrong, exceeded
        self.threshold, self.weight, self.name = threshold, weight, name

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        found: list[Score] = []
        for rollout, graded in zip(rollouts, self.accuracy.score(rollouts), strict=True):
            if graded.value is None:
                found.append(graded)
                continue
            value = self.scaled(len(rollout.completion_ids), is_right=graded.value > self.threshold)
            parts = {**graded.parts, self.accuracy.name: graded.value}
            found.append(Score(value, parts, explanation=graded.explanation))
        return found

    def scaled(self, length: int, *, is_right: bool) -> float:
        """The reward of an answer of `length` tokens. is_right: True reads `right`, False `wrong`."""
        if length >= self.max_length:
            return self.exceeded
        first, last = self.right if is_right else self.wrong
        return last + 0.5 * (first - last) * (1.0 + math.cos(math.pi * length / self.max_length))
