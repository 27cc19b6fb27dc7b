"""GRPO's family: known answers T5 of the science notes, and which combinations are unbiased, by enumeration."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, tensor

import enumeration as E
from accord.errors import ShapeError
from accord.objectives.advantages import batch_advantages, group_advantages, rloo_advantages
from accord.objectives.kl import k3
from accord.objectives.policy_gradient import (
    cispo_loss,
    clipped_loss,
    masked_importance_weights,
    ppo_policy_loss,
    sequence_importance_weights,
    sequence_log_ratio,
    token_weights,
    truncated_importance_weights,
)


def group_of(successes: int, size: int) -> tuple[Tensor, Tensor]:
    rewards = torch.zeros(size, dtype=torch.float64)
    rewards[:successes] = 1
    return rewards, torch.zeros(size, dtype=torch.int64)


@pytest.mark.parametrize(
    ("successes", "size", "right", "wrong"),
    [(1, 8, 2.474874, -0.353553), (4, 8, 0.935414, -0.935414), (1, 2, 0.707107, -0.707107)],
)
def test_bessel_scaled_group(successes: int, size: int, right: float, wrong: float) -> None:
    """T5.1. One of 8: mean 1/8, variance with n - 1: (49/64 + 7/64) / 7 = 1/8, so 7/8 / sqrt(1/8) = 2.474874."""
    found = group_advantages(*group_of(successes, size), scale="group", epsilon=0.0)
    assert found[0] == pytest.approx(right, abs=1e-6) and found[-1] == pytest.approx(wrong, abs=1e-6)


def test_unscaled_and_leave_one_out() -> None:
    """T5.1, T5.3: r - mean = 7/8 and -1/8 by value; the others' mean 0 and 1/7: 1 and -1/7. Batch: divided by sqrt(1/8)."""
    rewards, group = group_of(1, 8)
    plain = group_advantages(rewards, group)
    assert plain[0] == pytest.approx(0.875, abs=1e-12) and plain[-1] == pytest.approx(-0.125, abs=1e-12)
    others = rloo_advantages(rewards, group)
    assert others[0] == pytest.approx(1, abs=1e-12) and others[-1] == pytest.approx(-1 / 7, abs=1e-12)
    batch = group_advantages(rewards, group, scale="batch", epsilon=0.0)
    assert batch[0] == pytest.approx(2.474874, abs=1e-6)
    whole = batch_advantages(rewards, epsilon=0.0)
    assert whole[0] == pytest.approx(2.645751, abs=1e-6) and whole[-1] == pytest.approx(-0.377964, abs=1e-6)
    half = batch_advantages(group_of(4, 8)[0], epsilon=0.0)
    assert half.tolist() == pytest.approx([1.0] * 4 + [-1.0] * 4, abs=1e-12)


def test_batch_and_group_scales_differ() -> None:
    """Two groups, (1, 0) and (3, 0): group 0.7071 each way in both; batch divides .5 and 1.5 by the deviation of (1, 0, 3, 0), sqrt(2)."""
    rewards, group = tensor([1.0, 0, 3, 0], dtype=torch.float64), tensor([0, 0, 1, 1])
    assert group_advantages(rewards, group, scale="group", epsilon=0.0).tolist() == pytest.approx([0.707107, -0.707107] * 2, abs=1e-6)
    scaled = group_advantages(rewards, group, scale="batch", epsilon=0.0)
    assert scaled.tolist() == pytest.approx([0.353553, -0.353553, 1.060660, -1.060660], abs=1e-6)


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_equal_rewards_teach_nothing(scale: str) -> None:
    """T5.2: exactly 0, never NaN."""
    rewards, group = torch.full((8,), 0.3, dtype=torch.float64), torch.arange(2).repeat_interleave(4)
    assert not group_advantages(rewards, group, scale=scale).any() and not rloo_advantages(rewards, group).any()


