"""docs/lab.md shows what level model found; and its sums by hand."""

from __future__ import annotations

import json
from typing import Any

import lab_page
import pytest


def ran(golds: list[float], alarm: int | None = None) -> dict[str, Any]:
    rounds = [{"gold": gold, "kl": float(n), "proxy": 1.0, "words": 5.0} for n, gold in enumerate(golds)]
    return {
        "rounds": rounds,
        "alarms": [{"iteration": alarm, "cause": "length"}] if alarm else [],
        "seconds": 60,
        "peak GB": 2.0,
    }


def test_the_table_and_the_picture_are_what_was_measured() -> None:
    results = json.loads(lab_page.RESULTS.read_text(encoding="utf-8"))
    page = lab_page.PAGE.read_text(encoding="utf-8")
    assert lab_page.written(page, results) == page, "run python benchmarks/lab_page.py --write"
    assert lab_page.PICTURE.read_text(encoding="utf-8") == lab_page.picture(results)


def test_heights_and_intervals_by_hand() -> None:
    """Means of up to three rounds: 0, 1.5, 2, 4, 3; nats 0, 0.5, 1, 2, 3."""
    assert lab_page.heights(ran([0, 3, 3, 6, 0])) == pytest.approx((0.0, 4.0, 2.0, 3.0))
    assert lab_page.interval([0.5]) == "0.50"
    assert lab_page.interval([1.0, 2.0, 3.0]) == "2.00 (-0.48 to 4.48)"  # 4.30 / sqrt(3)
    text = lab_page.table(
        {"single, KL 0.1, seed 0": ran([0, 3, 3, 6, 0], 4), "single, KL 0.1, seed 1": ran([0, 0, 0]), "gold, seed 0": ran([0, 9])}
    )
    assert text.splitlines()[2].startswith("| gold | 1 | 0.00, 4.50 (0), 4.50 | 0.00 | +1.00 | none |")
    assert "| single, KL 0.1 | 2 | 0.00, 2.00 (1), 1.50 | 0.50 (-5.86 to 6.86) | +1.00 | 4 (length), none |" in text
