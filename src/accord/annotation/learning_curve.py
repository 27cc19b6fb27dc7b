"""What more labels would bring: a curve through the accuracies measured so far, the labels still to go, and the ceiling that annotators set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np


class Refusal(StrEnum):
    """Why the curve says nothing about labels that nobody has."""

    TOO_FEW = "fewer than four numbers of labels were measured"
    NARROW = "the largest number of labels is less than four times the smallest"
    NOT_RISING = "the accuracies rise no more than they scatter"
    ABOVE_CEILING = "the curve flattens below that accuracy"
    TOO_FAR = "it takes more than four times the labels measured, further than the curve can be trusted"


@dataclass(frozen=True)
class LearningCurve:
    """accuracy = ceiling - drop * labels^(-power)."""

    ceiling: float
    drop: float
    power: float
    scatter: float
    """Standard deviation of the measured accuracies around the curve."""
    most: int
    """The largest number of labels measured."""
    bends: bool
    """Whether a power inside the range searched fits best. False: so little bend that the ceiling is a guess; the curve is close to a line in log labels."""

    def at(self, labels: float) -> float:
        """Accuracy expected with so many labels."""
        return self.ceiling - self.drop * labels**-self.power

    @property
    def gain_per_thousand(self) -> float:
        """What the next 1,000 labels are expected to add. Under 0.002 they are better spent elsewhere."""
        return self.at(self.most + 1000) - self.at(self.most)


@dataclass(frozen=True)
class LabelsToGo:
    """How many more labels, or why nobody can say."""

    target: float
    """The accuracy that was asked for."""
    labels: int | None
    refusal: Refusal | None
    words: str
    curve: LearningCurve | None
    """What it was read from; None where none could be fitted."""

    @property
    def arithmetic(self) -> str:
        """The curve as a formula, and where it reaches the accuracy; empty where there is none."""
        if self.curve is None:
            return ""
        shape = self.curve
        formula = f"accuracy = {shape.ceiling:.5f} − {shape.drop:.5g} × labels^(−{shape.power:.4f})"
        if not self.labels:
            return f"{formula}; {shape.at(shape.most):.3f} at {shape.most:,}"
        reached = f"({shape.drop:.5g} / ({shape.ceiling:.5f} − {self.target:g}))^(1 / {shape.power:.4f})"
        return f"{formula}; labels = {reached} ≈ {shape.most + self.labels:,}, less the {shape.most:,} there are"


def fit_learning_curve(measured: Sequence[tuple[int, float]], *, powers: tuple[float, float] = (0.05, 2.0)) -> LearningCurve | Refusal:
    """Least squares for accuracy = a - b n^(-c), the power law of learning curves (Cortes et al. 1993), with a at most 1.

    Given c, a and b are linear; c is searched on 200 values. A c at the low end of the range is nearly a straight line in log n. Measure on the same
    held-out rows each time, so that their noise is shared, and average several draws of the training rows where you can.

    Args:
        measured: (labels trained on, held-out accuracy), labels at least 1; a number may occur several times.
        powers: lowest and highest c.
    Returns:
        The curve, or why there is none to trust: fewer than four numbers of labels, less than four times between the ends, no rise above twice the scatter.
    """
    labels = np.array([count for count, _ in measured], dtype=float)
    accuracy = np.array([value for _, value in measured], dtype=float)
    if len(set(labels.tolist())) < 4:
        return Refusal.TOO_FEW
    if labels.max() < 4 * labels.min():
        return Refusal.NARROW
    fits = []
    grid = np.geomspace(*powers, 200)
    for place, power in enumerate(grid):
        falling = labels**-power
        spread = falling - falling.mean()
        drop = -float(spread @ accuracy) / float(spread @ spread)
        ceiling = float(accuracy.mean() + drop * falling.mean())
        if ceiling > 1.0:
            ceiling, drop = 1.0, float(falling @ (1.0 - accuracy)) / float(falling @ falling)
        fits.append((float(((accuracy - ceiling + drop * falling) ** 2).sum()), place, ceiling, drop))
    error, place, ceiling, drop = min(fits)
    scatter = math.sqrt(error / max(1, len(labels) - 3))
    curve = LearningCurve(ceiling, drop, float(grid[place]), scatter, int(labels.max()), 0 < place < len(grid) - 1)
    rise = curve.at(labels.max()) - curve.at(labels.min())
    return curve if rise > max(2 * scatter, 1e-6) else Refusal.NOT_RISING


def labels_to_go(measured: Sequence[tuple[int, float]], target: float, *, reach: float = 4.0) -> LabelsToGo:
    """How many more labels reach an accuracy, read from the fitted curve.

    Args:
        measured: as for `fit_learning_curve`.
        target: held-out accuracy wanted, 0 to 1.
        reach: how many times the labels measured the curve may be followed; beyond that the answer is a refusal.
    """
    curve = fit_learning_curve(measured)
    if isinstance(curve, Refusal):
        return _refused(target, curve, None)
    if curve.at(curve.most) >= target:
        return LabelsToGo(target, 0, None, f"{target:.2f} is reached with the {curve.most:,} labels there are.", curve)
    # In logarithms: a flat curve that hardly misses the accuracy would need more labels than a float counts.
    needed = math.log(curve.drop / (curve.ceiling - target)) / curve.power if target < curve.ceiling else math.inf
    if needed <= math.log(reach * curve.most):
        more = math.ceil(math.exp(needed)) - curve.most
        words = f"About {more:,} more labels to {target:.2f}, if the curve goes on as it did up to {curve.most:,}."
        return LabelsToGo(target, more, None, words, curve)
    return _refused(target, Refusal.ABOVE_CEILING if curve.bends and target >= curve.ceiling else Refusal.TOO_FAR, curve)


def _refused(target: float, refusal: Refusal, curve: LearningCurve | None) -> LabelsToGo:
    return LabelsToGo(target, None, refusal, f"No number of labels for {target:.2f}: {refusal}.", curve)


@dataclass(frozen=True)
class Ceiling:
    """What stands between a reward model and higher accuracy."""

    kind: Literal["unknown", "labels", "leak", "reached", "by heart", "room"]
    words: str


def ceiling(reward_accuracy: float, agreement: float | None, *, train_accuracy: float | None = None, margin: float = 0.03) -> Ceiling:
    """What would help a reward model next, from its held-out accuracy and how often two annotators agree, both without ties.

    Another annotator predicts a label with the agreement rate g. The truth itself would do better: of annotators who are each right with probability q about
    two answers, two agree with g = q^2 + (1 - q)^2, so nothing honest predicts one person's labels more often than q = (1 + sqrt(2 g - 1)) / 2.

    Args:
        reward_accuracy: on held-out pairs with one label each, 0 to 1.
        agreement: of two annotators on the same pairs, 0 to 1; None where it could not be measured.
        train_accuracy: on the pairs it learned from; None: not known.
        margin: differences below it are taken for noise, in shares.
    """
    reached = f"Reward accuracy {reward_accuracy:.2f}"
    if agreement is None:
        return Ceiling("unknown", f"{reached}; how often annotators agree is not known. Have two people judge the same 50 pairs.")
    both = f"{reached}, annotators agree {agreement:.2f}"
    if agreement <= 0.5 + margin:
        return Ceiling("labels", f"{both}, hardly more than coins: clearer guidelines will help, more labels or epochs will not.")
    best = (1 + math.sqrt(2 * agreement - 1)) / 2
    if reward_accuracy > best + margin:
        return Ceiling(
            "leak",
            f"{both}: the truth itself would reach {best:.2f} on labels like these. Look for held-out pairs among the training rows.",
        )
    if reward_accuracy >= agreement - margin:
        return Ceiling(
            "reached", f"{both}: it predicts a label as well as another annotator. More prompts will help, more epochs will not."
        )
    if train_accuracy is not None and train_accuracy > best + margin:
        return Ceiling(
            "by heart",
            f"{both}, but {train_accuracy:.2f} on its own training pairs: it learns them by heart. More prompts or fewer epochs will help.",
        )
    return Ceiling("room", f"{both}: there is room below what people reach. More labels, a larger model or more epochs may help.")