def test_a_group_of_one_is_refused() -> None:
    for estimator in (group_advantages, rloo_advantages):
        with pytest.raises(ShapeError, match="A group has one answer"):
            estimator(torch.ones(3), tensor([0, 0, 1]))


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.permutations(range(6)), st.floats(-5, 5), st.floats(0.1, 9))
@settings(max_examples=60, deadline=None)
def test_permutation_shift_and_scale(values: list[float], order: list[int], shift: float, factor: float) -> None:
    """T5.4: permuting answers permutes advantages; a constant added to a prompt's rewards changes nothing; k times the rewards leaves the
    scaled advantages, and multiplies the unscaled ones by k."""
    rewards, group = tensor(values, dtype=torch.float64), tensor([0, 0, 0, 1, 1, 1])
    index = tensor(order)
    for estimator in (rloo_advantages, group_advantages, lambda r, g: group_advantages(r, g, scale="group", epsilon=1e-12)):
        found = estimator(rewards, group)
        assert torch.allclose(estimator(rewards[index], group[index]), found[index], atol=1e-9)
    moved = rewards + shift * (group == 1)
    assert torch.allclose(rloo_advantages(moved, group), rloo_advantages(rewards, group), atol=1e-9)
    assert torch.allclose(rloo_advantages(factor * rewards, group), factor * rloo_advantages(rewards, group), atol=1e-9)
    spread = min(float(rewards[:3].std()), float(rewards[3:].std()))
    if spread > 1e-3:
        scaled = group_advantages(factor * rewards, group, scale="group", epsilon=0.0)
        assert torch.allclose(scaled, group_advantages(rewards, group, scale="group", epsilon=0.0), atol=1e-6)


@pytest.mark.parametrize(
    ("aggregation", "short", "long"), [("sequence_mean", 0.05, 0.005), ("token_mean", 1 / 110, 1 / 110), ("constant", 0.005, 0.005)]
)
def test_weight_of_a_token(aggregation: str, short: float, long: float) -> None:
    """T5.5: answers of 10 and 100 tokens, G = 2, longest 100."""
    completion = torch.repeat_interleave(torch.arange(2), tensor([10, 100]))
    found = token_weights(completion, 2, aggregation=aggregation, total_tokens=110, total_completions=2, constant=100)
    assert float(found[0]) == pytest.approx(short, rel=1e-6) and float(found[-1]) == pytest.approx(long, rel=1e-6)
    parts = [  # and in two micro-batches, the totals of the whole step in each
        token_weights(torch.zeros(n, dtype=torch.int64), 1, aggregation=aggregation, total_tokens=110, total_completions=2, constant=100)
        for n in (10, 100)
    ]
    assert torch.equal(torch.cat(parts), found)


def test_unknown_aggregation_is_refused() -> None:
    with pytest.raises(ShapeError, match="token_mean, sequence_mean, constant"):
        token_weights(torch.zeros(1, dtype=torch.int64), 1, aggregation="mean", total_tokens=1, total_completions=1, constant=1)


def test_sequence_ratio() -> None:
    """T5.6: log-ratios (.2, -.1, .05): exp(.15 / 3) = 1.0512711, and the gradient of each token is the same."""
    log_ratio = tensor([0.2, -0.1, 0.05, 0.4], dtype=torch.float64, requires_grad=True)
    completion = tensor([0, 0, 0, 1])
    found = sequence_log_ratio(log_ratio, completion, 2)
    assert found.exp().tolist() == pytest.approx([1.0512711] * 3 + [math.exp(0.4)], abs=1e-7)
    losses, _ = clipped_loss(found, torch.ones(4, dtype=torch.float64), clip=0.2)
    (gradient,) = torch.autograd.grad(losses[:3].sum(), log_ratio)
    assert gradient.tolist() == pytest.approx([-1.0512711] * 3 + [0], abs=1e-7)


