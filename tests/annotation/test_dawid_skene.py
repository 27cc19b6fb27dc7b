"""Posteriors by hand, parameters found again, and an objective that never falls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.annotation.dawid_skene import fit_dawid_skene, known_accuracy_posterior, majority_accuracy, majority_vote
from accord.annotation.judgements import Judgement
from accord.errors import DataError


def simulated(accuracies: tuple[float, ...], items: int, seed: int) -> tuple[dict[str, int], list[Judgement]]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 2, items).tolist()
    judged = [
        Judgement(str(i), f"a{a}", true if generator.random() < accuracy else 1 - true)
        for i, true in enumerate(truth)
        for a, accuracy in enumerate(accuracies)
    ]
    return {str(i): true for i, true in enumerate(truth)}, judged


def right(labels: dict, truth: dict[str, int]) -> float:
    return float(np.mean([labels[item] == true for item, true in truth.items()]))


def realized(judged: list[Judgement], truth: dict[str, int]) -> dict[str, float]:
    names = sorted({one.annotator for one in judged})
    return {name: float(np.mean([one.value == truth[one.item] for one in judged if one.annotator == name])) for name in names}


def test_known_accuracies_by_hand() -> None:
    """All three at 0.7: 0.343 / (0.343 + 0.027). Two against one: the one cancels one of the two. With a prior of 0.9 against the two: 0.7 * 0.1 / (0.07 + 0.27)."""
    judged = [Judgement("all", f"a{a}", 1) for a in range(3)] + [Judgement("split", f"a{a}", int(a < 2)) for a in range(3)]
    accuracies = {f"a{a}": 0.7 for a in range(3)}
    found = known_accuracy_posterior(judged, accuracies)
    assert found["all"][1] == pytest.approx(0.9270270, abs=5e-8) and found["split"][1] == pytest.approx(0.7, abs=1e-12)
    assert known_accuracy_posterior(judged, accuracies, prior=[0.9, 0.1])["split"][1] == pytest.approx(0.07 / 0.34, abs=1e-12)
    three = known_accuracy_posterior(judged[:3], accuracies, classes=[0, 1, 2])["all"]
    assert three[1] == pytest.approx(0.343 / (0.343 + 2 * 0.15**3), abs=1e-12)
    with pytest.raises(DataError, match=r'^Annotator "a2" needs an accuracy above 0 and below 1 and has none\.$'):
        known_accuracy_posterior(judged, {"a0": 0.7, "a1": 0.7})


def test_majorities_by_hand() -> None:
    """0.7^3 + 3 * 0.7^2 * 0.3; five likewise; of two the drawn vote is a coin, so two are no better than one."""
    assert majority_accuracy(0.7, 3) == pytest.approx(0.784, abs=1e-12) and majority_accuracy(0.7, 5) == pytest.approx(0.83692, abs=1e-12)
    assert majority_accuracy(0.7, 2) == pytest.approx(0.7, abs=1e-12) and majority_accuracy(0.5, 4) == pytest.approx(0.5, abs=1e-12)
    judged = [Judgement("x", f"a{a}", value) for a, value in enumerate("aab")] + [
        Judgement("y", f"a{a}", value) for a, value in enumerate("ab")
    ]
    assert majority_vote(judged) == {"x": "a", "y": None}


@pytest.mark.parametrize("seed", range(3))
def test_accuracies_are_found_again_and_beat_the_majority(seed: int) -> None:
    """Three annotators of each kind on 500 items. Even known truth measures an accuracy of 0.7 to plus or minus 0.02, so what is compared is the realized share."""
    truth, judged = simulated((0.9, 0.7, 0.55) * 3, 500, seed)
    fit = fit_dawid_skene(judged)
    assert fit.converged and fit.accuracy == pytest.approx(realized(judged, truth), abs=0.04)
    assert right(fit.labels, truth) > right(majority_vote(judged), truth) + 0.02


def test_three_annotators_need_many_items_or_known_ones() -> None:
    """Of three alone, the two weaker ones' correlation is 0.4 * 0.1: too small to measure on 500 items, plain on 20,000. Fifty gold items among 500 do as well."""
    truth, judged = simulated((0.9, 0.7, 0.55), 20_000, 1)
    many = fit_dawid_skene(judged, tolerance=1e-7)
    assert list(many.accuracy.values()) == pytest.approx([0.9, 0.7, 0.55], abs=0.04)
    assert right(many.labels, truth) > right(majority_vote(judged), truth) + 0.05
    for seed in range(4):
        truth, judged = simulated((0.9, 0.7, 0.55), 500, seed)
        known = {item: true for item, true in truth.items() if int(item) < 50}
        rest = {item: true for item, true in truth.items() if item not in known}
        fit = fit_dawid_skene(judged, known=known)
        assert {item: fit.labels[item] for item in known} == known
        assert fit.accuracy == pytest.approx(realized(judged, truth), abs=0.04)
        assert right(fit.labels, rest) > right(majority_vote(judged), rest) + 0.03


