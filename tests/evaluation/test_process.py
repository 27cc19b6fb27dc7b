"""ProcessBench's numbers by hand, with what its own script divides by zero."""

from __future__ import annotations

import pytest

from accord.evaluation.process import first_error_table, harmonic_mean, labelled_first_error, predicted_first_error


def test_f1() -> None:
    assert harmonic_mean(60, 90) == pytest.approx(72)
    assert harmonic_mean(0, 0) == 0


def test_first_errors() -> None:
    assert predicted_first_error([0.9, 0.49, 0.1]) == 1 and predicted_first_error([0.9, 0.5]) == -1 and predicted_first_error([]) == -1
    assert predicted_first_error([0.9, 0.5], threshold=0.95) == 0
    assert [labelled_first_error(x) for x in ([1, 0, -1, None], [1, 0, 1], [-1], [1, None, -1], [1, None])] == [2, -1, 0, None, None]


def test_table() -> None:
    """Erroneous: 1 found, 1 found too late, 1 missed. Correct: 1 of 2 left alone. F1 = 2 (1/3) (1/2) / (5/6) = 0.4."""
    table = first_error_table([1, 3, -1, -1, 0], [1, 2, 0, -1, -1])
    assert table == pytest.approx({"erroneous": 3, "accuracy_erroneous": 1 / 3, "correct": 2, "accuracy_correct": 0.5, "f1": 0.4})
    assert first_error_table([0, 1], [1, -1])["f1"] == 0
    assert first_error_table([0], [0]) == {"erroneous": 1, "accuracy_erroneous": 1.0, "correct": 0}