def test_importance_weights() -> None:
    """T5.9: lp (-1, -2, -.5), mu (-1.2, -1, -3): exp(.2), exp(-1), exp(2.5) = 12.182494. Cut at 2; masked outside .5 to 2; all of them
    exp(1.7). k3 of each; what is logged of tokens that mu drew is its other direction, exp(d) - 1 - d, unbiased for KL(mu | old)."""
    old, sampler = tensor([-1.0, -2, -0.5], dtype=torch.float64), tensor([-1.2, -1, -3], dtype=torch.float64)
    for cap, expected in ((100, 12.182494), (2, 2)):
        assert truncated_importance_weights(old, sampler, cap=cap).tolist() == pytest.approx([1.221403, 0.367879, expected], abs=1e-6)
    assert masked_importance_weights(old, sampler, cap=2).tolist() == pytest.approx([1.221403, 0, 0], abs=1e-6)
    one, two = torch.zeros(3, dtype=torch.int64), tensor([0, 0, 1])
    assert sequence_importance_weights(old, sampler, one, 1, cap=100).tolist() == pytest.approx([5.473947] * 3, abs=1e-6)
    assert sequence_importance_weights(old, sampler, two, 2, cap=2).tolist() == pytest.approx([math.exp(-0.8)] * 2 + [2], abs=1e-6)
    assert k3(old, sampler).tolist() == pytest.approx([0.018731, 0.718282, 1.582085], abs=1e-6)
    mu, pi = tensor([0.2, 0.3, 0.5], dtype=torch.float64), tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert float((mu * k3(mu.log(), pi.log())).sum()) == pytest.approx(float((mu * (mu / pi).log()).sum()), abs=1e-12)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.25, 1, -1.25, -1.25),  # below 1.28: DAPO's clip-higher lets it through
        (1.3, 1, -1.28, 0.0),
        (0.7, -1, 0.8, 0.0),
        (1.3, -1, 1.3, 1.3),
        (0.7, 1, -0.7, -0.7),
    ],
)
def test_clip_higher(ratio: float, advantage: float, loss: float, slope: float) -> None:
    """-min(ratio A, clip(ratio, .8, 1.28) A); the slope in log-probs is ratio times A where nothing is clipped."""
    logprobs = tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    losses, clipped = ppo_policy_loss(
        logprobs, torch.zeros(1, dtype=torch.float64), tensor([advantage], dtype=torch.float64), clip=0.2, clip_high=0.28
    )
    assert losses.item() == pytest.approx(loss) and bool(clipped) is (slope == 0)
    assert float(torch.autograd.grad(losses.sum(), logprobs)[0]) == pytest.approx(slope)


@pytest.mark.parametrize(("ratio", "advantage", "slope"), [(1.5, 1, -1.5), (8.0, 1, -5.0), (8.0, -1, 5.0), (0.1, -1, 0.1)])
def test_cispo_bounds_weights_and_clips_no_gradient(ratio: float, advantage: float, slope: float) -> None:
    """The gradient in the log-prob is -min(ratio, 5) A: never 0."""
    logprobs = tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    losses, bounded = cispo_loss(logprobs, torch.zeros(1, dtype=torch.float64), tensor([advantage], dtype=torch.float64), cap=5)
    assert bool(bounded) is (ratio > 5)
    assert float(torch.autograd.grad(losses.sum(), logprobs)[0]) == pytest.approx(slope)


def test_cispo_refuses_other_shapes() -> None:
    with pytest.raises(ShapeError, match=r"must all be \(M,\)"):
        cispo_loss(torch.zeros(2), torch.zeros(3), torch.zeros(2), cap=5)


# -- which combinations are unbiased: all 729 ordered pairs of sequences of different lengths -----------------------------------------------

ENDS = [next((place + 1 for place, token in enumerate(sequence) if token == 0), 3) for sequence in E.SEQUENCES.tolist()]
LENGTHS = tensor(ENDS)
"""Token 0 ends an answer and what follows is not counted: lengths that depend on the answer are what biases need."""