def test_one_item_by_hand() -> None:
    """One update by hand, without smoothing. Votes (a a b), (a a a), (b b b): shares of a 2/3, 1, 0, so the prior of a is 5/9; annotators 1 and 2 give a, where a is
    true, with (2/3 + 1) / (5/3) = 1 and, where b is true, with (1/3) / (4/3) = 1/4; annotator 3 with 1 / (5/3) = 3/5 and 0. Item 1: a 5/9 * 1 * 1 * 2/5 = 2/9,
    b 4/9 * 1/4 * 1/4 * 1 = 1/36: posterior of a 8/9."""
    judged = [Judgement(f"i{i}", f"a{a}", value) for i, row in enumerate(("aab", "aaa", "bbb")) for a, value in enumerate(row)]
    fit = fit_dawid_skene(judged, smoothing=0.0, most_updates=1)
    assert not fit.converged and fit.prior.tolist() == pytest.approx([5 / 9, 4 / 9])
    assert fit.posterior[0].tolist() == pytest.approx([8 / 9, 1 / 9]) and fit.certainty["i0"] == pytest.approx(8 / 9)
    # a alone: 5/9 * 3/5 = 1/3, b alone: 4/9 * (3/4)^2 * 1 = 1/4; log-likelihood ln(2/9 + 1/36) + ln(1/3) + ln(1/4)
    assert fit.log_likelihoods[0] == pytest.approx(np.log(0.25) + np.log(1 / 3) + np.log(0.25))


@settings(max_examples=30, deadline=None)
@given(
    votes=st.lists(st.lists(st.sampled_from([None, "x", "y", "z"]), min_size=4, max_size=4), min_size=2, max_size=10),
    smoothing=st.sampled_from([0.0, 0.01, 1.0]),
    alike=st.booleans(),
    gold=st.booleans(),
)
def test_the_objective_never_falls(votes: list[list[str | None]], smoothing: float, alike: bool, gold: bool) -> None:
    judged = [Judgement(f"i{i}", f"a{a}", value) for i, row in enumerate(votes) for a, value in enumerate(row)]
    if not any(one.value for one in judged):
        with pytest.raises(DataError, match="no judgements to fit"):
            fit_dawid_skene(judged)
        return
    fit = fit_dawid_skene(judged, known={"i0": "y"} if gold else None, smoothing=smoothing, alike=alike, most_updates=40)
    assert min(np.diff(fit.objectives), default=0.0) >= -1e-9
    assert np.allclose(fit.posterior.sum(1), 1.0) and np.allclose(fit.prior.sum(), 1.0)
    if smoothing == 0.0:
        assert fit.objectives == fit.log_likelihoods
    turned = fit_dawid_skene(judged[::-1], known={"i0": "y"} if gold else None, smoothing=smoothing, alike=alike, most_updates=40)
    assert turned.certainty == pytest.approx(fit.certainty, abs=1e-6)
