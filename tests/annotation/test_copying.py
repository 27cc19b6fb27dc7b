"""Whoever copies is found, and nobody else."""

from __future__ import annotations

import numpy as np
import pytest

from accord.annotation.copying import common_answers, suspects
from accord.annotation.judgements import TIE, Judgement

ACCURACIES = (0.8, 0.75, 0.7, 0.75, 0.65)


def team(items: int, seed: int, *, hard: float = 0.0, copied: float = 0.0) -> list[Judgement]:
    """Five annotators; on a share `hard` of the items all are nearly coins. The last takes over the second one's answer with probability `copied`."""
    generator = np.random.default_rng(seed)
    truth, difficult = generator.integers(0, 2, items), generator.random(items) < hard
    said = np.stack(
        [np.where(generator.random(items) < np.where(difficult, 0.52, accuracy), truth, 1 - truth) for accuracy in ACCURACIES],
        axis=1,
    )
    said[:, 4] = np.where(generator.random(items) < copied, said[:, 1], said[:, 4])
    return [Judgement(f"i{i}", f"a{a}", int(said[i, a])) for i in range(items) for a in range(5)]


@pytest.mark.parametrize(("items", "copied"), [(300, 0.9), (300, 0.6)])
def test_a_copy_is_found_and_nobody_else(items: int, copied: float) -> None:
    """Two who copy look most reliable, and to a truth made from votes the honest then look alike; so who else is named matters most."""
    for seed in range(4):
        found = suspects(team(items, seed, copied=copied))
        assert [(pair.first, pair.second) for pair in found] == [("a1", "a4")]
        assert found[0].correlation > found[0].expected + 0.2


def test_a_hundred_items_point_at_the_right_pair() -> None:
    """Too few to name them on every draw, but never anyone else."""
    for seed in range(6):
        judged = team(100, seed, copied=0.9)
        worst = common_answers(judged)[0]
        assert (worst.first, worst.second) == ("a1", "a4") and worst.p_value < 0.002
        assert {(pair.first, pair.second) for pair in suspects(judged)} <= {("a1", "a4")}


def test_honest_teams_are_not_suspected() -> None:
    """Twenty teams, of evenly hard and of mixed items: no suspect; ten pairs each, of which about one in ten has p below 0.1 (four deviations: 18.5 %)."""
    low = []
    for seed in range(20):
        judged = team(200, seed, hard=0.4 * (seed % 2))
        assert suspects(judged) == []
        low += [pair.p_value < 0.1 for pair in common_answers(judged)]
    assert len(low) == 200 and 0.0 < np.mean(low) < 0.185


def test_expected_correlation_by_hand() -> None:
    """Of annotators right with p and q the labels' correlation is (2 p - 1)(2 q - 1): 0.6 * 0.5 = 0.3 for the first two, found from everyone else's."""
    (pair,) = [one for one in common_answers(team(20_000, 1)) if (one.first, one.second) == ("a0", "a1")]
    assert pair.expected == pytest.approx(0.3, abs=0.03) and pair.correlation == pytest.approx(0.3, abs=0.03)
    assert pair.agreed / pair.items == pytest.approx(0.8 * 0.75 + 0.2 * 0.25, abs=0.015)


def test_ties_count_between_the_two_answers() -> None:
    generator = np.random.default_rng(5)
    tied = generator.random(1500) < 0.3
    judged = [
        Judgement(one.item, one.annotator, TIE if tie else one.value) for one, tie in zip(team(300, 3, copied=0.9), tied, strict=True)
    ]
    assert [(pair.first, pair.second) for pair in suspects(judged)] == [("a1", "a4")]


def test_too_little_to_tell() -> None:
    judged = team(300, 1, copied=1.0)
    assert common_answers([one for one in judged if one.annotator != "a0"]) == []
    assert common_answers(judged, least_items=301) == [] and suspects([]) == []
    constant = [Judgement(one.item, one.annotator, 1 if one.annotator == "a2" else one.value) for one in judged]
    assert not [pair for pair in common_answers(constant) if "a2" in (pair.first, pair.second)]
