"""How reward falls behind its proxy as a policy moves away from its start: the laws of Gao et al., fitted and read.

With d = sqrt(KL(policy || start)) and R the true reward gained since the start (Gao et al. 2022, arXiv:2210.10760, Eq. 1 and 2):
best-of-n: R = d (a - b d); reinforcement learning: R = d (a - b ln d).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor

from accord.errors import ShapeError

Law = Literal["best-of-n", "rl"]


@dataclass(frozen=True)
class Fit:
    """A law with its two coefficients, and how far the data went."""

    law: Law
    a: float
    b: float
    r_squared: float
    largest: float
    """Largest sqrt(KL) among the data."""

    def __call__(self, distance: float) -> float:
        """R at sqrt(KL) = `distance`.

        Raises:
            ShapeError: beyond the data: the laws say nothing there that was measured.
        """
        if not 0 <= distance <= self.largest * (1 + 1e-9):
            raise ShapeError(f"sqrt(KL) = {distance:g} lies outside the data (0 to {self.largest:g}): nothing was measured there.")
        return distance * (self.a - self.b * (distance if self.law == "best-of-n" else math.log(distance))) if distance else 0.0

    @property
    def peak(self) -> float | None:
        """sqrt(KL) with the highest R: a / (2 b), or exp(a / b - 1). None if there is none within the data."""
        if self.b <= 0:
            return None
        at = self.a / (2 * self.b) if self.law == "best-of-n" else math.exp(min(self.a / self.b - 1, 700.0))
        return at if 0 < at <= self.largest else None


def fit_law(kl: Tensor, reward: Tensor, *, law: Law) -> Fit:
    """Least squares for a and b; both laws are linear in them and pass through the origin.

    Args:
        kl: nats from the start, not negative; points at 0 say nothing and are left out. (S,)
        reward: true reward minus that of the start. (S,)
        law: which of the two.
    Raises:
        ShapeError: if fewer than three points have a KL above 0, or a KL is negative.
    """
    if kl.shape != reward.shape or kl.dim() != 1 or bool((kl < 0).any()):
        raise ShapeError(f"kl {tuple(kl.shape)} and reward {tuple(reward.shape)} must be equally long, and no KL below 0.")
    distance, reward = kl.double().sqrt(), reward.double()
    distance, reward = distance[distance > 0], reward[distance > 0]
    if len(distance) < 3:
        raise ShapeError(f"a law of two coefficients wants three points with a KL above 0, not {len(distance)}.")
    shape = distance.square() if law == "best-of-n" else distance * distance.log()
    table = torch.stack([distance, -shape], 1)
    solution: Tensor = cast("Any", torch.linalg).lstsq(table, reward[:, None]).solution
    a, b = (float(value) for value in solution[:, 0])
    missed = (reward - table @ torch.tensor([a, b], dtype=torch.float64)).square().sum()
    spread = (reward - reward.mean()).square().sum()
    return Fit(law, a, b, float(1 - missed / spread) if float(spread) > 0 else 1.0, float(distance.max()))
