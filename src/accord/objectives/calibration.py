"""Does a confidence mean what it says: reliability, expected calibration error, temperature."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
