"""Reward models of the lab: logistic Bradley-Terry on features and random ReLU units, members fitted on bootstraps of noisy comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from accord.objectives.mitigation import log_sigmoid, mean_reward, uncertainty_weighted, worst_case


@dataclass(frozen=True)
class Comparisons:
    """Pairs with a label each, right or flipped."""

    first: Tensor
    """Features of the one answer. (N, F)"""
    second: Tensor
    """Features of the other. (N, F)"""
    first_wins: Tensor
    """1 or 0, noise included. (N,), float64"""

    def __add__(self, other: Comparisons) -> Comparisons:
        parts = ((self.first, other.first), (self.second, other.second), (self.first_wins, other.first_wins))
        return Comparisons(*(torch.cat(part) for part in parts))

    def pick(self, rows: Tensor) -> Comparisons:
        return Comparisons(self.first[rows], self.second[rows], self.first_wins[rows])


def noisy_labels(first_gold: Tensor, second_gold: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """1 where the first is better, flipped with probability `noise`. (N,)"""
    right = (first_gold > second_gold).double()
    flipped = torch.rand(len(right), generator=generator, dtype=torch.float64) < noise
    return torch.where(flipped, 1 - right, right)


class RewardModel:
    """w . [x, relu(x W + b)] with W and b random and fixed, w by penalised logistic regression on differences."""

    def __init__(self, features: int, hidden: int, generator: torch.Generator) -> None:
        self.weight = torch.randn(features, hidden, generator=generator, dtype=torch.float64) / features**0.5
        self.bias = torch.randn(hidden, generator=generator, dtype=torch.float64)
        self.out = torch.zeros(features + hidden, dtype=torch.float64)
        self.shift, self.scale = 0.0, 1.0

    def _expand(self, features: Tensor) -> Tensor:
        return torch.cat([features, torch.relu(features @ self.weight + self.bias)], 1)

    def fit(self, data: Comparisons, *, ridge: float, steps: int = 10) -> RewardModel:
        """Newton's method on the penalised log-likelihood of Bradley and Terry; returns itself."""
        table = self._expand(data.first) - self._expand(data.second)
        weights = torch.zeros_like(self.out)
        penalty = ridge * torch.eye(len(weights), dtype=torch.float64)
        for _ in range(steps):
            chance = torch.sigmoid(table @ weights)
            slope = table.T @ (chance - data.first_wins) + ridge * weights
            curvature = (table * (chance * (1 - chance))[:, None]).T @ table + penalty
            weights = weights - torch.linalg.solve(curvature, slope)
        self.out = weights
        return self

    def normalise(self, features: Tensor, weights: Tensor | None = None) -> RewardModel:
        """Mean 0 and deviation 1 on the reference's answers, each with its probability (alike without them); returns itself."""
        raw = self._expand(features) @ self.out
        share = torch.full_like(raw, 1 / len(raw)) if weights is None else weights
        self.shift = float((share * raw).sum())
        self.scale = max(float((share * (raw - self.shift).square()).sum().sqrt()), 1e-12)
        return self

    def __call__(self, features: Tensor) -> Tensor:
        return (self._expand(features) @ self.out - self.shift) / self.scale


def fit_members(data: Comparisons, count: int, hidden: int, ridge: float, generator: torch.Generator) -> list[RewardModel]:
    """Members of an ensemble, each with its own random units and a bootstrap of the comparisons."""
    members = []
    for _ in range(count):
        rows = torch.randint(len(data.first), (len(data.first),), generator=generator)
        members.append(RewardModel(data.first.shape[1], hidden, generator).fit(data.pick(rows), ridge=ridge))
    return members


def scores(members: Sequence[RewardModel], features: Tensor) -> Tensor:
    """(K, C)."""
    return torch.stack([member(features) for member in members])


Proxy = Callable[[Tensor], Tensor]
"""From members' scores (K, C), each of mean 0 and deviation 1 on the reference, to the reward that is maximised (C,)."""

PROXIES: dict[str, Proxy] = {
    "single": lambda members: members[0],
    "mean": mean_reward,
    "worst-case": worst_case,
    "uncertainty-weighted": lambda members: uncertainty_weighted(members, weight=2.0),
    "clipped": lambda members: members[0].clamp(max=3.0),
    "log-sigmoid": lambda members: log_sigmoid(members[0]),
}
"""Arms that differ in what they make of the same five members. One more is one more line."""
