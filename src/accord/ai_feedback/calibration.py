"""What a judge's probability is worth: fitted on comparisons that people judged too, applied to those they did not.

Everything here is symmetric: a calibrated probability of the swapped pair is 1 minus that of the pair. So Platt scaling has a slope and
no intercept, and isotonic regression sees every pair from both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from accord.errors import DataError
from accord.objectives.calibration import expected_calibration_error, fit_temperature, interpolated, isotonic, reliability_table

LEAST = 200
"""Pairs that people judged, below which nothing is fitted."""
FOLDS = 5
_EDGE = 1e-6


@dataclass(frozen=True)
class Calibration:
    """A map from a judge's probability to a calibrated one."""

    kind: str = "none"
    """none, platt or isotonic."""
    temperature: float = 1.0
    """platt: the logit is divided by it."""
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    """isotonic: points that are joined by straight lines."""

    def __call__(self, probability: float) -> float:
        if self.kind == "platt":
            return 1 / (1 + math.exp(-logit(probability) / self.temperature))
        if self.kind == "isotonic":
            points = (torch.tensor(side, dtype=torch.float64) for side in (self.x, self.y))
            return float(interpolated(torch.tensor([probability], dtype=torch.float64), *points))
        return probability

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able form."""
        return {"kind": self.kind, "temperature": self.temperature, "x": list(self.x), "y": list(self.y)}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Calibration:
        """The inverse of `to_dict`.

        Raises:
            DataError: if it is none.
        """
        try:
            return cls(str(stored["kind"]), float(stored["temperature"]), tuple(stored["x"]), tuple(stored["y"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"The calibration is damaged ({error!r}). Write it again: accord judge check.") from error


def logit(probability: float) -> float:
    """log(p / (1 - p)), with p kept a millionth away from 0 and 1."""
    kept = min(max(probability, _EDGE), 1 - _EDGE)
    return math.log(kept / (1 - kept))


def calibration_error(probabilities: Sequence[float], bins: int = 5) -> float:
    """Expected calibration error of pairs, from the probability that the judge gives to the answer that people preferred."""
    return expected_calibration_error(reliability_table(_gaps(probabilities), bins=bins))


def fitted(kind: str, probabilities: Sequence[float]) -> Calibration:
    """A calibration of one kind.

    Args:
        kind: none, platt or isotonic.
        probabilities: what the judge gives to the answer that people preferred, one a pair.
    """
    if kind == "platt":
        return Calibration(kind, fit_temperature(_gaps(probabilities)))
    if kind == "isotonic":
        both = torch.tensor([*probabilities, *(1 - one for one in probabilities)], dtype=torch.float64)
        happened = torch.cat((torch.ones(len(probabilities)), torch.zeros(len(probabilities)))).double()
        x, y = isotonic(both, happened)
        edge = 1 / (len(probabilities) + 2)  # a pool without an exception is not without any for ever
        return Calibration(kind, x=tuple(x.tolist()), y=tuple(y.clamp(edge, 1 - edge).tolist()))
    return Calibration()


def cross_fitted(kind: str, probabilities: Sequence[float], folds: int = FOLDS) -> list[float]:
    """Each pair's calibrated probability, from a calibration fitted on the other folds."""
    found = list(probabilities)
    for fold in range(folds):
        calibration = fitted(kind, [one for index, one in enumerate(probabilities) if index % folds != fold])
        for index in range(fold, len(probabilities), folds):
            found[index] = calibration(probabilities[index])
    return found


def best_calibration(probabilities: Sequence[float]) -> Calibration:
    """The kind with the least log loss on pairs it was not fitted on; none with fewer than 200 pairs."""
    if len(probabilities) < LEAST:
        return Calibration()
    losses = {kind: log_loss(cross_fitted(kind, probabilities)) for kind in ("none", "platt", "isotonic")}
    return fitted(min(losses, key=lambda kind: losses[kind]), probabilities)


def log_loss(probabilities: Sequence[float]) -> float:
    """Mean of -log p of what people preferred, nats a pair."""
    return -sum(math.log(max(one, _EDGE)) for one in probabilities) / len(probabilities)


def _gaps(probabilities: Sequence[float]) -> torch.Tensor:
    return torch.tensor([logit(one) for one in probabilities], dtype=torch.float64)
