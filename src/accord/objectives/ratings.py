"""Strengths of players from who beat whom: Bradley-Terry by maximum likelihood, which no order of the games can change (as Elo's updates do)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.errors import DataError, ShapeError

ELO_POINTS = 400 / math.log(10)
"""Points of the Elo scale in one nat: 400 points are odds of 10 to 1."""


def bradley_terry_strengths(wins: Tensor, names: Sequence[str], *, steps: int = 100, tolerance: float = 1e-9) -> Tensor:
    """The strengths s that maximise sum over i, j of wins[i, j] log sigmoid(s_i - s_j) (Bradley and Terry 1952), by Newton's method.

    Two players: their difference is the log of the odds. Multiply by `ELO_POINTS` for points.

    Args:
        wins: how often i beat j; shares of a win are fine, a tie is half a win for each. (K, K), 0 or more, the diagonal is not read.
        names: of the players, for errors. (K,)
        steps: Newton steps at most.
        tolerance: nats a step may still move at the end.
    Returns:
        (K,) float64, mean 0, larger is stronger.
    Raises:
        ShapeError: if the two do not fit.
        DataError: if there is no maximum: players who never met, even through others, or who never lost (or won) against the rest.
    """
    count = len(names)
    if wins.shape != (count, count) or count < 2:
        raise ShapeError(f"wins {tuple(wins.shape)} must be (K, K) for the {count} names, K > 1.")
    won = wins.double() * (1 - torch.eye(count, dtype=torch.float64))
    _check_connected(won > 0, names)
    strengths = torch.zeros(count, dtype=torch.float64)
    games = won + won.T
    for _ in range(steps):
        chance = torch.sigmoid(strengths[:, None] - strengths[None, :])
        slope = (won - games * chance).sum(1)
        weight = games * chance * (1 - chance)
        curvature = torch.diag(weight.sum(1)) - weight
        # The sum of all strengths is free: one more row of ones fixes it at 0.
        move = (curvature + 1 / count).inverse() @ slope
        move = move * min(1.0, 2.0 / max(float(move.abs().max()), 1e-12))  # far from the optimum Newton leaps too far
        strengths = strengths + move
        if float(move.abs().max()) < tolerance:
            break
    return strengths - strengths.mean()


def win_probability(difference: Tensor) -> Tensor:
    """sigmoid(s_i - s_j): the probability that i beats j."""
    return torch.sigmoid(difference)


def log_likelihood(wins: Tensor, strengths: Tensor) -> Tensor:
    """The sum that `bradley_terry_strengths` maximises, in nats. Scalar."""
    return (wins.double() * F.logsigmoid(strengths[:, None] - strengths[None, :])).fill_diagonal_(0.0).sum()


def _check_connected(beat: Tensor, names: Sequence[str]) -> None:
    """A maximum exists where everybody beat everybody, directly or through others (Ford 1957)."""
    reached = beat | torch.eye(len(names), dtype=torch.bool)
    met = reached | reached.T
    for _ in range(len(names)):
        reached = (reached.double() @ reached.double()) > 0
        met = (met.double() @ met.double()) > 0
    if not bool(met.all()):
        apart = [name for index, name in enumerate(names) if not bool(met[0, index])]
        raise DataError(f"{names[0]} and {', '.join(apart)} never met, not even through others: their ratings cannot be compared.")
    if not bool(reached.all()):
        # The group whose members nobody outside ever beat.
        top = int(reached.sum(1).argmax())
        group = [name for index, name in enumerate(names) if bool(reached[index, top])]
        raise DataError(f"{', '.join(group)} never lost to the others: no finite rating is the likeliest. More comparisons are needed.")
