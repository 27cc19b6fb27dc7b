"""Choosing among several answers to a prompt: unbiased pass@k and best-of-n from N samples, the KL of choosing, and votes.

The estimators average over every subset of n of the N answers, in closed form, so N answers tell of every n up to N.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from accord.errors import ShapeError


def pass_at_k(right: Tensor, *, k: int) -> Tensor:
    """P(at least one of k answers is right) = 1 - C(N - c, k) / C(N, k), where c of N are right (Chen et al. 2021, Eq. 1, arXiv:2107.03374).

    Unbiased, unlike 1 - (1 - c/N)^k, which is too low.

    Args:
        right: whether each answer is right: 0 or 1, or booleans. (P, N)
        k: answers a try, 1 to N.
    Returns:
        (P,), float64, 0 to 1.
    Raises:
        ShapeError: if `right` is no table, or k is not in 1 to N.
    """
    share = _subset_shares(right, k)
    return 1.0 - share[(right == 0).sum(1)]


def best_of_n_weights(scores: Tensor, *, n: int) -> Tensor:
    """P(each answer is the one chosen) when the highest score of n answers, drawn from the N without replacement, is chosen.

    With a answers below a score and b not above it, the highest of n has that score with probability (C(b, n) - C(a, n)) / C(N, n);
    the b - a answers that share it share that probability (Nakano et al. 2021, appendix I, arXiv:2112.09332, has it without ties).

    Args:
        scores: larger is better; -inf is chosen only where nothing else is there. (P, N)
        n: answers to choose from, 1 to N.
    Returns:
        (P, N), float64; each row adds up to 1.
    Raises:
        ShapeError: if `scores` is no table or has a NaN, or n is not in 1 to N.
    """
    share = _subset_shares(scores, n)
    if bool(scores.isnan().any()):
        raise ShapeError("scores have a NaN, which is no rank. Leave answers without a score out, or give them -inf.")
    below = (scores[:, None, :] < scores[:, :, None]).sum(2)
    not_above = (scores[:, None, :] <= scores[:, :, None]).sum(2)
    return (share[not_above] - share[below]) / (not_above - below)


def best_of_n(scores: Tensor, values: Tensor, *, n: int) -> Tensor:
    """What the answer with the highest score of n is worth: the mean over all subsets of n of the N answers, ties averaged.

    With `values` = `scores` it is the expected highest score; with true rewards, what choosing by a proxy earns (Gao et al. 2022,
    arXiv:2210.10760).

    Args:
        scores: what is chosen by, larger is better. (P, N)
        values: what the chosen answer is worth. (P, N)
        n: answers to choose from, 1 to N.
    Returns:
        (P,), float64.
    Raises:
        ShapeError: if the two differ in shape, or as in `best_of_n_weights`.
    """
    if scores.shape != values.shape:
        raise ShapeError(f"scores {tuple(scores.shape)} and values {tuple(values.shape)} must have the same shape (P, N).")
    return (best_of_n_weights(scores, n=n) * values.double()).sum(1)


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n, in nats: the KL of the best-of-n policy from the policy sampled from is at most this (Beirami et al. 2024,
    arXiv:2401.01879), and equals it where no two answers have the same score (Stiennon et al. 2020, appendix G.3, arXiv:2009.01325)."""
    return math.log(n) - (n - 1) / n


def votes(answers: Sequence[Hashable | None], weights: Sequence[float] | None = None) -> dict[Hashable, float]:
    """What each different answer has together, in the order in which they came first. None, no answer, has no vote.

    Args:
        answers: the final answers of several solutions to one problem.
        weights: a score for each solution, larger is better, 0 or more to make sense of a sum. None: 1 each.
    Raises:
        ShapeError: if answers and weights differ in length.
    """
    weights = [1.0] * len(answers) if weights is None else weights
    if len(weights) != len(answers):
        raise ShapeError(f"{len(answers)} answers and {len(weights)} weights: a vote needs one weight an answer.")
    totals: dict[Hashable, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + weight
    return totals


def majority_vote(answers: Sequence[Hashable | None]) -> Hashable | None:
    """The answer that most solutions give (self-consistency; Wang et al. 2022, arXiv:2203.11171); of a tie the one that came first.

    None where there is no answer.
    """
    return _winner(votes(answers))


def weighted_vote(answers: Sequence[Hashable | None], weights: Sequence[float]) -> Hashable | None:
    """argmax over a of the sum of the scores of the solutions that answer a (Wang et al. 2023, arXiv:2312.08935); arguments as `votes`.

    Of a tie the one that came first; None where there is no answer.
    """
    return _winner(votes(answers, weights))


def _winner(totals: dict[Hashable, float]) -> Hashable | None:
    return max(totals, key=lambda answer: totals[answer]) if totals else None


def _subset_shares(table: Tensor, n: int) -> Tensor:
    """C(m, n) / C(N, n) for m = 0 to N: how many of the subsets of n lie within m given answers. (N + 1,), float64"""
    if table.dim() != 2:
        raise ShapeError(f"expected a table of prompts and answers, (P, N), not {tuple(table.shape)}.")
    count = table.shape[1]
    if not 1 <= n <= count:
        raise ShapeError(f"{n} of {count} answers cannot be chosen: take 1 to {count}.")
    sizes = torch.arange(count + 1, dtype=torch.float64, device=table.device)
    share = torch.ones_like(sizes)
    for taken in range(n):
        share = share * (sizes - taken).clamp_min(0) / (count - taken)
    return share
