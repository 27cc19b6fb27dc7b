"""Policy-gradient identities without noise, and the fixed points that follow from them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, tensor

import enumeration as E
from accord.objectives.advantages import gae, group_advantages, rloo_advantages
from accord.objectives.kl import k1, k2, k3
from accord.objectives.policy_gradient import ppo_policy_loss
from accord.objectives.preference import PairLogprobs, ipo, sigmoid
from accord.objectives.segments import segment_sum

BETA = 0.5


@pytest.fixture
def setting() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Policy table, its token log-probs and sequence probabilities, reference log-probs, rewards."""
    logits, reference = E.table(0), E.table(1).detach()
    rewards = torch.randn(27, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return logits, E.token_logprobs(logits), E.sequence_probabilities(logits), E.token_logprobs(reference), rewards


def test_the_table_is_a_distribution(setting: tuple[Tensor, ...]) -> None:
    assert float(setting[2].sum()) == pytest.approx(1, abs=1e-12)


def weighted(per_token: Tensor, probabilities: Tensor) -> Tensor:
    """Expectation over sequences of a sum over tokens."""
    return (segment_sum(per_token, E.COMPLETION, 27) * probabilities.detach()).sum()


def test_ppo_with_kl_in_the_reward_is_the_exact_gradient(setting: tuple[Tensor, ...]) -> None:
    """k1 in the reward, the score on the last token, GAE with gamma = lambda = 1 and V = 0, ratio 1: the gradient of E[r] - beta KL."""
    logits, logprobs, probabilities, reference, rewards = setting
    objective = (probabilities * (rewards - BETA * segment_sum(k1(logprobs, reference), E.COMPLETION, 27))).sum()
    token_rewards = -BETA * k1(logprobs.detach(), reference)
    token_rewards[2::3] += rewards
    advantages, _ = gae(token_rewards, torch.zeros(81, dtype=torch.float64), E.COMPLETION, gamma=1, lam=1)
    losses, clipped = ppo_policy_loss(logprobs, logprobs.detach(), advantages, clip=0.2)
    assert not clipped.any()
    assert torch.allclose(-E.gradient(weighted(losses, probabilities), logits), E.gradient(objective, logits), atol=1e-10)


def test_any_baseline_leaves_the_gradient(setting: tuple[Tensor, ...]) -> None:
    """Values that depend on the prefix alone: with lambda 1 the expected gradient is the same."""
    logits, logprobs, probabilities, _, rewards = setting
    exact = E.gradient((probabilities * rewards).sum(), logits)
    by_prefix = torch.randn(13, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    values = []
    for sequence in E.SEQUENCES.tolist():
        values += [by_prefix[0], by_prefix[1 + sequence[0]], by_prefix[4 + 3 * sequence[0] + sequence[1]]]
    token_rewards = torch.zeros(81, dtype=torch.float64)
    token_rewards[2::3] = rewards
    advantages, _ = gae(token_rewards, torch.stack(values), E.COMPLETION, gamma=1, lam=1)
    losses, _ = ppo_policy_loss(logprobs, logprobs.detach(), advantages, clip=0.2)
    assert torch.allclose(-E.gradient(weighted(losses, probabilities), logits), exact, atol=1e-10)


def test_rloo_is_unbiased_and_the_group_mean_is_half(setting: tuple[Tensor, ...]) -> None:
    """All 729 pairs of sequences, G = 2: RLOO is exact; subtracting the group mean gives (G - 1) / G of it."""
    logits, logprobs, probabilities, _, rewards = setting
    sequence_logprobs = segment_sum(logprobs, E.COMPLETION, 27)
    first, second = (index.flatten() for index in torch.meshgrid(torch.arange(27), torch.arange(27), indexing="ij"))
    weight = (probabilities[first] * probabilities[second]).detach()
    pairs = torch.stack((first, second), 1).flatten()
    group = torch.arange(729).repeat_interleave(2)
    exact = E.gradient((probabilities * rewards).sum(), logits)
    for estimator, share in ((rloo_advantages, 1.0), (group_advantages, 0.5)):
        advantage = estimator(rewards[pairs], group)
        value = (weight.repeat_interleave(2) * advantage * sequence_logprobs[pairs]).sum() / 2
        assert torch.allclose(E.gradient(value, logits), share * exact, atol=1e-10)


def test_which_kl_losses_have_which_gradient(setting: tuple[Tensor, ...]) -> None:
    """Sequence k2 is the exact gradient of the reverse KL; token k2 and k3 are biased; k1 as a loss has expected gradient zero."""
    logits, logprobs, probabilities, reference, _ = setting
    exact = E.gradient((probabilities * segment_sum(k1(logprobs, reference), E.COMPLETION, 27)).sum(), logits)
    sequence = 0.5 * segment_sum(k1(logprobs, reference), E.COMPLETION, 27) ** 2
    assert torch.allclose(E.gradient((probabilities.detach() * sequence).sum(), logits), exact, atol=1e-10)
    token_k2 = E.gradient(weighted(k2(logprobs, reference), probabilities), logits)
    token_k3 = E.gradient(weighted(k3(logprobs, reference), probabilities), logits)
    assert E.cosine(token_k2, exact) < 0.9999 and E.cosine(token_k3, exact) < E.cosine(token_k2, exact)
    assert float(E.gradient(weighted(k1(logprobs, reference), probabilities), logits).abs().max()) < 1e-12
    # k1 as the coefficient of its own token only, no reward-to-go, is token k2: the same gradient, so the same bias.
    coefficient = weighted(k1(logprobs, reference).detach() * logprobs, probabilities)
    assert torch.allclose(E.gradient(coefficient, logits), token_k2, atol=1e-12)


# -- fixed points: one token, r = (1, .5, 0, -.5), reference (.1, .2, .3, .4), beta .5 ------------------------------------------------------

REWARDS, REFERENCE = tensor([1, 0.5, 0, -0.5], dtype=torch.float64), tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
OPTIMUM = tensor([0.4271838, 0.3143042, 0.1734390, 0.0850729], dtype=torch.float64)


def total_variation(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().sum() / 2)


def test_the_optimum_is_the_closed_form() -> None:
    """pi* = ref exp(r / beta) / Z; the optimum is beta ln Z = 0.2739780."""
    unnormalised = REFERENCE * (REWARDS / BETA).exp()
    assert torch.allclose(unnormalised / unnormalised.sum(), OPTIMUM, atol=1e-7)
    assert BETA * math.log(float(unnormalised.sum())) == pytest.approx(0.2739780, abs=1e-7)


def exact_ascent(regulariser: str, *, steps: int = 6000, rate: float = 0.5) -> Tensor:
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        logprobs = logits.log_softmax(0)
        policy = logprobs.exp().detach()
        advantage = REWARDS - (BETA * k1(logprobs.detach(), REFERENCE.log()) if regulariser == "k1 in the reward" else 0)
        if regulariser == "normalised, k2 loss":  # what `group_advantages(scale="group")` tends to in a large group
            mean = (policy * REWARDS).sum()
            advantage = (REWARDS - mean) / (policy * (REWARDS - mean) ** 2).sum().sqrt()
        value = (policy * advantage * logprobs).sum()
        if regulariser.endswith("k2 loss"):
            value = value - BETA * (policy * k2(logprobs, REFERENCE.log())).sum()
        if regulariser == "k3 loss":
            value = value - BETA * (policy * k3(logprobs, REFERENCE.log())).sum()
        if regulariser == "k1 loss":
            value = value - BETA * (policy * k1(logprobs, REFERENCE.log())).sum()
        (step,) = torch.autograd.grad(value, logits)
        logits = (logits + rate * step).detach().requires_grad_()
    return logits.softmax(0).detach()


@pytest.mark.parametrize("regulariser", ["k1 in the reward", "k2 loss"])
def test_reverse_kl_reaches_the_optimum(regulariser: str) -> None:
    assert total_variation(exact_ascent(regulariser), OPTIMUM) < 1e-5


def test_k3_as_a_loss_reaches_the_forward_kl_optimum_instead() -> None:
    expected = tensor([0.5662671, 0.1699820, 0.1378300, 0.1259209], dtype=torch.float64)
    found = exact_ascent("k3 loss")
    assert total_variation(found, expected) < 1e-4 and total_variation(found, OPTIMUM) > 0.1


def test_k1_as_a_loss_does_not_regularise() -> None:
    assert float(exact_ascent("k1 loss")[0]) > 0.99


def test_normalised_advantages_collapse_whatever_the_kl_price() -> None:
    """Divided by their deviation, advantages stay large as the policy concentrates: beta = 0.5 no longer holds it, as it does above."""
    assert float(exact_ascent("normalised, k2 loss")[0]) > 0.999


@pytest.mark.parametrize(("scale", "share"), [("none", 0.5), ("batch", 0.98), ("group", 0.98)])
def test_sampled_groups_collapse_when_divided_by_their_deviation(scale: str, share: float) -> None:
    """The same through `group_advantages`: 400 groups of 512 samples and a k2 loss. Unscaled they stay near pi*, whose best token has 0.43."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.03)
    for _ in range(400):
        tokens = torch.multinomial(logits.detach().softmax(0), 512, replacement=True, generator=generator)
        advantages = group_advantages(REWARDS[tokens], torch.zeros(512, dtype=torch.int64), scale=scale)
        logprobs = logits.log_softmax(0)[tokens]
        losses, _ = ppo_policy_loss(logprobs, logprobs.detach(), advantages, clip=0.2)
        optimizer.zero_grad()
        (losses + BETA * k2(logprobs, REFERENCE.log()[tokens])).mean().backward()
        optimizer.step()
    best = float(logits.softmax(0)[0])
    assert best < share if scale == "none" else best > share


def test_sampled_ppo_reaches_the_optimum() -> None:
    """400 updates of 256 samples through our clipped loss with the KL in the reward: within 0.03 of pi*, far from the k3 point."""
    generator = torch.Generator().manual_seed(0)
    for beta in (0.5, 1.0):
        logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=0.03)
        for step in range(400):
            optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / 400)
            old = logits.detach().log_softmax(0)
            tokens = torch.multinomial(old.exp(), 256, replacement=True, generator=generator)
            token_rewards = REWARDS[tokens] - beta * k1(old[tokens], REFERENCE.log()[tokens])
            advantages, _ = gae(token_rewards, token_rewards.mean().expand(256), torch.arange(256), gamma=1, lam=0.95)
            losses, _ = ppo_policy_loss(logits.log_softmax(0)[tokens], old[tokens], advantages, clip=0.2)
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
        optimum = REFERENCE * (REWARDS / beta).exp()
        assert total_variation(logits.softmax(0).detach(), optimum / optimum.sum()) < 0.03


def test_tabular_dpo_recovers_the_optimum() -> None:
    """All ordered pairs, drawn from the reference, labelled by Bradley-Terry with the true rewards: the population loss has its minimum at pi*."""
    first, second = (index.flatten() for index in torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"))
    weight = REFERENCE[first] * REFERENCE[second]
    probability = torch.sigmoid(REWARDS[first] - REWARDS[second])
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)
    one = torch.ones(16, dtype=torch.float64)

    def loss() -> Tensor:
        optimizer.zero_grad()
        logprobs, reference = logits.log_softmax(0), REFERENCE.log()
        pair = PairLogprobs(logprobs[first], logprobs[second], reference[first], reference[second], one, one)
        value = (weight * sigmoid(pair, beta=BETA, probability=probability)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    assert total_variation(logits.softmax(0).detach(), OPTIMUM) < 1e-6


def minimum(loss: object) -> float:
    """The h that minimises a one-pair loss, by a fine grid around its bracket."""
    h = torch.linspace(-40, 40, 800001, dtype=torch.float64)
    zero, one = torch.zeros_like(h), torch.ones_like(h)
    return float(h[loss(PairLogprobs(h, zero, zero, zero, one, one)).argmin()])  # type: ignore[operator]


def test_fixed_points_of_single_pairs() -> None:
    """IPO h = 1 / (2 beta) = 5 and, when the label is right with 0.8, (0.8 - 0.5) / beta = 3; conservative DPO h = logit(0.9) / 0.1 = 21.97225."""
    assert minimum(lambda pair: ipo(pair, beta=0.1)) == pytest.approx(5, abs=1e-3)

    def noisy(pair: PairLogprobs) -> Tensor:
        swapped = PairLogprobs(pair.rejected, pair.chosen, pair.ref_rejected, pair.ref_chosen, pair.rejected_tokens, pair.chosen_tokens)
        return 0.8 * ipo(pair, beta=0.1) + 0.2 * ipo(swapped, beta=0.1)

    assert minimum(noisy) == pytest.approx(3, abs=1e-3)
    assert minimum(lambda pair: sigmoid(pair, beta=0.1, label_smoothing=0.1)) == pytest.approx(21.97225, abs=1e-3)
