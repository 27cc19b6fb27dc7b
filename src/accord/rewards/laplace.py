"""How sure the last layer of a reward model is of an answer: Laplace's approximation of its posterior, given the comparisons it learned.

For Bradley-Terry the curvature at weights w is H = sum p (1 - p) d d' + prior, with d the difference of the two answers' last-layer features
and p the probability the model gives the label; the variance of a score is then f' H^-1 f, f measured from the mean of the answers that were
compared (Daxberger et al. 2021, arXiv:2106.14806; for reward models Yang et al. 2024, arXiv:2402.08114).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from accord.models.heads import RewardHeads
from accord.models.save import load_tensors
from accord.writing import whole_file

LAPLACE = "laplace.safetensors"
"""The file of a reward run that holds it."""


class LaplaceUncertainty:
    """Standard deviations of scores under the last layer's posterior.

    Args:
        center: mean last-layer features of the compared answers. (H, D), H the heads with features of their own (1: all share them)
        factor: the lower Cholesky factor of each posterior precision. (H, D, D)
    """

    def __init__(self, center: Tensor, factor: Tensor) -> None:
        self.center, self.factor = center, factor

    @classmethod
    @torch.no_grad()
    def fit(cls, heads: RewardHeads, better: Tensor, worse: Tensor) -> LaplaceUncertainty:
        """From the features of compared answers, each (Q, d). The prior is that of the initial weights: precision D + 1."""
        left, right = last_layer(heads, better), last_layer(heads, worse)
        apart = left - right
        margin = (heads.raw(better) - heads.raw(worse)).double().cpu().T  # (K, Q)
        chance = torch.sigmoid(margin)
        weight = chance * (1 - chance)
        weight = weight if len(apart) == len(weight) else weight.mean(0, keepdim=True)
        size = apart.shape[-1]
        precision = torch.einsum("hq,hqi,hqj->hij", weight, apart, apart) + (size + 1) * torch.eye(size, dtype=torch.float64)
        return cls(torch.cat([left, right], 1).mean(1).float(), torch.linalg.cholesky(precision).float())

    @torch.no_grad()
    def deviation(self, heads: RewardHeads, ends: Tensor) -> Tensor:
        """Of the normalised scores, their mean over heads. (C, d) to (C,)"""
        features = last_layer(heads, ends) - self.center.double()[:, None]
        solved = torch.linalg.solve_triangular(self.factor.double(), features.transpose(1, 2), upper=False)
        return (solved.square().sum(1).sqrt() / heads.spread.double().cpu()[:, None]).mean(0).float()

    def save(self, folder: Path) -> None:
        """Write it into a reward run's folder."""
        with whole_file(folder / LAPLACE) as partial:
            save_file({"center": self.center.contiguous(), "factor": self.factor.contiguous()}, partial)

    @classmethod
    def load(cls, folder: Path) -> LaplaceUncertainty | None:
        """What a reward run's folder holds; None where it holds none."""
        if not (folder / LAPLACE).exists():
            return None
        tensors: Mapping[str, Tensor] = load_tensors(folder / LAPLACE)
        return cls(tensors["center"], tensors["factor"])


def last_layer(heads: RewardHeads, ends: Tensor) -> Tensor:
    """What the last weights of each head multiply: the standardised features of all heads (1, C, d), or each one's hidden units (K, C, W)."""
    features = heads.standardised(ends).cpu()
    if not heads.width:
        return features.double()[None]
    hidden = F.gelu(torch.einsum("cd,kwd->kcw", features, heads.weight.cpu()) + heads.bias.cpu()[:, None])
    return hidden.double()
