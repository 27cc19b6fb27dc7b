"""What keeps a learned reward from being exploited: pessimism over an ensemble, bounds, and the part of a reward that length explains."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.errors import ShapeError


def mean_reward(members: Tensor) -> Tensor:
    """The members' mean. It averages noise out, and keeps an error that they share. (K, C) to (C,)."""
    return _checked(members).mean(0)


def worst_case(members: Tensor) -> Tensor:
    """The least of the members (Coste et al. 2023, arXiv:2310.02743, WCO). Never above the mean. (K, C) to (C,)."""
    return _checked(members).amin(0)


def uncertainty_weighted(members: Tensor, *, weight: float) -> Tensor:
    """mean - weight * variance over members (Coste et al. 2023, UWO), the variance over K, not K - 1.

    Args:
        members: scores on one scale, say each member normalised on reference answers. (K, C)
        weight: price of disagreement, 0 or more; 0 gives the mean exactly.
    Returns:
        (C,).
    """
    return _checked(members).mean(0) - weight * members.var(0, correction=0)


def disagreement(members: Tensor) -> Tensor:
    """Standard deviation over members (over K): what grows when a policy leaves the answers that labels covered. (K, C) to (C,)."""
    return _checked(members).std(0, correction=0)


def log_sigmoid(scores: Tensor, reference: Tensor | float = 0.0) -> Tensor:
    """log sigmoid(r - r_ref), at most 0: beyond the reference a reward earns ever less (Wang et al. 2024, arXiv:2402.00742)."""
    return F.logsigmoid(scores - reference)


def bounded(scores: Tensor, reference: Tensor | float = 0.0) -> Tensor:
    """sigmoid(r - r_ref), 0 to 1 (preference as reward: Fu et al. 2025, arXiv:2502.18770)."""
    return torch.sigmoid(scores - reference)


def residual_of(scores: Tensor, features: Tensor) -> Tensor:
    """Scores without what the features explain linearly (least squares with a constant), their mean kept.

    Args:
        scores: (C,)
        features: say the length of each answer. (C, F)
    Raises:
        ShapeError: if the two differ in C, or there are not more answers than features.
    """
    if features.dim() != 2 or len(scores) != len(features) or len(scores) <= features.shape[1] + 1:
        raise ShapeError(f"scores {tuple(scores.shape)} and features {tuple(features.shape)} do not make a regression.")
    centred = features - features.mean(0)
    slope: Tensor = cast("Any", torch.linalg).lstsq(centred, (scores - scores.mean())[:, None]).solution
    return scores - (centred @ slope)[:, 0]


def moments(scores: Tensor, lengths: Tensor) -> Tensor:
    """Sums from which the correlation of each head's scores with length follows: n, x, y, xx, yy, xy, with x the scores.

    They add up over parts of a batch and over processes.

    Args:
        scores: (C, K)
        lengths: (C,)
    Returns:
        (6, K), fp64.
    """
    x, y = scores.double(), lengths.double()[:, None].expand_as(scores)
    return torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y]).sum(1)


def correlation(sums: Tensor) -> Tensor:
    """Pearson's correlation of each head's scores with length, from `moments`; 0 where one of them does not vary. (6, K) to (K,)."""
    n, x, y, xx, yy, xy = sums
    spread = ((xx - x * x / n).clamp_min(0) * (yy - y * y / n).clamp_min(0)).sqrt()
    return torch.where(spread > 0, (xy - x * y / n) / spread.clamp_min(1e-300), torch.zeros_like(spread))


def correlation_slopes(scores: Tensor, lengths: Tensor, sums: Tensor) -> Tensor:
    """d correlation / d score over the whole batch that `sums` are of, for the scores at hand.

    With these as constants, sum(slope * score) over the parts of a batch has the gradient of the correlation, however it is cut.

    Args:
        scores, lengths: of some answers of the batch. (C, K), (C,)
        sums: `moments` of all of it. (6, K)
    Returns:
        (C, K); 0 for heads whose scores do not vary, or where lengths do not.
    """
    n, x, y, xx, yy, _ = sums
    across, along = (xx - x * x / n).clamp_min(0), (yy - y * y / n).clamp_min(0)
    centred, length = scores.double() - x / n, lengths.double()[:, None] - y / n
    slopes = length / (across * along).sqrt().clamp_min(1e-300) - correlation(sums) * centred / across.clamp_min(1e-300)
    return torch.where(across * along > 0, slopes, torch.zeros_like(slopes)).to(scores.dtype)


def _checked(members: Tensor) -> Tensor:
    if members.dim() != 2 or members.shape[0] < 1:
        raise ShapeError(f"members' scores are a table (K members, C answers), not {tuple(members.shape)}.")
    if bool(members.isnan().any()):
        raise ShapeError("a member of the ensemble gave a NaN: no reward can be made of it.")
    return members
