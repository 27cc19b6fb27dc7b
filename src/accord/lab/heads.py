"""Reward heads learned from features alone: what `accord reward` does with a frozen backbone, without a model or files."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from accord.models.heads import RewardHeads, pair_weights
from accord.objectives.ranking import accuracy, bradley_terry
from accord.rollouts.random import shuffled


@dataclass
class Judged:
    """Judged pairs of answers."""

    better: Tensor
    """Features of the answer that was preferred. (N, F)"""
    worse: Tensor
    """Of the other one. (N, F)"""
    ids: list[str]

    def __add__(self, other: Judged) -> Judged:
        return Judged(torch.cat([self.better, other.better]), torch.cat([self.worse, other.worse]), self.ids + other.ids)


def fit_heads(
    judged: Judged,
    *,
    seed: int,
    heads: int = 5,
    width: int = 64,
    layer: int | None = None,
    context: bool = False,
    batch: int = 32,
    epochs: int = 20,
    rate: float = 1e-3,
    decay: float = 10.0,
) -> RewardHeads:
    """Heads of Bradley and Terry's loss, each on its own bootstrap; AdamW, a rate that falls to zero. Not normalised yet.

    Args:
        seed: of the weights, the bootstraps and the order of the pairs.
        layer, context: what the features are (`RewardHeads`).
    """
    features = torch.cat([judged.better, judged.worse])
    found = RewardHeads(features.shape[1], heads, width=width, layer=layer, context=context, seed=seed)
    found.standardise(features)
    weights = pair_weights(judged.ids, heads, seed=seed)
    optimizer = torch.optim.AdamW(found.parameters(), lr=rate, weight_decay=decay)
    total, step = epochs * -(-len(judged.ids) // batch), 0
    for epoch in range(epochs):
        order = torch.tensor(shuffled(len(judged.ids), "rows", seed, epoch))
        for rows in order.split(batch):
            optimizer.param_groups[0]["lr"] = rate * (1 - step / total)
            scores = found.raw(torch.cat([judged.better[rows], judged.worse[rows]]))
            losses = bradley_terry(scores[: len(rows)], scores[len(rows) :])
            loss = (losses * weights[rows] / weights[rows].sum(0).clamp_min(1e-9)).sum() / heads
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(found.parameters(), 1.0)
            optimizer.step()
            step += 1
    return found.requires_grad_(False)


@torch.no_grad()
def agreement(heads: RewardHeads, judged: Judged) -> float:
    """Share of pairs that the heads' mean puts in the judged order; ties are half."""
    return float(accuracy(heads(judged.better).mean(1), heads(judged.worse).mean(1)).mean())
