"""Known answers for process rewards: aggregation, PURE's softmin, the step loss, and that padding a solution does not pay."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

import enumeration as E
from accord.errors import ShapeError
from accord.objectives import process
from accord.objectives.process import AGGREGATIONS
from accord.objectives.segments import segment_reverse_cumsum, segment_sum


def d(*values: float) -> Tensor:
    return tensor(values, dtype=torch.float64)


def one(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64)


def lambert_w(x: float) -> float:
    """The w of 0 or more with w e^w = x, by halving."""
    low, high = 0.0, max(1.0, x)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * math.exp(middle) < x else (low, middle)
    return high


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
    """Filler never raises the minimum or the product, and the softmin by no more than T W(K / e); it raises the sum by all it earns."""
    before, after = d(*steps), d(*steps, *filler)
    for how in ("min", "product"):
        assert float(AGGREGATIONS[how](after, one(len(after)))) <= float(AGGREGATIONS[how](before, one(len(before)))) + 1e-12
    plain, padded = (float(process.softmin_return(x, one(len(x)), temperature=temperature)) for x in (before, after))
    assert padded - plain <= temperature * lambert_w(len(filler) / math.e) + 1e-12
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


def test_the_bound_on_padding_is_reached() -> None:
    """One wrong step and K fillers at min + T (1 + W(K / e)) gain exactly T W(K / e): 0.28 T, 1.16 T, 2.64 T for 1, 10, 100."""
    for count, rounded in ((1, 0.28), (10, 1.16), (100, 2.64)):
        w = lambert_w(count / math.e)
        values = d(0.2, *[0.2 + 0.1 * (1 + w)] * count)
        assert float(process.softmin_return(values, one(len(values)), temperature=0.1)) - 0.2 == pytest.approx(0.1 * w, abs=1e-12)
        assert w == pytest.approx(rounded, abs=0.005)


# -- credit for RL ------------------------------------------------------------------------------------------------------------------------


def test_step_credits_stand_where_steps_end() -> None:
    """Two answers of 5 and 3 tokens. The first has steps 0.9 and 0.1 ending at tokens 1 and 4, T = 0.4: so far 0.9, then
    -0.4 log(e^-2.25 + e^-0.25), a fall. Its outcome 0 and the second's 1 land on the last tokens with share 0.25."""
    completion, solution = tensor([0] * 5 + [1] * 3), tensor([0, 0, 1])
    found = process.step_credit_rewards(
        d(0.9, 0.1, 0.6), solution, tensor([1, 4, 6]), d(0.0, 1.0), completion, temperature=0.4, verifiable_share=0.25
    )
    first, second = 0.75 * 0.9, 0.75 * (-0.4 * math.log(math.exp(-2.25) + math.exp(-0.25)) - 0.9)
    assert torch.allclose(found, d(0, first, 0, 0, second, 0, 0.75 * 0.6, 0.25), rtol=0, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_what_an_answer_earns_in_all(share: float) -> None:
    """(1 - s) soft minimum + s outcome; at share 1 the steps do not matter, at share 0 the outcome does not."""
    completion, solution, ends = tensor([0, 0, 0, 1, 1]), tensor([0, 0, 1]), tensor([0, 2, 4])
    scores, outcome = d(0.2, 0.7, 0.4), d(1.0, 0.0)
    rewards = process.step_credit_rewards(scores, solution, ends, outcome, completion, temperature=0.2, verifiable_share=share)
    expected = (1 - share) * process.soft_minimum(scores, solution, temperature=0.2) + share * outcome
    assert torch.allclose(torch.stack([rewards[:3].sum(), rewards[3:].sum()]), expected, rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    filler=st.lists(st.floats(0, 1), min_size=1, max_size=30),
    share=st.floats(0, 0.9),
    temperature=st.floats(0.01, 0.5),
    data=st.data(),
)
def test_filler_steps_do_not_pay(steps: list[float], filler: list[float], share: float, temperature: float, data: st.DataObject) -> None:
    """However good filler looks and wherever it stands, an answer earns no more with it, nor do the tokens that write it behind the steps;
    the sum of scores gains all of it; and filler that spoils the outcome costs s."""

    def earned(scores: list[float], outcome: float) -> Tensor:
        count = len(scores)
        return process.step_credit_rewards(
            d(*scores), one(count), torch.arange(count), d(outcome), one(count), temperature=temperature, verifiable_share=share
        )

    where = data.draw(st.integers(0, len(steps)))
    padded = [*steps[:where], *filler, *steps[where:]]
    assert float(earned(padded, 1.0).sum()) <= float(earned(steps, 1.0).sum()) + 1e-12
    assert float(earned([*steps, *filler], 1.0)[len(steps) :].sum()) <= share + 1e-12  # the outcome, and nothing for the filler
    assert sum(padded) - sum(steps) == pytest.approx(sum(filler))
    assert float((earned(padded, 0.0)).sum()) <= float(earned(steps, 1.0).sum()) - share + 1e-12


def test_soft_minimum() -> None:
    """-T log sum exp(-r / T): T log K below K equal steps, between the minimum and that, of far-apart ones the minimum; its gradient is the
    softmin weights; credits end to end are those of each solution alone and add up to it."""
    assert float(process.soft_minimum(d(0.6, 0.6, 0.6), one(3), temperature=0.1)) == pytest.approx(0.6 - 0.1 * math.log(3), abs=1e-12)
    rewards = d(0.9, 0.8, -0.5, 0.6).requires_grad_()
    found = process.soft_minimum(rewards, one(4), temperature=0.1)
    assert float(found.detach()) == pytest.approx(-0.5 - 0.1 * math.log(math.exp(-14) + math.exp(-13) + 1 + math.exp(-11)), abs=1e-12)
    (gradient,) = torch.autograd.grad(found.sum(), rewards)
    assert torch.allclose(gradient, process.softmin_weights(rewards.detach(), one(4), temperature=0.1), rtol=0, atol=1e-12)
    parts = [d(0.9, 0.2), d(0.6), d(0.4, 0.7, 0.1)]
    solution = tensor([0, 0, 1, 2, 2, 2])
    credits = process.soft_minimum_credits(torch.cat(parts), solution, temperature=0.3)
    alone = torch.cat([process.soft_minimum_credits(part, one(len(part)), temperature=0.3) for part in parts])
    assert torch.allclose(credits, alone, rtol=0, atol=1e-12)
    totals = torch.zeros(3, dtype=torch.float64).index_add(0, solution, credits)
    assert torch.allclose(totals, process.soft_minimum(torch.cat(parts), solution, temperature=0.3), rtol=0, atol=1e-12)
    assert process.soft_minimum(tensor([30000.0, -30000.0], dtype=torch.float16), one(2), temperature=1e-3).tolist() == [-30000.0]


def test_reward_to_go_of_step_credits_has_the_exact_gradient() -> None:
    """All 27 sequences, each token a step whose score depends on what was written so far: the expected policy gradient with rewards-to-go is
    that of what answers earn, (1 - s) soft minimum + s outcome. With PURE's credits w_i r_i it is not, for these change after the fact."""
    logits = E.table(0)
    logprobs, probabilities = E.token_logprobs(logits), E.sequence_probabilities(logits)
    generator = torch.Generator().manual_seed(4)
    by_prefix = {}
    scores = d(*[
        by_prefix.setdefault(tuple(row[: t + 1]), float(torch.rand((), generator=generator, dtype=torch.float64)))
        for row in E.SEQUENCES.tolist()
        for t in range(E.LENGTH)
    ])  # fmt: skip
    outcome = torch.rand(27, generator=generator, dtype=torch.float64)
    tokens = process.step_credit_rewards(
        scores, E.COMPLETION, torch.arange(81), outcome, E.COMPLETION, temperature=0.2, verifiable_share=0.3
    )
    whole = 0.7 * process.soft_minimum(scores, E.COMPLETION, temperature=0.2) + 0.3 * outcome
    exact = E.gradient((probabilities * whole).sum(), logits)

    def estimated(rewards: Tensor) -> Tensor:
        to_go = segment_reverse_cumsum(rewards, E.COMPLETION)
        return E.gradient((segment_sum(to_go * logprobs, E.COMPLETION, 27) * probabilities.detach()).sum(), logits)

    assert torch.allclose(estimated(tokens), exact, atol=1e-10)
    weights = process.softmin_weights(scores, E.COMPLETION, temperature=0.2)
    pure = E.gradient((probabilities * process.softmin_return(scores, E.COMPLETION, temperature=0.2)).sum(), logits)
    assert E.cosine(estimated(weights * scores), pure) < 0.99


def test_credits_of_steps_that_are_not_there() -> None:
    good = {"temperature": 0.1, "verifiable_share": 0.1}
    completion, solution, ends, scores, outcome = tensor([0, 0, 1]), tensor([0, 1]), tensor([1, 2]), d(0.1, 0.2), d(1.0, 0.0)
    assert len(process.step_credit_rewards(scores, solution, ends, outcome, completion, **good)) == 3
    with pytest.raises(ShapeError, match="another completion"):
        process.step_credit_rewards(scores, solution, tensor([2, 2]), outcome, completion, **good)
    with pytest.raises(ShapeError, match="another completion"):
        process.step_credit_rewards(scores, solution, ends, outcome, tensor([0, 0, 1, 2]), **good)
    with pytest.raises(ShapeError, match="as many ends and outcomes"):
        process.step_credit_rewards(scores, solution, ends, d(1.0), completion, **good)


def test_step_cross_entropy() -> None:
    """log(1 + exp(-2)) for a right class ahead by 2, log 3 of three equal ones; the gradient is softmax minus the label."""
    assert float(process.step_cross_entropy(d(0.0, 2.0)[None], tensor([1]))) == pytest.approx(math.log1p(math.exp(-2.0)), abs=1e-12)
    assert float(process.step_cross_entropy(d(1.0, 1.0, 1.0)[None], tensor([0]))) == pytest.approx(math.log(3), abs=1e-12)
    logits = d(0.0, 2.0)[None].requires_grad_()
    process.step_cross_entropy(logits, tensor([1])).sum().backward()
    p = 1 / (1 + math.exp(2.0))
    assert logits.grad is not None and torch.allclose(logits.grad, d(p, -p)[None], rtol=0, atol=1e-12)
    assert process.step_cross_entropy(torch.zeros(1, 2, dtype=torch.bfloat16), tensor([0])).dtype == torch.float32


def test_soft_step_labels() -> None:
    """With probability q of right: -q log p - (1 - q) log(1 - p); 0 and 1 are the hard labels; the gradient is softmax minus q."""
    logits = d(0.3, -0.9)[None].requires_grad_()
    p = 1 / (1 + math.exp(1.2))
    loss = process.step_cross_entropy(logits, d(0.75, 0.25)[None])
    assert float(loss.detach()) == pytest.approx(-0.25 * math.log(p) - 0.75 * math.log(1 - p), abs=1e-12)
    loss.sum().backward()
    assert logits.grad is not None and torch.allclose(logits.grad, d(0.25 - p, p - 0.25)[None], rtol=0, atol=1e-12)
    for label in (0, 1):
        soft = torch.nn.functional.one_hot(tensor([label]), 2).double()
        assert torch.equal(process.step_cross_entropy(logits, soft), process.step_cross_entropy(logits, tensor([label])))


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError, match="same shape"):
        process.minimum(d(0.1, 0.2), one(3))
    with pytest.raises(ShapeError, match="without steps"):
        process.mean(d(0.1, 0.2), tensor([0, 2]))
    with pytest.raises(ShapeError, match="without steps"):
        process.softmin_return(d(), one(0), temperature=0.1)
    with pytest.raises(ShapeError, match="number of steps"):
        process.step_cross_entropy(torch.zeros(2, 2), one(3))
