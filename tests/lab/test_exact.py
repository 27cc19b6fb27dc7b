"""T8.2: the exact lab against the independent oracle's table (means over six seeds there, twelve here; single seeds lie far apart)."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from accord.lab.exact import SIZES, Curve, World, best_of_n, kl, run, tilted
from accord.objectives.overoptimization import fit_law


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, list[Curve]]]:
    return run(seeds=12)


def mean(curves: list[Curve], name: str) -> list[float]:
    return [statistics.fmean(point) for point in zip(*(getattr(curve, name) for curve in curves), strict=True)]


def test_the_single_reward_model_is_over_optimised(found: dict[str, dict[str, list[Curve]]]) -> None:
    gold = mean(found["single"]["tilt"], "gold")
    proxy = mean(found["single"]["tilt"], "proxy")
    assert 0.5 < max(gold) < 1.6, "oracle: .90 at KL 1.7"
    assert gold[-1] < -5, "oracle: -12.2 at KL 11.7"
    assert all(b > a for a, b in zip(proxy, proxy[1:], strict=False)), "what is maximised never falls"
    best = mean(found["single"]["best-of-n"], "gold")
    assert max(best) > 1.0 and best[SIZES.index(65536)] < max(best) - 0.8, "oracle: 1.37 at n = 256, -.44 at 65,536"


def test_pessimism_stays_above_the_start(found: dict[str, dict[str, list[Curve]]]) -> None:
    """Now and then all five members share a hole, and then pessimism falls into it too: single seeds are counted, not averaged."""
    for arm, oracle in (("uncertainty-weighted", 1.33), ("worst-case", 0.49)):
        ends = [curve.gold[-1] for curve in found[arm]["tilt"]]
        assert statistics.median(ends) > 0.5 and sum(end > 0 for end in ends) >= 10, f"oracle's mean near KL 9: {oracle}"
        assert sum(curve.gold[-1] > 0 for curve in found["single"]["tilt"]) <= 8
        assert mean(found[arm]["best-of-n"], "gold")[SIZES.index(65536)] > 0.8, "oracle: 1.75 and 1.38"


def test_a_mean_delays_and_does_not_cure(found: dict[str, dict[str, list[Curve]]]) -> None:
    single, many = found["single"]["tilt"], found["mean"]["tilt"]
    assert max(mean(many, "gold")) > max(mean(single, "gold")) and mean(many, "gold")[-1] < 0.5 < max(mean(many, "gold"))


def test_the_control_has_no_hump(found: dict[str, dict[str, list[Curve]]]) -> None:
    for way in ("best-of-n", "tilt"):
        for curve in found["gold"][way]:
            assert all(b > a for a, b in zip(curve.gold, curve.gold[1:], strict=False))


def test_disagreement_rises_where_the_reward_falls(found: dict[str, dict[str, list[Curve]]]) -> None:
    doubt = mean(found["single"]["tilt"], "disagreement")
    assert doubt[-1] > 3 * doubt[0], "oracle: .49 to 3.1"


def test_the_law_fits_the_single_curve(found: dict[str, dict[str, list[Curve]]]) -> None:
    curves = found["single"]["tilt"]
    fit = fit_law(torch.tensor(mean(curves, "kl")), torch.tensor(mean(curves, "gold")), law="rl")
    assert fit.r_squared > 0.85 and fit.peak is not None


def test_best_of_n_is_exact() -> None:
    probability = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    # Best of 2 by 1, 2, 3: .25, .8^2 - .5^2 = .39, 1 - .64 = .36.
    found = best_of_n(probability, torch.tensor([1.0, 2.0, 3.0]), 2)
    assert found.tolist() == pytest.approx([0.25, 0.39, 0.36])
    # Two equals share theirs by what they had: .5^2 and 1 - .25 split 3 to 2.
    found = best_of_n(probability, torch.tensor([1.0, 2.0, 2.0]), 2)
    assert found.tolist() == pytest.approx([0.25, 0.75 * 0.6, 0.75 * 0.4])
    many = torch.full((20000,), 1 / 20000, dtype=torch.float64)
    chosen = best_of_n(many, torch.arange(20000.0), 16)
    assert kl(chosen, many) == pytest.approx(math.log(16) - 15 / 16, abs=1e-3)


def test_the_tilt_is_the_best_policy_for_its_price() -> None:
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(30, generator=generator, dtype=torch.float64)
    probability /= probability.sum()
    proxy = torch.randn(30, generator=generator, dtype=torch.float64)
    best = tilted(probability, proxy, 2.0)

    def worth(policy: torch.Tensor) -> float:
        return float((policy * proxy).sum()) - kl(policy, probability) / 2.0

    assert worth(best) == pytest.approx(float((probability * (2.0 * proxy).exp()).sum().log()) / 2.0)
    for _ in range(50):
        other = best * (1 + 0.2 * torch.rand(30, generator=generator, dtype=torch.float64))
        assert worth(other / other.sum()) < worth(best)


def test_the_same_seed_gives_the_same_curves() -> None:
    world = World(contexts=10, labels=100)
    assert run(world, seeds=1) == run(world, seeds=1)
    assert run(world, seeds=1) != run(world, seeds=1, first_seed=1)


def test_an_arm_of_ones_own() -> None:
    """One line adds an arm."""
    arms = run(World(contexts=10, labels=100), seeds=1, proxies={"softest": lambda members: members.median(0).values})
    assert set(arms) == {"softest", "gold"}
