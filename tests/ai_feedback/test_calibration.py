"""Calibration on pairs: Platt's slope, isotonic regression against brute force, symmetric both, chosen by held-out loss."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch

from accord.ai_feedback.calibration import (
    LEAST,
    Calibration,
    best_calibration,
    calibration_error,
    cross_fitted,
    fitted,
    log_loss,
    logit,
)
from accord.errors import DataError, ShapeError
from accord.objectives.calibration import interpolated, isotonic


def overconfident(count: int, factor: float, seed: int = 0) -> list[float]:
    """Probabilities given to what people preferred, of a judge whose logits are `factor` times those by which it is right."""
    generator = random.Random(seed)
    found = []
    for _ in range(count):
        true = generator.gauss(0, 1.5)
        right = generator.random() < 1 / (1 + math.exp(-true))
        said = 1 / (1 + math.exp(-factor * true))
        found.append(said if right else 1 - said)
    return found


def best_monotone(targets: list[float]) -> list[float]:
    """The non-decreasing values with the least squared error, over all ways to cut the row into blocks of means."""
    best: tuple[float, list[float]] | None = None
    for cuts in itertools.product((False, True), repeat=len(targets) - 1):
        blocks: list[list[float]] = [[targets[0]]]
        for cut, target in zip(cuts, targets[1:], strict=True):
            blocks.append([target]) if cut else blocks[-1].append(target)
        means = [sum(block) / len(block) for block in blocks]
        if means != sorted(means):
            continue
        values = [mean for mean, block in zip(means, blocks, strict=True) for _ in block]
        error = sum((value - target) ** 2 for value, target in zip(values, targets, strict=True))
        if best is None or error < best[0] - 1e-12:
            best = error, values
    assert best is not None
    return best[1]


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_equals_brute_force(seed: int) -> None:
    generator = random.Random(seed)
    targets = [generator.random() for _ in range(9)]
    scores = sorted(generator.random() for _ in range(9))
    order = list(range(9))
    generator.shuffle(order)
    shuffled = (torch.tensor([values[i] for i in order], dtype=torch.float64) for values in (scores, targets))
    x, y = isotonic(*shuffled)
    blocks = best_monotone(targets)
    assert sorted(set(blocks)) == pytest.approx(y.tolist())
    assert x.tolist() == sorted(x.tolist()) and float(interpolated(x[:1], x, y)[0]) == pytest.approx(float(y[0]))


def test_isotonic_takes_equal_scores_together_and_refuses_nothing() -> None:
    x, y = isotonic(torch.tensor([0.2, 0.2, 0.7]), torch.tensor([1.0, 0.0, 1.0]))
    assert x.tolist() == pytest.approx([0.2, 0.7]) and y.tolist() == pytest.approx([0.5, 1.0])
    x, y = isotonic(torch.tensor([0.1, *[0.2] * 4]), torch.tensor([0.5, 0.0, 1.0, 1.0, 1.0]))
    assert y.tolist() == pytest.approx([0.5, 0.75])  # what comes first among equals does not matter
    x, y = torch.tensor([0.2, 0.7]), torch.tensor([0.5, 1.0])
    between = interpolated(torch.tensor([0.0, 0.2, 0.45, 0.9]), x, y)
    assert between.tolist() == pytest.approx([0.5, 0.5, 0.75, 1.0])
    with pytest.raises(ShapeError):
        isotonic(torch.zeros(0), torch.zeros(0))


def test_platt_finds_the_slope() -> None:
    """Logits three times too large: the temperature is 3, and the error falls to what 4,000 pairs leave."""
    said = overconfident(4000, 3.0)
    calibration = fitted("platt", said)
    assert calibration.temperature == pytest.approx(3.0, rel=0.1)
    after = [calibration(one) for one in said]
    assert calibration_error(said) > 0.1 and calibration_error(after) < 0.03 and log_loss(after) < log_loss(said)


def test_a_judge_that_is_worth_nothing_is_drawn_to_a_half() -> None:
    generator = random.Random(1)
    said = [generator.choice((0.95, 0.05)) for _ in range(1000)]
    assert fitted("platt", said)(0.95) == pytest.approx(0.5, abs=0.05) and fitted("isotonic", said)(0.95) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("kind", ["none", "platt", "isotonic"])
def test_calibrations_are_symmetric_and_keep_their_form(kind: str) -> None:
    calibration = fitted(kind, overconfident(500, 2.0))
    for one in (0.01, 0.3, 0.5, 0.77, 1.0):
        assert calibration(one) + calibration(1 - one) == pytest.approx(1.0, abs=1e-9)
    assert Calibration.from_dict(calibration.to_dict()) == calibration
    assert 0.0 < calibration(0.999) < 1.0 or kind == "none"


def test_the_best_kind_is_chosen_on_other_folds() -> None:
    assert best_calibration(overconfident(LEAST - 1, 4.0)).kind == "none"  # too few to fit
    assert best_calibration(overconfident(2000, 4.0)).kind != "none"
    said = overconfident(400, 4.0)
    held_out = cross_fitted("platt", said)
    assert held_out[0] == pytest.approx(fitted("platt", [one for index, one in enumerate(said) if index % 5])(said[0]))


def test_damaged_calibrations_are_one_line() -> None:
    with pytest.raises(DataError, match="accord judge check"):
        Calibration.from_dict({"kind": "platt"})


def test_logits_are_finite() -> None:
    assert logit(0.5) == 0.0 and math.isfinite(logit(0.0)) and logit(1.0) == pytest.approx(-logit(0.0))
