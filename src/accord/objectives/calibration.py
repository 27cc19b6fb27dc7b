"""Does a confidence mean what it says: reliability, expected calibration error, temperature, isotonic regression."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.errors import ShapeError


def reliability_table(gaps: Tensor, *, bins: int = 5) -> list[dict[str, float]]:
    """How sure the model was against how often it was right, for score gaps D of pairs (better minus worse).

    Confidence is sigmoid(|D|), 0.5 to 1, cut into equal bins; right is D > 0 (0.5 on D = 0). Empty bins are left out.
    """
    confidence = torch.sigmoid(gaps.abs())
    right = (gaps > 0).double() + 0.5 * (gaps == 0).double()
    index = ((confidence - 0.5) * 2 * bins).long().clamp(0, bins - 1)
    rows: list[dict[str, float]] = []
    for bin_index in range(bins):
        inside = index == bin_index
        if bool(inside.any()):
            rows.append(
                {
                    "confidence": float(confidence[inside].double().mean()),
                    "accuracy": float(right[inside].mean()),
                    "count": int(inside.sum()),
                }
            )
    return rows


def expected_calibration_error(table: list[dict[str, float]]) -> float:
    """Mean of |accuracy - confidence| over bins, weighted by their counts (Naeini et al. 2015)."""
    count = sum(row["count"] for row in table)
    return sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in table) / count if count else 0.0


def brier(gaps: Tensor) -> float:
    """Mean of (1 - sigmoid(D))^2 over pairs: 0 is perfect, 0.25 is a coin."""
    return float(((1 - torch.sigmoid(gaps.double())) ** 2).mean())


def fit_temperature(gaps: Tensor, *, steps: int = 50) -> float:
    """The tau > 0 that minimises the mean of -log sigmoid(D / tau): Newton on 1 / tau (Guo et al. 2017).

    Returns:
        tau. Gaps that are all positive have no finite optimum; 1 / tau is then bounded at 100.
    """
    gaps = gaps.double()
    inverse = torch.ones((), dtype=torch.float64)
    for _ in range(steps):
        probability = torch.sigmoid(-inverse * gaps)
        slope = -(probability * gaps).mean()
        curvature = (probability * (1 - probability) * gaps * gaps).mean()
        inverse = (inverse - slope / curvature.clamp_min(1e-12)).clamp(1e-3, 100.0)
    # Newton can overshoot on odd data; never return something worse than leaving the scores alone.
    before, after = F.softplus(-gaps).mean(), F.softplus(-inverse * gaps).mean()
    return float(1 / inverse) if after <= before else 1.0


def isotonic(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The non-decreasing function of the scores with the least squared error: pool adjacent violators (Ayer et al. 1955).

    Args:
        scores: what is to be calibrated, in any order; equal ones get one value. (n,)
        targets: what happened, 0 to 1. (n,)
    Returns:
        the mean score and the mean target of each pool, both ascending: `interpolated` reads between them.
    Raises:
        ShapeError: if the two differ in shape, or are empty.
    """
    if scores.shape != targets.shape or scores.dim() != 1 or not len(scores):
        raise ShapeError(f"scores {tuple(scores.shape)} and targets {tuple(targets.shape)} must have the same shape (n,), n > 0.")
    equal: dict[float, tuple[float, float]] = {}  # of each score, ascending: number and sum of targets
    for index in scores.argsort():
        score, target = float(scores[index]), float(targets[index])
        count, total = equal.get(score, (0.0, 0.0))
        equal[score] = (count + 1, total + target)
    pools: list[tuple[float, float, float]] = []  # number, sum of scores, sum of targets
    for score, (count, total) in equal.items():
        pool = (count, count * score, total)
        while pools and pools[-1][2] / pools[-1][0] >= pool[2] / pool[0]:
            before = pools.pop()
            pool = (before[0] + pool[0], before[1] + pool[1], before[2] + pool[2])
        pools.append(pool)
    number, score_sums, target_sums = torch.tensor(pools, dtype=torch.float64).unbind(1)
    return score_sums / number, target_sums / number


def interpolated(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The straight lines through the points (x, y), x ascending, read at some places; before the first and behind the last point they are level."""
    if len(x) == 1:
        return y.expand(at.shape)
    right = torch.searchsorted(x, at.double()).clamp(1, len(x) - 1)
    share = ((at - x[right - 1]) / (x[right] - x[right - 1])).clamp(0.0, 1.0)
    return y[right - 1] + share * (y[right] - y[right - 1])
