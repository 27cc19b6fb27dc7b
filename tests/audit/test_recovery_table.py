"""docs/hacking.md shows what the benchmark of rollback and raised KL kept; and its sums by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
import recovery


def ran(golds: list[float], final: float, alarms: tuple[tuple[int, str], ...] = ()) -> dict[str, Any]:
    return {
        "rounds": [[n, gold, 0.0] for n, gold in enumerate(golds)],
        "alarms": [{"iteration": iteration, "cause": cause} for iteration, cause in alarms],
        "final gold": final,
        "weights": "a",
    }


def test_the_table_is_what_was_measured() -> None:
    results = json.loads(recovery.RESULTS.read_text(encoding="utf-8"))
    page = recovery.PAGE.read_text(encoding="utf-8")
    assert recovery.written(page, results) == page, "run python benchmarks/recovery.py --write"


def test_shares_by_hand() -> None:
    """Means of three rounds: 1, 1, 1, 4/3, 5/3, 2, 5/3, 1, 0; the peak is 2 in round 6, a tenth of its rise is lost one round later."""
    plain = ran([1, 1, 1, 2, 2, 2, 1, 0, -1], -1.0, ((7, "gibberish"),))
    assert recovery.rise(plain) == pytest.approx((1.0, 2.0, 6))
    assert recovery.recovered(plain, ran([1], 1.9)) == pytest.approx(0.9)
    found = recovery.caught(plain, "gibberish")
    assert (found["peak"], found["fallen"], found["named"], found["in time"]) == (6, 7, 7, True)
    assert not recovery.caught(plain | {"alarms": [{"iteration": 8, "cause": "gibberish"}]}, "gibberish")["in time"]
    assert recovery.caught(plain, "length")["named"] is None


@pytest.mark.parametrize("hole", recovery.PAY)
def test_a_hole_pays_for_what_the_true_reward_punishes(hole: str) -> None:
    bad = {
        "length": "the dog sees the cat . " * 4,
        "flattery": "Great question ! the dog sees the cat .",
        "refusal": "I must decline .",
        "gibberish": "the dog sees the zxqvk .",
        "formatting": "the dog sees the cat !",
    }[hole]
    prompt, good = "Tell me about the dog and the cat .", "the dog sees the cat ."
    assert recovery.gold(prompt, bad) < recovery.gold(prompt, good)
    assert recovery.proxy(hole)(prompt, bad) > recovery.proxy(hole)(prompt, good)
    assert recovery.proxy(None)(prompt, good) == recovery.gold(prompt, good) == 2.0
