"""Losses that learn a score from comparisons, rankings and ties. Scores are larger for better answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.errors import ShapeError


def bradley_terry(
    better: Tensor, worse: Tensor, *, margin: Tensor | float | None = None, probability: Tensor | float | None = None
) -> Tensor:
    """-p log sigmoid(D) - (1 - p) log sigmoid(-D) with D = better - worse - margin (Bradley and Terry 1952).

    Args:
        better, worse: scores of the two answers, any equal shape.
        margin: strength that the gap must exceed (Touvron et al. 2023); broadcast.
        probability: soft label; 0.5 is a tie, None is 1. The minimum lies at D = logit(p). Broadcast.
    Returns:
        one loss a pair, the shape of the scores.
    """
    if better.shape != worse.shape:
        raise ShapeError(f"scores {tuple(better.shape)} and {tuple(worse.shape)} must have the same shape.")
    gap = better - worse if margin is None else better - worse - margin
    if probability is None:
        return F.softplus(-gap)
    return probability * F.softplus(-gap) + (1 - probability) * F.softplus(gap)


def robust_bradley_terry(gap: Tensor, *, flip_rate: float) -> Tensor:
    """[(1 - e) l(D) - e l(-D)] / (1 - 2 e): unbiased for the clean loss when a share e of labels is flipped (Natarajan et al. 2013).

    Unbounded below on a single pair: keep weight decay or stop early.
    """
    return ((1 - flip_rate) * F.softplus(-gap) - flip_rate * F.softplus(gap)) / (1 - 2 * flip_rate)


def k_wise(scores: Tensor, group: Tensor, ranks: Tensor) -> Tensor:
    """Mean Bradley-Terry loss over all pairs of each ranking, so that a ranking of K weighs 1 (Ouyang et al. 2022, Eq. 1, arXiv:2203.02155).

    Ties count as pairs with probability 0.5.

    Args:
        scores: (C,)
        group: which ranking each answer belongs to. (C,), int64
        ranks: 1 is best; equal ranks are ties. (C,), int64
    Returns:
        (number of rankings,)
    """
    first, second = torch.triu_indices(len(scores), len(scores), 1, device=scores.device)
    same = group[first] == group[second]
    first, second = first[same], second[same]
    gap = scores[first] - scores[second]
    order = torch.sign(ranks[second] - ranks[first]).to(scores.dtype)
    losses = 0.5 * (1 + order) * F.softplus(-gap) + 0.5 * (1 - order) * F.softplus(gap)
    num_groups = int(group.max()) + 1
    counts = torch.bincount(group[first], minlength=num_groups).clamp_min(1)
    return torch.zeros(num_groups, dtype=losses.dtype, device=losses.device).index_add(0, group[first], losses) / counts


def plackett_luce(scores: Tensor, group: Tensor, ranks: Tensor) -> Tensor:
    """-log P(ranking), P = product over places of exp(r) / sum of exp over those not yet placed (Plackett 1975). K = 2 is Bradley-Terry.

    Tied answers are placed together against everything at or below their rank (Breslow's treatment of ties).

    Args:
        scores: (C,)
        group: (C,), int64
        ranks: 1 is best. (C,), int64
    Returns:
        (number of rankings,)
    """
    remaining = (group[None, :] == group[:, None]) & (ranks[None, :] >= ranks[:, None])
    last = (
        ranks
        == torch.zeros(int(group.max()) + 1, dtype=ranks.dtype, device=ranks.device).scatter_reduce(
            0, group, ranks, "amax", include_self=False
        )[group]
    )
    alone = remaining.sum(1) == 1
    normaliser = scores[None, :].masked_fill(~remaining, float("-inf")).logsumexp(1)
    losses = torch.where(last & alone, torch.zeros_like(scores), normaliser - scores)
    return torch.zeros(int(group.max()) + 1, dtype=losses.dtype, device=losses.device).index_add(0, group, losses)


def davidson(better: Tensor, worse: Tensor, outcome: Tensor, log_nu: Tensor) -> Tensor:
    """-log of Davidson's (1970) probability of the outcome, ties having their own: P(tie) proportional to nu exp((a + b) / 2).

    Args:
        better, worse: scores a and b.
        outcome: 1 if a won, 0.5 for a tie, 0 if b won.
        log_nu: log of the tie parameter, may be learned. Scalar.
    """
    tie = log_nu + 0.5 * (better + worse)
    normaliser = torch.stack([better.expand_as(tie), worse.expand_as(tie), tie]).logsumexp(0)
    chosen = torch.where(outcome == 0.5, tie, torch.where(outcome == 1.0, better, worse))
    return normaliser - chosen


def centering(better: Tensor, worse: Tensor) -> Tensor:
    """(better + worse)^2: keeps the mean score near 0 (Eisenstein et al. 2023, arXiv:2312.09244)."""
    return (better + worse) ** 2


def accuracy(better: Tensor, worse: Tensor) -> Tensor:
    """1 where the better answer scores higher, 0.5 on equal scores, else 0."""
    return (better > worse).double() + 0.5 * (better == worse).double()
