"""T8.1: the laws of Gao et al. found again in noisy curves, their peaks by calculus, and nothing said beyond the data."""

from __future__ import annotations

import math

import pytest
import torch

from accord.errors import ShapeError
from accord.objectives.overoptimization import Fit, Law, fit_law


def curve(law: Law, a: float, b: float, noise: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    distance = torch.linspace(0.05, 4.0, 200, dtype=torch.float64)
    shape = distance if law == "best-of-n" else distance.log()
    reward = distance * (a - b * shape)
    return distance.square(), reward + noise * torch.randn(200, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("law", "a", "b"), [("best-of-n", 1.2, 0.3), ("rl", 0.9, 0.7)])
@pytest.mark.parametrize("seed", range(3))
def test_coefficients_come_back(law: Law, a: float, b: float, seed: int) -> None:
    fit = fit_law(*curve(law, a, b, 0.05, seed), law=law)
    assert fit.a == pytest.approx(a, rel=0.05) and fit.b == pytest.approx(b, rel=0.05)
    assert fit.r_squared > 0.9


def test_the_wrong_law_fits_worse() -> None:
    data = curve("rl", 0.9, 0.7, 0.02, 0)
    assert fit_law(*data, law="rl").r_squared > fit_law(*data, law="best-of-n").r_squared


def test_peaks() -> None:
    # d (a - b d) is highest at a / (2 b), where it is a^2 / (4 b); d (a - b ln d) at exp(a / b - 1), where it is b d.
    best = Fit("best-of-n", 1.2, 0.3, 1.0, 4.0)
    assert best.peak == pytest.approx(2.0) and best(2.0) == pytest.approx(1.2**2 / 1.2)
    learned = Fit("rl", 0.9, 0.7, 1.0, 4.0)
    at = math.exp(0.9 / 0.7 - 1)
    assert learned.peak == pytest.approx(at) and learned(at) == pytest.approx(0.7 * at)
    assert learned(0.0) == 0.0
    assert Fit("rl", 0.9, -0.1, 1.0, 4.0).peak is None and Fit("best-of-n", 1.2, 0.1, 1.0, 4.0).peak is None


def test_nothing_is_said_beyond_the_data() -> None:
    fit = fit_law(*curve("rl", 0.9, 0.7, 0.0, 0), law="rl")
    assert fit(4.0) == pytest.approx(4.0 * (0.9 - 0.7 * math.log(4.0)))
    with pytest.raises(ShapeError, match="outside the data"):
        fit(4.1)


def test_too_little_data() -> None:
    with pytest.raises(ShapeError, match="three points"):
        fit_law(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.0, 1.0, 1.0]), law="rl")
    with pytest.raises(ShapeError, match="no KL below 0"):
        fit_law(torch.tensor([-1.0, 1.0, 2.0]), torch.tensor([0.0, 1.0, 1.0]), law="rl")
