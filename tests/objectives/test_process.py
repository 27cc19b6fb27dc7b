"""Known answers for process rewards: aggregation, PURE's softmin, the step loss, and that padding a solution does not pay."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

from accord.errors import ShapeError
from accord.objectives import process
from accord.objectives.process import AGGREGATIONS


def d(*values: float) -> Tensor:
    return tensor(values, dtype=torch.float64)


def one(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("min", 0.3),
        ("product", 0.2052),  # 0.9 * 0.8 * 0.3 * 0.95
        ("last", 0.95),
        ("mean", 0.7375),
        ("log_odds", math.log(0.9 / 0.1) + math.log(0.8 / 0.2) + math.log(0.3 / 0.7) + math.log(0.95 / 0.05)),  # 5.680660
    ],
)
def test_aggregations(how: str, expected: float) -> None:
    found = AGGREGATIONS[how](d(0.9, 0.8, 0.3, 0.95), one(4))
    assert found.shape == (1,) and float(found) == pytest.approx(expected, abs=1e-10)


def test_log_odds_golden() -> None:
    assert float(process.log_odds(d(0.9, 0.8, 0.3, 0.95), one(4))) == pytest.approx(5.680660, abs=1e-6)
    assert process.log_odds(d(0.0, 1.0), tensor([0, 1])).isfinite().all()


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_solutions_end_to_end_are_solutions_alone(how: str) -> None:
    parts = [d(0.9, 0.2), d(0.6), d(0.4, 0.7, 0.1)]
    together = AGGREGATIONS[how](torch.cat(parts), tensor([0, 0, 1, 2, 2, 2]))
    alone = torch.cat([AGGREGATIONS[how](part, one(len(part))) for part in parts])
    assert torch.allclose(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_every_step_matters_where_it_should(how: str) -> None:
    """Gradients: of the minimum to the worst step alone, of the last to the last, of the others to all."""
    values = d(0.9, 0.3, 0.8).requires_grad_()
    AGGREGATIONS[how](values, one(3)).sum().backward()
    assert values.grad is not None
    expected = {"min": [False, True, False], "last": [False, False, True]}.get(how, [True] * 3)
    assert (values.grad != 0).tolist() == expected


def test_pure_golden() -> None:
    """exp(-14), exp(-13), 1 and exp(-11) over their sum: the worst step has 0.99998 of the weight."""
    rewards = d(0.9, 0.8, -0.5, 0.6)
    weights = process.softmin_weights(rewards, one(4), temperature=0.1)
    parts = [math.exp(-14), math.exp(-13), 1.0, math.exp(-11)]
    assert torch.allclose(weights, d(*parts) / sum(parts), rtol=0, atol=1e-12)
    assert float(weights[2]) == pytest.approx(0.99998, abs=5e-6)
    assert float(process.softmin_return(rewards, one(4), temperature=0.1)) == pytest.approx(-0.499978, abs=1e-6)
    assert float(process.softmin_return(rewards, one(4), temperature=1e9)) == pytest.approx(0.45, abs=1e-8)
    credits = process.softmin_credits(rewards, one(4), temperature=0.1)
    assert torch.allclose(credits, weights * rewards, rtol=0, atol=1e-12)


def test_softmin_of_far_apart_rewards_is_finite_in_half_types() -> None:
    found = process.softmin_return(tensor([30000.0, -30000.0, 5.0], dtype=torch.float16), one(3), temperature=1e-3)
    assert found.dtype == torch.float32 and float(found) == -30000.0


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6),
    filler=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6),
    temperature=st.floats(0.02, 1.0),
)
def test_padding_does_not_pay(steps: list[float], filler: list[float], temperature: float) -> None:
    """Filler never raises the minimum or the product, and the softmin by no more than T / e a step; it raises the sum by all it earns."""
    before, after = d(*steps), d(*steps, *filler)
    for how in ("min", "product"):
        assert float(AGGREGATIONS[how](after, one(len(after)))) <= float(AGGREGATIONS[how](before, one(len(before)))) + 1e-12
    plain, padded = (float(process.softmin_return(x, one(len(x)), temperature=temperature)) for x in (before, after))
    assert padded - plain <= len(filler) * temperature / math.e + 1e-12
    assert float(before.min()) - 1e-12 <= plain <= float(before.mean()) + 1e-12
    assert float(after.sum() - before.sum()) == pytest.approx(sum(filler))


def test_neutral_filler_golden() -> None:
    """Ten steps of 0.9 after a worst one of 0.3: the sum gains 9, the log-odds 22 nats, the minimum nothing, the softmin 0.014."""
    before, after = d(0.9, 0.8, 0.3, 0.95), d(0.9, 0.8, 0.3, 0.95, *[0.9] * 10)
    gains = {how: float(f(after, one(14)) - f(before, one(4))) for how, f in AGGREGATIONS.items()}
    assert gains["min"] == 0 and gains["product"] < 0
    assert gains["log_odds"] == pytest.approx(10 * math.log(9)) and float(after.sum() - before.sum()) == pytest.approx(9.0)
    softmin = [float(process.softmin_return(x, one(len(x)), temperature=0.1)) for x in (before, after)]
    assert 0 < softmin[1] - softmin[0] < 0.015


def test_step_cross_entropy() -> None:
    """log(1 + exp(-2)) for a right class ahead by 2, log 3 of three equal ones; the gradient is softmax minus the label."""
    assert float(process.step_cross_entropy(d(0.0, 2.0)[None], tensor([1]))) == pytest.approx(math.log1p(math.exp(-2.0)), abs=1e-12)
    assert float(process.step_cross_entropy(d(1.0, 1.0, 1.0)[None], tensor([0]))) == pytest.approx(math.log(3), abs=1e-12)
    logits = d(0.0, 2.0)[None].requires_grad_()
    process.step_cross_entropy(logits, tensor([1])).sum().backward()
    p = 1 / (1 + math.exp(2.0))
    assert logits.grad is not None and torch.allclose(logits.grad, d(p, -p)[None], rtol=0, atol=1e-12)
    assert process.step_cross_entropy(torch.zeros(1, 2, dtype=torch.bfloat16), tensor([0])).dtype == torch.float32


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError, match="same shape"):
        process.minimum(d(0.1, 0.2), one(3))
    with pytest.raises(ShapeError, match="without steps"):
        process.mean(d(0.1, 0.2), tensor([0, 2]))
    with pytest.raises(ShapeError, match="without steps"):
        process.softmin_return(d(), one(0), temperature=0.1)
    with pytest.raises(ShapeError, match="number of steps"):
        process.step_cross_entropy(torch.zeros(2, 2), one(3))
