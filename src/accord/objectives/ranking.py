"""Losses that learn a score from comparisons, rankings and ties. Scores are larger for better answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.errors import ShapeError


def bradley_terry(better: Tensor, worse: Tensor, *, margin: Tensor | float = 0.0, probability: Tensor | float | None = None) -> Tensor:
    """-p log sigmoid(D - m) - (1 - p) log sigmoid(-D - m) with D = better - worse (Bradley and Terry 1952).

    The margin belongs to the label, whichever it is: exchanging the answers and p for 1 - p changes nothing.

    Args:
        better, worse: scores of the two answers, any equal shape.
        margin: strength m that the gap must exceed (Touvron et al. 2023); broadcast.
        probability: soft label; 0.5 is a tie, None is 1. Without a margin the minimum lies at D = logit(p). Broadcast.
    Returns:
        one loss a pair, the shape of the scores.
    """
    if better.shape != worse.shape:
        raise ShapeError(f"scores {tuple(better.shape)} and {tuple(worse.shape)} must have the same shape.")
    gap = better - worse
    if probability is None:
        return F.softplus(margin - gap)
    return probability * F.softplus(margin - gap) + (1 - probability) * F.softplus(margin + gap)


def robust_bradley_terry(
    gap: Tensor, *, flip_rate: float, margin: Tensor | float = 0.0, probability: Tensor | float | None = None
) -> Tensor:
    """[(1 - e) l(D) - e l(-D)] / (1 - 2 e): unbiased for the clean loss when a share e of labels is flipped (Natarajan et al. 2013).

    Unbounded below on a single pair: keep weight decay or stop early.

    Args:
        gap: D, score of the better answer minus that of the worse.
        flip_rate: e, 0 up to (not including) 0.5.
        margin: m in l(D) = -log sigmoid(D - m), for either label; broadcast.
        probability: soft label p: p times the loss above + (1 - p) times that of the opposite label. A tie (0.5) costs what it costs
            in `bradley_terry`; None is 1. Broadcast.
    """
    kept, flipped = F.softplus(margin - gap), F.softplus(margin + gap)
    share = (1 - flip_rate) / (1 - 2 * flip_rate)
    target = share if probability is None else probability * share + (1 - probability) * (1 - share)
    return target * kept + (1 - target) * flipped


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
        outcome: 1 if a won, 0.5 for a tie, 0 if b won. Anything between is a soft label p of a decided pair: p times the loss of a
            win + (1 - p) times that of a loss.
        log_nu: log of the tie parameter, may be learned. Scalar.
    """
    tie = log_nu + 0.5 * (better + worse)
    normaliser = torch.stack([better.expand_as(tie), worse.expand_as(tie), tie]).logsumexp(0)
    chosen = torch.where(outcome == 0.5, tie, outcome * better + (1 - outcome) * worse)
    return normaliser - chosen


def centering(better: Tensor, worse: Tensor) -> Tensor:
    """(better + worse)^2: keeps the mean score near 0 (Eisenstein et al. 2023, arXiv:2312.09244)."""
    return (better + worse) ** 2


def accuracy(better: Tensor, worse: Tensor) -> Tensor:
    """1 where the better answer scores higher, 0.5 on equal scores, else 0."""
    return (better > worse).double() + 0.5 * (better == worse).double()
