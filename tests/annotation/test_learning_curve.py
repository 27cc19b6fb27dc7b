"""A known curve is found again, what cannot be known is refused, and each kind of ceiling has its words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.annotation.learning_curve import LearningCurve, Refusal, ceiling, fit_learning_curve, labels_to_go

SIZES = (100, 200, 400, 800, 1600, 3200)
CURVE = [(count, 0.8 - 1.2 * count**-0.4) for count in SIZES]


def test_a_known_curve() -> None:
    """0.8 - 1.2 n^-0.4 reaches 0.77 at n = (1.2 / 0.03)^2.5 = 10,119, so 6,919 after 3,200; the grid of powers leaves about 2 %."""
    found = fit_learning_curve(CURVE)
    assert isinstance(found, LearningCurve) and found.bends
    assert (found.ceiling, found.power) == (pytest.approx(0.8, abs=2e-3), pytest.approx(0.4, rel=0.01))
    assert found.gain_per_thousand == pytest.approx(1.2 * (3200**-0.4 - 4200**-0.4), rel=0.02)
    go = labels_to_go(CURVE, 0.77)
    assert go.labels == pytest.approx(6919, rel=0.03) and go.refusal is None and go.words.startswith("About 6,")
    assert labels_to_go(CURVE, 0.7).labels == 0


def test_refusals() -> None:
    rising = [(count, 0.6 + 0.02 * math.log(count / 100)) for count in SIZES]
    flat = [(count, 0.6 + noise) for count, noise in zip(SIZES, (0.01, -0.02, 0.02, -0.01, 0.015, -0.005))]
    for measured, target, refusal in (
        (CURVE[:3], 0.77, Refusal.TOO_FEW),
        ([(count + 1000, value) for count, value in CURVE[:5]], 0.77, Refusal.NARROW),
        (flat, 0.77, Refusal.NOT_RISING),
        ([(count, 1.2 - value) for count, value in CURVE], 0.77, Refusal.NOT_RISING),
        (CURVE, 0.9, Refusal.ABOVE_CEILING),
        (CURVE, 0.79, Refusal.TOO_FAR),  # (1.2 / 0.01)^2.5 = 157,744
        (rising, 0.7, Refusal.TOO_FAR),  # 100 e^5 = 14,841 is more than four times 3,200
    ):
        found = labels_to_go(measured, target)
        assert (found.labels, found.refusal) == (None, refusal) and str(refusal) in found.words


def test_a_line_in_log_labels() -> None:
    """0.6 + 0.02 ln(n / 100) reaches 0.68 at 100 e^4 = 5,460; a curve that hardly bends asks for a seventh more at most, because accuracies end at 1."""
    found = labels_to_go([(count, 0.6 + 0.02 * math.log(count / 100)) for count in SIZES], 0.68)
    assert found.labels is not None and 3200 + found.labels == pytest.approx(5460, rel=1 / 7)


@settings(max_examples=25, deadline=None)
@given(top=st.integers(65, 99), power=st.integers(10, 120), drop=st.integers(5, 40), seed=st.integers(0, 99))
def test_never_above_one_and_rising(top: int, power: int, drop: int, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.004, len(SIZES))
    measured = [(count, top / 100 - drop / 100 * (count / 100) ** (-power / 100) + float(wobble)) for count, wobble in zip(SIZES, noise)]
    found = fit_learning_curve(measured)
    if isinstance(found, LearningCurve):
        assert found.ceiling <= 1.0 and found.drop > 0 and found.at(100) < found.at(3200) < found.ceiling


@pytest.mark.parametrize(
    ("reward", "agreement", "train", "kind"),
    [
        (0.71, None, None, "unknown"),
        (0.60, 0.52, None, "labels"),
        (0.71, 0.74, None, "reached"),
        (0.80, 0.74, None, "reached"),
        (0.90, 0.74, None, "leak"),  # (1 + sqrt(0.48)) / 2 = 0.846
        (0.60, 0.74, 0.997, "by heart"),
        (0.60, 0.74, 0.70, "room"),
        (0.60, 0.74, None, "room"),
    ],
)
def test_ceilings(reward: float, agreement: float | None, train: float | None, kind: str) -> None:
    assert ceiling(reward, agreement, train_accuracy=train).kind == kind


def test_the_words_of_a_ceiling() -> None:
    assert ceiling(0.71, 0.74).words == (
        "Reward accuracy 0.71, annotators agree 0.74: it predicts a label as well as another annotator. More prompts will help, more epochs will not."
    )
    assert "the truth itself would reach 0.85" in ceiling(0.90, 0.74).words


def test_the_truth_predicts_what_the_formula_says() -> None:
    """Two annotators right with 0.8 agree with 0.68; the truth predicts either with 0.8, and 0.8 + margin is no leak."""
    assert ceiling(0.82, 0.68).kind == "reached" and ceiling(0.84, 0.68).kind == "leak"