def pair_gradient(advantage: str, aggregation: str, scale: str = "none") -> tuple[Tensor, Tensor]:
    """Expected gradient of a step of one group of two, and the gradient of the expected reward through the counted tokens."""
    logits = E.table(0)
    logprobs = E.token_logprobs(logits).view(27, 3)
    probabilities = E.sequence_probabilities(logits)
    counted = torch.arange(3)[None] < LENGTHS[:, None]
    rewards = torch.randn(27, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    exact = E.gradient((probabilities.detach() * rewards * (logprobs * counted).sum(1)).sum(), logits)
    first, second = (index.flatten() for index in torch.meshgrid(torch.arange(27), torch.arange(27), indexing="ij"))
    value = torch.zeros((), dtype=torch.float64)
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        pair = tensor([a, b])
        group = torch.zeros(2, dtype=torch.int64)
        if advantage == "leave_one_out":
            found = rloo_advantages(rewards[pair], group) / (rewards[pair].std() + 1e-4 if scale == "batch" else 1.0)
        else:
            found = group_advantages(rewards[pair], group, scale=scale)
        completion = torch.repeat_interleave(torch.arange(2), LENGTHS[pair])
        weights = token_weights(
            completion, 2, aggregation=aggregation, total_tokens=float(len(completion)), total_completions=2.0, constant=1.0
        ).double()
        tokens = torch.cat([logprobs[i, : LENGTHS[i]] for i in (a, b)])
        weight = (probabilities[a] * probabilities[b]).detach()
        value = value + weight * (weights * found[completion] * tokens).sum()
    return E.gradient(value, logits), exact


@pytest.mark.parametrize(("advantage", "share"), [("leave_one_out", 1.0), ("group_mean", 0.5)])
def test_constant_aggregation_is_unbiased(advantage: str, share: float) -> None:
    """T5.8. The sum over tokens divided by a constant: exactly the gradient, with the group's own mean (G - 1) / G of it."""
    found, exact = pair_gradient(advantage, "constant")
    assert torch.allclose(found, share * exact, atol=1e-6)


BIASED = [
    (advantage, aggregation, scale)
    for advantage in ("leave_one_out", "group_mean")
    for aggregation in ("token_mean", "sequence_mean", "constant")
    for scale in ("none", "batch", "group")
    if (aggregation, scale) != ("constant", "none") and (advantage, scale) != ("leave_one_out", "group")
]
"""Every other combination of the two baselines; the last one is refused."""


@pytest.mark.parametrize(("advantage", "aggregation", "scale"), BIASED)
def test_lengths_and_deviations_in_a_denominator_bias(advantage: str, aggregation: str, scale: str) -> None:
    """Another direction, not only another length."""
    found, exact = pair_gradient(advantage, aggregation, scale)
    assert E.cosine(found, exact) < 0.999


def test_the_rounds_mean_is_biased_by_lengths() -> None:
    """REINFORCE++'s baseline is the mean over all tokens of the round, so an answer's own length moves it."""
    logits = E.table(0)
    logprobs, probabilities = E.token_logprobs(logits).view(27, 3), E.sequence_probabilities(logits)
    rewards = torch.randn(27, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    counted = torch.arange(3)[None] < LENGTHS[:, None]
    exact = E.gradient((probabilities.detach() * rewards * (logprobs * counted).sum(1)).sum(), logits)
    value = torch.zeros((), dtype=torch.float64)
    for a in range(27):
        for b in range(27):
            tokens = torch.cat([logprobs[i, : LENGTHS[i]] for i in (a, b)])
            returns = torch.repeat_interleave(rewards[[a, b]], LENGTHS[[a, b]])
            value = value + (probabilities[a] * probabilities[b]).detach() * ((returns - returns.mean()) * tokens).sum()
    assert E.cosine(E.gradient(value, logits), exact) < 0.9999
