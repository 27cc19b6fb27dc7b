"""Weak-to-strong (science T11.5, T11.7): the gap recovered, targets by hand, and a toy in which the strong model outgrows its supervisor."""

from __future__ import annotations

import pytest
import torch

from accord.errors import ShapeError
from accord.objectives.weak_to_strong import confident_target, gap_recovered, matching_threshold, ramped


def test_the_gap_recovered() -> None:
    assert gap_recovered(0.6, 0.7, 0.8) == pytest.approx(0.5)
    assert gap_recovered(0.6, 0.6, 0.8) == 0.0 and gap_recovered(0.6, 0.8, 0.8) == 1.0
    assert gap_recovered(0.6, 0.5, 0.8) == pytest.approx(-0.5)
    assert gap_recovered(0.7, 0.7, 0.7) is None and gap_recovered(0.7, 0.9, 0.7) is None


def test_targets_by_hand() -> None:
    """c = 0.25: 0.75 * 0.8 + 0.25 = 0.85 where the strong model agrees, 0.6 where it does not, 0.725 where it is undecided."""
    strong = torch.tensor([0.9, 0.1, 0.5], dtype=torch.float64, requires_grad=True)
    weak = torch.full((3,), 0.8, dtype=torch.float64)
    target = confident_target(weak, strong, confidence=0.25)
    assert target.tolist() == pytest.approx([0.85, 0.6, 0.725]) and not target.requires_grad
    assert confident_target(weak, strong, confidence=0.0).tolist() == pytest.approx([0.8] * 3)
    # Seen from the other answer, the target is 1 minus it.
    assert (1 - confident_target(1 - weak, 1 - strong, confidence=0.25)).tolist() == pytest.approx(target.tolist())


def test_the_threshold_keeps_the_balance() -> None:
    strong = torch.tensor([0.1, 0.2, 0.3, 0.4])
    for positive, expected in ((0, 0.7), (1, 0.35), (2, 0.25), (4, 0.05)):
        weak = (torch.arange(4) < positive).float()
        threshold = matching_threshold(strong, weak)
        assert threshold == pytest.approx(expected) and int((strong > threshold).sum()) == positive
    with pytest.raises(ShapeError):
        matching_threshold(strong, torch.ones(3))


def test_the_ramp_is_a_line_and_then_level() -> None:
    assert [ramped(step, 100, most=0.5, warmup=0.2) for step in (0, 5, 10, 20, 21, 99)] == pytest.approx([0, 0.125, 0.25, 0.5, 0.5, 0.5])
    assert ramped(0, 100, most=0.5, warmup=0.0) == 0.5


def test_a_strong_student_outgrows_a_supervisor_whose_errors_depend_on_the_class() -> None:
    """20 features decide. The supervisor calls 30 % of one class and 15 % of the other wrong, which also tilts the balance of the classes.

    A student that sees the features gets some of the gap back, and more of it where its own word counts too.
    """
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(20, generator=generator, dtype=torch.float64)
    train, test = (torch.randn(count, 20, generator=generator, dtype=torch.float64) for count in (3000, 3000))
    gold, held_out = (train @ truth > 0).double(), (test @ truth > 0).double()

    def supervised(labels: torch.Tensor) -> torch.Tensor:
        wrong = torch.rand(len(labels), generator=generator, dtype=torch.float64) < torch.where(labels > 0, 0.30, 0.15)
        return torch.where(wrong, 1 - labels, labels)

    def student(labels: torch.Tensor, confidence: float) -> float:
        weights = torch.zeros(21, dtype=torch.float64)
        rows = torch.cat((train, torch.ones(len(train), 1, dtype=torch.float64)), 1)
        for step in range(300):
            chance = torch.sigmoid(rows @ weights)
            coefficient = ramped(step, 300, most=confidence, warmup=0.2)
            target = confident_target(labels, chance, confidence=coefficient, threshold=matching_threshold(chance, labels))
            weights -= 2.0 * rows.T @ (chance - target) / len(rows)
        guess = torch.cat((test, torch.ones(len(test), 1, dtype=torch.float64)), 1) @ weights > 0
        return float((guess == (held_out > 0)).double().mean())

    weak = float((supervised(held_out) == held_out).double().mean())
    labels, ceiling = supervised(gold), student(gold, 0.0)
    plain, confident = (gap_recovered(weak, student(labels, confidence), ceiling) for confidence in (0.0, 0.5))
    assert weak < 0.8 and plain is not None and confident is not None and 0.2 < plain < confident <= 1.0
