"""T8.5 and what else keeps a learned reward in bounds, against arithmetic by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from accord.errors import ShapeError
from accord.objectives.mitigation import (
    bounded,
    disagreement,
    log_sigmoid,
    mean_reward,
    residual_of,
    uncertainty_weighted,
    worst_case,
)

TABLE = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, -2.0]], dtype=torch.float64)


def test_by_hand() -> None:
    assert mean_reward(TABLE).tolist() == [2.0, 0.0, 0.0]
    assert worst_case(TABLE).tolist() == [1.0, 0.0, -2.0]
    assert disagreement(TABLE).tolist() == [1.0, 0.0, 2.0]
    # Variances over K: 1, 0, 4.
    assert uncertainty_weighted(TABLE, weight=0.5).tolist() == [1.5, 0.0, -2.0]


def test_no_price_is_the_mean_exactly() -> None:
    table = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(uncertainty_weighted(table, weight=0.0), mean_reward(table))


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 1000), st.floats(0, 3))
def test_order_and_bounds(members: int, answers: int, seed: int, weight: float) -> None:
    table = torch.randn(members, answers, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mixed = table[torch.randperm(members, generator=torch.Generator().manual_seed(seed + 1))]
    assert bool((worst_case(table) <= mean_reward(table) + 1e-12).all() and (mean_reward(table) <= table.amax(0) + 1e-12).all())
    assert bool((uncertainty_weighted(table, weight=weight) <= mean_reward(table) + 1e-12).all())
    for combine in (mean_reward, worst_case, disagreement, lambda x: uncertainty_weighted(x, weight=weight)):
        torch.testing.assert_close(combine(table), combine(mixed), rtol=0, atol=1e-12)


@pytest.mark.parametrize("combine", [mean_reward, worst_case, disagreement, lambda x: uncertainty_weighted(x, weight=1.0)])
def test_a_member_that_fails_is_an_error(combine: object) -> None:
    table = TABLE.clone()
    table[1, 2] = math.nan
    with pytest.raises(ShapeError, match="NaN"):
        combine(table)  # type: ignore[operator]


def test_bounds() -> None:
    scores = torch.tensor([-50.0, 0.0, 50.0], dtype=torch.float64)
    assert bounded(scores).tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert log_sigmoid(scores).tolist() == pytest.approx([-50.0, math.log(0.5), 0.0])
    assert bounded(scores, 50.0)[2] == 0.5


def test_length_taken_out_of_a_reward() -> None:
    generator = torch.Generator().manual_seed(3)
    length, quality = (torch.randn(400, generator=generator, dtype=torch.float64) for _ in range(2))
    quality = quality - (quality * (length - length.mean())).sum() / (length - length.mean()).square().sum() * (length - length.mean())
    found = residual_of(2.0 + quality + 0.7 * length, length[:, None])
    torch.testing.assert_close(found - found.mean(), quality - quality.mean(), rtol=0, atol=1e-10)
    assert float(found.mean()) == pytest.approx(float((2.0 + quality + 0.7 * length).mean()))
    with pytest.raises(ShapeError, match="regression"):
        residual_of(torch.zeros(2), torch.zeros(2, 1))
