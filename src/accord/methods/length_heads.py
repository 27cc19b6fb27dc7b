"""A second head beside each reward head that explains what length does for a comparison, so that the first need not (ODIN).

Chen et al. 2024, arXiv:2402.07319: pairs are explained by the sum of both; the first head's correlation with length is driven to 0, the
second's to 1, and their directions apart. Only the first is ever asked for a score. Correlations are those of a whole optimizer step,
whatever micro-batches or processes it was cut into.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accord.data.packing import Unit
from accord.models.heads import RewardHeads
from accord.objectives.mitigation import correlation, correlation_slopes, moments

WEIGHT = 1.0
"""Of the correlations and of the directions, beside the loss of the comparisons: the paper's value for both."""
SUMS = 6


class LengthHeads:
    """The second heads, on the same standardised features.

    Args:
        heads: the first ones, linear.
        seed: of the initial weights, which differ from those of the first heads.
    """

    def __init__(self, heads: RewardHeads, seed: int) -> None:
        count = heads.num_heads
        fresh = RewardHeads(heads.weight.shape[1], 2 * count, seed=seed).weight.detach()[count:]
        self.heads, self.weight = heads, nn.Parameter(fresh.clone().to(heads.weight.device))

    def raw(self, ends: Tensor) -> Tensor:
        """What length explains, (C, d) to (C, K)."""
        return self.heads.standardised(ends) @ self.weight.float().T

    def statistics(self, ends: Tensor, units: Sequence[Unit]) -> Tensor:
        """The sums of both heads over some units. (2, 6, K)"""
        length = lengths(units, ends.device)
        return torch.stack([moments(scores, length) for scores in (self.heads.raw(ends), self.raw(ends))])

    def penalty(self, quality: Tensor, length_scores: Tensor, units: Sequence[Unit], sums: Tensor, share: float) -> Tensor:
        """What is added to the loss: a part of it whose gradient, over the parts of a step, is that of the whole.

        Args:
            quality, length_scores: of the first and the second heads. (C, K)
            sums: `statistics` of the whole step. (2, 6, K)
            share: of the step's units that are here.
        """
        length = lengths(units, quality.device)
        first, second = (
            correlation_slopes(scores.detach(), length, sums[which].to(scores.device))
            for which, scores in enumerate((quality, length_scores))
        )
        sign = torch.sign(correlation(sums[0])).to(quality)
        apart = F.cosine_similarity(self.heads.weight.float(), self.weight.float(), dim=1).abs()
        return WEIGHT * ((sign * first * quality).sum(0) - (second * length_scores).sum(0) + share * apart).mean()


def lengths(units: Sequence[Unit], device: torch.device) -> Tensor:
    """Tokens of every answer. (C,)"""
    return torch.tensor([float(len(branch.ids)) for unit in units for branch in unit.branches], device=device)


def named(sums: Tensor) -> dict[str, float]:
    """The sums by name: what a step adds up over its processes."""
    return {f"length{index}": float(value) for index, value in enumerate(sums.flatten())}


def unnamed(totals: dict[str, float], heads: int) -> Tensor:
    """The inverse of `named`."""
    return torch.tensor([totals[f"length{index}"] for index in range(2 * SUMS * heads)], dtype=torch.float64).view(2, SUMS, heads)
