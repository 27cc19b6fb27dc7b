"""Known answers for every objective, each from a second derivation: a closed form, a paper's number, or arithmetic shown beside it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from accord.data.packing import Branch, Unit, pack
from accord.errors import ShapeError
from accord.objectives import advantages, calibration, kl, logprobs, policy_gradient, preference, ranking, segments
from accord.objectives.preference import PairLogprobs

torch.set_default_dtype(torch.float32)


def d(*values: float) -> torch.Tensor:
    return tensor(values, dtype=torch.float64)


def close(found: torch.Tensor, expected: torch.Tensor | float, tolerance: float = 1e-10) -> bool:
    return torch.allclose(found.double(), torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance)


# -- segments ---------------------------------------------------------------------------------------------------------------------------


def test_segments() -> None:
    values, completion = d(1, 2, 3, 4, 5), tensor([0, 0, 1, 3, 3])
    assert close(segments.segment_sum(values, completion, 4), d(3, 3, 0, 9))
    assert close(segments.segment_mean(values, completion, 4), d(1.5, 3, 0, 4.5))
    assert close(segments.segment_reverse_cumsum(values, completion), d(3, 2, 3, 9, 5))
    with pytest.raises(ShapeError):
        segments.segment_sum(values, completion[:3], 4)


def test_whiten_keeps_or_removes_the_mean() -> None:
    """The TF golden quoted in the N implementation details post: 1.2 .. 2.0 in steps of 0.1, mean 1.6, biased variance 1/15."""
    values = torch.arange(12, 21, dtype=torch.float64) / 10
    expected = d(0.0508, 0.4381, 0.8254, 1.2127, 1.6, 1.9873, 2.3747, 2.7619, 3.1492)
    assert close(segments.whiten(values, shift_mean=False), expected, 1.5e-4)
    centred = segments.whiten(values, shift_mean=True)
    assert abs(float(centred.mean())) < 1e-12 and float(centred.var(unbiased=False)) == pytest.approx(1, abs=1e-6)
    assert close(segments.whiten(d(2, 2, 2), shift_mean=True), d(0, 0, 0))


# -- log-probs --------------------------------------------------------------------------------------------------------------------------


def test_uniform_head_gives_log_of_the_vocabulary() -> None:
    """A zero LM head is the uniform distribution: ln 49152 = 10.80268."""
    found, entropy, _ = logprobs.chunked_logprobs(torch.randn(5, 8), torch.zeros(49152, 8), torch.arange(5), want_entropy=True)
    assert entropy is not None
    assert close(found, -10.80268, 1e-5) and close(entropy, 10.80268, 1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_entropy_by_hand(frozen: bool) -> None:
    """Probabilities 1/2, 1/4, 1/4: entropy 1.5 ln 2. At temperature 1/2 they are 2/3, 1/6, 1/6: entropy ln 6 - 2/3 ln 4."""
    weight = torch.tensor([[math.log(2)], [0.0], [0.0]], dtype=torch.float64, requires_grad=not frozen)
    for temperature, expected in ((1.0, 1.5 * math.log(2)), (0.5, math.log(6) - 2 / 3 * math.log(4))):
        found = logprobs.chunked_logprobs(d(1)[:, None], weight, tensor([0]), temperature=temperature, want_entropy=True)[1]
        assert found is not None and close(found, expected) and not found.requires_grad


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_chunked_logprobs_and_gradients(softcap: float | None, with_bias: bool, frozen: bool) -> None:
    """By finite differences, for a trainable head and for a frozen one, whose gradient is made in forward."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in ((7, 4), (11, 4)))
    bias = torch.randn(11, generator=generator, dtype=torch.float64, requires_grad=True) if with_bias else None
    targets = torch.randint(0, 11, (7,), generator=generator)
    targets[::2] = (hidden @ weight.T).argmax(-1)[::2]

    def chunked(*inputs: torch.Tensor) -> torch.Tensor:
        return logprobs.chunked_logprobs(
            inputs[0], inputs[1], targets, bias=inputs[2] if with_bias else None, temperature=0.7, softcap=softcap, chunk_size=3
        )[0]

    logits = hidden @ weight.T + (bias if bias is not None else 0)
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    plain = (logits / 0.7).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    if frozen:
        for tensor in (weight, bias):
            _ = tensor is not None and tensor.requires_grad_(False)
    inputs = (hidden, weight, *([bias] if bias is not None else []))
    assert close(chunked(*inputs), plain)
    greedy = logprobs.chunked_logprobs(*inputs[:2], targets, bias=inputs[2] if with_bias else None, softcap=softcap, chunk_size=3).greedy
    assert greedy.tolist() == (logits.argmax(-1) == targets).tolist()
    assert torch.autograd.gradcheck(chunked, inputs)


@pytest.mark.parametrize("frozen, most", [(True, 64 * 8), (False, 1000 * 8)])
def test_chunked_logprobs_never_saves_all_logits(frozen: bool, most: int) -> None:
    """64 x 1000 logits would be 64,000: what is kept is one gradient by hidden state, or the head itself when it is trained."""
    hidden, weight = torch.randn(64, 8, requires_grad=True), torch.randn(1000, 8, requires_grad=not frozen)
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t):
        logprobs.chunked_logprobs(hidden, weight, torch.zeros(64, dtype=torch.int64), chunk_size=16)
    assert max(saved) == most


# -- KL ---------------------------------------------------------------------------------------------------------------------------------


def test_kl_estimators_by_enumeration() -> None:
    """E_pi[k1] = E_pi[k3] = KL(pi || ref) exactly; E_pi[k2] is not."""
    policy, reference = d(0.7, 0.2, 0.1), d(0.2, 0.3, 0.5)
    exact = float((policy * (policy / reference).log()).sum())
    assert float((policy * kl.k1(policy.log(), reference.log())).sum()) == pytest.approx(exact, abs=1e-12)
    assert float((policy * kl.k3(policy.log(), reference.log())).sum()) == pytest.approx(exact, abs=1e-12)
    assert abs(float((policy * kl.k2(policy.log(), reference.log())).sum()) - exact) > 0.05


@pytest.mark.parametrize(("nats", "expected"), [(12, 0.151536), (6, 0.15), (3, 0.148464), (6.6, 0.150768)])
def test_adaptive_controller(nats: float, expected: float) -> None:
    """0.15 (1 + clip(kl / 6 - 1, 0.2) 512 / 10000); at 12 nats the error is clipped to 0.2."""
    controller = kl.AdaptiveKLController(0.15, 6, 10000)
    controller.update(nats, 512)
    assert controller.value == pytest.approx(expected, abs=1e-9)
    again = kl.AdaptiveKLController(1.0, 6, 10000)
    again.load_state_dict(controller.state_dict())
    assert again.value == controller.value


def test_a_fixed_price_stays() -> None:
    controller = kl.FixedKLController(0.05)
    controller.update(100.0, 512)
    assert controller.value == 0.05
    again = kl.FixedKLController(1.0)
    again.load_state_dict(controller.state_dict())
    assert again.value == 0.05


def test_k2_and_k3_by_hand() -> None:
    """d = ln 2: k2 is its square over two, k3 is 1/2 - 1 + ln 2; d = 0 costs nothing."""
    policy, reference = d(math.log(0.5), -1.0), d(math.log(0.25), -1.0)
    assert close(kl.k2(policy, reference), d(math.log(2) ** 2 / 2, 0))
    assert close(kl.k3(policy, reference), d(math.log(2) - 0.5, 0))


# -- advantages -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gamma", "lam", "expected"),
    [
        (1, 1, (0.55, 0.75, 0.65, 0.8)),
        (1, 0.95, (0.445525, 0.6795, 0.61, 0.8)),
        (1, 0, (-0.2, 0.1, -0.15, 0.8)),
        (0.9, 0.5, (-0.170025, 0.1555, 0.19, 0.8)),
    ],
)
def test_gae(gamma: float, lam: float, expected: tuple[float, ...]) -> None:
    """r = (-.1, .2, -.05, 1), V = (.5, .4, .3, .2): lambda 1 is return minus value, for example 1.05 - .5 = .55."""
    rewards, values = d(-0.1, 0.2, -0.05, 1), d(0.5, 0.4, 0.3, 0.2)
    found, returns = advantages.gae(rewards, values, torch.zeros(4, dtype=torch.int64), gamma=gamma, lam=lam)
    assert close(found, d(*expected)) and close(returns, d(*expected) + values)
    # Companions on both sides of the same token axis change nothing.
    around = advantages.gae(
        torch.cat((d(9, 9), rewards, d(7))), torch.cat((d(1, 2), values, d(3))), tensor([0, 0, 1, 1, 1, 1, 2]), gamma=gamma, lam=lam
    )[0]
    assert close(around[2:6], d(*expected))


def test_gae_skips_what_the_policy_did_not_write() -> None:
    """A tool's output in the middle of an answer and a tail after it are no counted tokens: the same advantages as without them."""
    ids = tuple(range(3, 12))
    written = (True, True, False, False, False, True, True, False, False)
    batch = pack([Unit((1, 2), (Branch((7, 8)),)), Unit((1, 3), (Branch(ids, written),))])
    assert batch.completion.tolist() == [0, 0, 1, 1, 1, 1]
    rewards, values = d(9, 9, -0.1, 0.2, -0.05, 1), d(1, 2, 0.5, 0.4, 0.3, 0.2)
    found, _ = advantages.gae(rewards, values, batch.completion, gamma=1, lam=0.95)
    assert close(found[2:], d(0.445525, 0.6795, 0.61, 0.8))


def test_group_advantages() -> None:
    """One success in eight: mean 1/8, Bessel standard deviation sqrt(1/8) = .353553, so 2.474874 and -.353553."""
    rewards, group = d(1, *[0] * 7), torch.zeros(8, dtype=torch.int64)
    assert close(advantages.group_advantages(rewards, group), d(0.875, *[-0.125] * 7))
    assert close(advantages.group_advantages(rewards, group, scale="group", epsilon=0), d(2.4748737, *[-0.3535534] * 7), 1e-6)
    assert close(advantages.rloo_advantages(rewards, group), d(1, *[-1 / 7] * 7))
    two = advantages.group_advantages(d(1, 0, 3, 3), tensor([0, 0, 1, 1]), scale="group", epsilon=0.0 + 1e-12)
    assert close(two[:2], d(0.7071068, -0.7071068), 1e-6) and close(two[2:], d(0, 0))
    batch = advantages.group_advantages(d(1, 0, 5, 3), tensor([0, 0, 1, 1]), scale="batch", epsilon=0)
    deviation = math.sqrt(((1 - 2.25) ** 2 + 2.25**2 + 2.75**2 + 0.75**2) / 3)
    assert close(batch, d(0.5, -0.5, 1, -1) / deviation)
    assert close(advantages.batch_advantages(d(1, 3), epsilon=0), d(-1, 1))
    with pytest.raises(ShapeError, match="one answer"):
        advantages.group_advantages(d(1, 2, 3), tensor([0, 0, 1]))
    with pytest.raises(ShapeError, match="scale"):
        advantages.group_advantages(rewards, group, scale="std")


# -- policy gradient --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"), [(1.5, 1, -1.2, 0), (1.5, -1, 1.5, 1), (0.5, 1, -0.5, -1), (0.5, -1, 0.8, 0)]
)
def test_clip_table(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    """-min(ratio A, clip(ratio) A) at epsilon 0.2; the gradient is with respect to the ratio."""
    logprob = d(math.log(ratio)).requires_grad_()
    found, clipped = policy_gradient.ppo_policy_loss(logprob, d(0), d(advantage), clip=0.2)
    found.sum().backward()
    assert close(found, loss) and logprob.grad is not None
    assert float(logprob.grad) / ratio == pytest.approx(gradient, abs=1e-12)
    assert bool(clipped) is (gradient == 0)


def test_dual_clip_and_value_clip() -> None:
    logprob = d(math.log(5)).requires_grad_()
    found, clipped = policy_gradient.ppo_policy_loss(logprob, d(0), d(-1), clip=0.2, dual_clip=3)
    found.sum().backward()
    assert close(found, 3) and float(logprob.grad) == 0 and bool(clipped)  # type: ignore[arg-type]
    # old 0, return 1, v .5, clip .2: 0.5 max(0.25, 0.64) = 0.32
    assert close(policy_gradient.ppo_value_loss(d(0.5), d(0), d(1), clip=0.2), 0.32)
    assert close(policy_gradient.ppo_value_loss(d(0.5), d(0), d(1), clip=None), 0.125)
    assert close(policy_gradient.truncated_importance_weights(d(0, 1), d(0, 0), cap=2.0), d(1, 2))
    assert close(policy_gradient.explained_variance(d(1, 2, 3), d(1, 2, 3)), 1) and close(
        policy_gradient.explained_variance(d(2, 2, 2), d(1, 2, 3)), 0
    )


# -- preferences ------------------------------------------------------------------------------------------------------------------------


def golden_pair(chosen: float = -10, dtype: torch.dtype = torch.float64) -> PairLogprobs:
    """lp -10, -12; ref -11, -11.5; 5 and 8 tokens: D_w = 1, D_l = -0.5, h = 1.5."""
    values = [tensor([value], dtype=dtype) for value in (chosen, -12, -11, -11.5, 5, 8)]
    return PairLogprobs(values[0].requires_grad_(), values[1].requires_grad_(), *values[2:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("sigmoid", {}, 0.6209570),
        ("sigmoid", {"label_smoothing": 0.1}, 0.6359570),
        ("robust", {"label_smoothing": 0.1}, 0.6022070),
        ("ipo", {}, 22.44390625),
        ("hinge", {}, 0.85),
        ("simpo", {"beta": 2.0, "gamma": 1.0}, 2.1269280),
        ("orpo", {}, 2.1042058),
        ("sigmoid_norm", {}, 0.6801083),
        ("apo_zero", {}, 0.9625234),
    ],
)
def test_preference_goldens(name: str, options: dict[str, float], expected: float, dtype: torch.dtype) -> None:
    found = preference.PREFERENCE_LOSSES[name](golden_pair(dtype=dtype), **{"beta": 0.1, **options})
    assert found.dtype == dtype
    assert float(found.detach()) == pytest.approx(expected, abs=1e-6, rel=1e-6)


def test_dpo_gradient() -> None:
    """-beta sigmoid(-beta h) = -0.1 sigmoid(-0.15) = -0.0462570 for the chosen, the opposite for the rejected."""
    pair = golden_pair()
    preference.sigmoid(pair, beta=0.1).sum().backward()
    assert float(pair.chosen.grad) == pytest.approx(-0.0462570, abs=1e-7)  # type: ignore[arg-type]
    assert float(pair.rejected.grad) == pytest.approx(0.0462570, abs=1e-7)  # type: ignore[arg-type]


def test_start_values() -> None:
    """Policy equal to reference: ln 2, ln 2, ln 2, hinge 1, IPO 1 / (4 beta^2) = 25, APO-zero 1, KTO 0.5."""
    pair = PairLogprobs(d(-3), d(-4), d(-3), d(-4), d(2), d(3))
    expected = {"sigmoid": math.log(2), "robust": math.log(2), "hinge": 1.0, "ipo": 25.0, "apo_zero": 1.0, "sigmoid_norm": math.log(2)}
    for name, value in expected.items():
        options = {"label_smoothing": 0.1} if name == "robust" else {}
        assert float(preference.PREFERENCE_LOSSES[name](pair, beta=0.1, **options)) == pytest.approx(value, abs=1e-12), name
    assert close(preference.kto(d(0, 0), tensor([True, False]), d(0)[0], beta=0.1), d(0.5, 0.5))


def test_kto() -> None:
    found = preference.kto(d(1, -0.5), tensor([True, False]), d(0.3)[0], beta=0.1, desirable_weight=1.0, undesirable_weight=1.0)
    assert close(found, d(0.4825071, 0.4800107), 1e-6)
    weighted = preference.kto(d(1, -0.5), tensor([True, False]), d(0.3)[0], beta=0.1, desirable_weight=2.0, undesirable_weight=3.0)
    assert close(weighted, found * d(2, 3))
    baseline = d(0.3)[0].requires_grad_()
    ratio = d(1.0).requires_grad_()
    preference.kto(ratio, tensor([True]), baseline, beta=0.1).sum().backward()
    assert baseline.grad is None and ratio.grad is not None


def test_losses_that_need_no_reference_ignore_it() -> None:
    pair = golden_pair()
    moved = PairLogprobs(pair.chosen, pair.rejected, pair.ref_chosen - 3, pair.ref_rejected + 2, pair.chosen_tokens, pair.rejected_tokens)
    for name in preference.REFERENCE_FREE:
        options = {"gamma": 1.0} if name == "simpo" else {}
        loss = preference.PREFERENCE_LOSSES[name]
        assert close(loss(pair, beta=0.5, **options), loss(moved, beta=0.5, **options))


@settings(deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=4, max_size=4), st.floats(0.01, 1))
def test_swapping_a_pair_negates_its_margin(values: list[float], beta: float) -> None:
    pair = PairLogprobs(*(d(v) for v in values), d(3), d(5))
    swapped = PairLogprobs(pair.rejected, pair.chosen, pair.ref_rejected, pair.ref_chosen, pair.rejected_tokens, pair.chosen_tokens)
    assert close(pair.margin, -swapped.margin)
    difference = preference.sigmoid(pair, beta=beta) - preference.sigmoid(swapped, beta=beta)
    assert close(difference, -beta * pair.margin, 1e-9)


def test_soft_labels_and_certainty() -> None:
    pair = golden_pair()
    both = preference.sigmoid(pair, beta=0.1, probability=d(0.7))
    swapped = PairLogprobs(pair.rejected, pair.chosen, pair.ref_rejected, pair.ref_chosen, pair.rejected_tokens, pair.chosen_tokens)
    assert close(both, 0.7 * preference.sigmoid(pair, beta=0.1) + 0.3 * preference.sigmoid(swapped, beta=0.1))
    assert close(preference.log1mexp(d(-1.0)), math.log(1 - math.exp(-1)))
    assert torch.isfinite(preference.log1mexp(d(0.0))).all()


def dpop(pair: PairLogprobs, *, beta: float, penalty: float) -> torch.Tensor:
    """DPO-Positive (Pal et al. 2024, arXiv:2402.13228): the margin pays for every nat that the chosen answer falls below the reference."""
    fallen = (pair.ref_chosen - pair.chosen).clamp_min(0)
    return -torch.nn.functional.logsigmoid(beta * (pair.margin - penalty * fallen))


def test_a_loss_of_your_own() -> None:
    """h = 1.5 and nothing fell: as DPO. At lp_w = -11.8 the chosen fell by 0.8: h = -0.3, minus 5 x 0.8."""
    assert close(dpop(golden_pair(), beta=0.1, penalty=5), 0.6209570, 1e-6)
    assert close(dpop(golden_pair(chosen=-11.8), beta=0.1, penalty=5), 0.9310838, 1e-6)


@pytest.mark.parametrize(
    ("loss", "moves"),
    [(lambda pair: preference.sigmoid(pair, beta=1.0), (-1, -2, 3)), (lambda pair: dpop(pair, beta=1.0, penalty=2), (1, 2, -3))],
    ids=["dpo", "dpop"],
)
def test_displacement(loss: Any, moves: tuple[int, ...]) -> None:
    """Logits u_v . h with u = (1, 0), (2, 0), (-3, 0), chosen 0, rejected 1, from h = 0: the first step of DPO moves log-probs by
    (-1, -2, +3), though 0 was chosen; that of DPOP, with (u_w - u_l) + 2 u_w for u_w - u_l, by (+1, +2, -3)."""
    h = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    u = tensor([[1.0, 0], [2, 0], [-3, 0]], dtype=torch.float64)
    logps = (u @ h).log_softmax(0)
    pair = PairLogprobs(logps[0:1], logps[1:2], logps[0:1].detach(), logps[1:2].detach(), d(1), d(1))
    loss(pair).sum().backward()
    assert h.grad is not None
    moved = (u @ (-h.grad)).detach()
    moved = (moved - moved.mean()) / 0.5
    assert close(moved, d(*moves))


# -- rewards ----------------------------------------------------------------------------------------------------------------------------


def test_bradley_terry() -> None:
    assert close(ranking.bradley_terry(d(1.0), d(0.5)), 0.4740770, 1e-6)  # -log 0.6224593
    assert close(ranking.bradley_terry(d(1.2), d(0.4), margin=1.0), 0.7981389, 1e-6)
    assert close(ranking.bradley_terry(d(1.2), d(0.4)), 0.3711007, 1e-6)
    assert close(ranking.bradley_terry(d(0.8), d(0.0), probability=0.7), 0.6111007, 1e-6)
    assert close(ranking.bradley_terry(d(0.8472979), d(0.0), probability=0.7), 0.6108643, 1e-6)
    assert close(ranking.bradley_terry(d(-1000.0), d(0.0)), 1000.0)  # log(1 + exp(1000)) would overflow
    with pytest.raises(ShapeError):
        ranking.bradley_terry(d(1, 2), d(1))


def test_soft_label_gradient_is_0_at_its_minimum() -> None:
    """p = 0.7: the minimum lies at D = logit(0.7) = 0.8472979, between two points that cost more."""
    gap = d(math.log(0.7 / 0.3)).requires_grad_()
    ranking.bradley_terry(gap, torch.zeros_like(gap), probability=0.7).sum().backward()
    assert gap.grad is not None and abs(float(gap.grad)) < 1e-12
    assert float(gap) == pytest.approx(0.8472979, abs=1e-7)


def test_bradley_terry_probabilities_of_both_orders_add_to_1() -> None:
    """exp(-loss) is p(a > b)."""
    for a, b in ((1.0, 0.5), (-3.0, 4.0), (0.0, 0.0), (30.0, -30.0)):
        total = torch.exp(-ranking.bradley_terry(d(a), d(b))) + torch.exp(-ranking.bradley_terry(d(b), d(a)))
        assert close(total, 1.0, 1e-12)


def test_bradley_terry_gradients_cancel_and_a_constant_changes_nothing() -> None:
    a, b = d(1.0).requires_grad_(), d(0.2).requires_grad_()
    ranking.bradley_terry(a, b).sum().backward()
    assert close(a.grad + b.grad, 0)  # type: ignore[operator]
    assert close(ranking.bradley_terry(a + 5, b + 5), ranking.bradley_terry(a, b))


@pytest.mark.parametrize(("gap", "expected"), [(0, 0.6931472), (1, 0.1882617), (5, -0.6182847), (20, -2.5), (50, -6.25)])
def test_robust_is_unbounded(gap: float, expected: float) -> None:
    assert close(ranking.robust_bradley_terry(d(gap), flip_rate=0.1), expected, 1e-6)


def test_plackett_luce() -> None:
    scores, group = d(1, 0.5, -0.3), torch.zeros(3, dtype=torch.int64)
    assert close(ranking.plackett_luce(scores, group, tensor([1, 2, 3])), 1.0018737, 1e-6)  # -log 0.3671908
    import itertools

    total = sum(math.exp(-float(ranking.plackett_luce(scores, group, tensor(ranks)))) for ranks in itertools.permutations((1, 2, 3)))
    assert total == pytest.approx(1, abs=1e-12)
    assert close(ranking.plackett_luce(d(1, 0.5), group[:2], tensor([1, 2])), ranking.bradley_terry(d(1), d(0.5)), 1e-12)


def test_plackett_luce_with_ties() -> None:
    """Scores ln 4, ln 2, ln 2, 0 with ranks 1, 2, 2, 3: 4/9, then both of the middle against what is left, 2/5 each: -ln(4/9 x 2/5 x 2/5)."""
    scores = tensor([4.0, 2, 2, 1], dtype=torch.float64).log()
    found = ranking.plackett_luce(scores, torch.zeros(4, dtype=torch.int64), tensor([1, 2, 2, 3]))
    assert close(found, -math.log(4 / 9 * 2 / 5 * 2 / 5))


def test_davidson() -> None:
    """a = 1, b = .5, nu = .6: win .4822040, loss .2924715, tie .2253245; they add to 1."""
    log_nu = d(math.log(0.6))
    found = [math.exp(-float(ranking.davidson(d(1), d(0.5), d(outcome), log_nu))) for outcome in (1.0, 0.0, 0.5)]
    assert found == pytest.approx([0.4822040, 0.2924715, 0.2253245], abs=1e-6)
    assert sum(found) == pytest.approx(1, abs=1e-12)
    # A soft label 0.7 of a decided pair is 0.7 of a win and 0.3 of a loss.
    soft = ranking.davidson(d(1), d(0.5), d(0.7), log_nu)
    assert close(soft, -0.7 * math.log(found[0]) - 0.3 * math.log(found[1]))


@settings(deadline=None)
@given(st.floats(-5, 5), st.floats(0, 2), st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.3]))
def test_exchanging_the_answers_and_the_label_changes_nothing(gap: float, margin: float, p: float, flip_rate: float) -> None:
    a, b, zero = d(gap), d(-gap), d(0)
    assert close(
        ranking.bradley_terry(a, zero, margin=margin, probability=p), ranking.bradley_terry(zero, a, margin=margin, probability=1 - p)
    )
    robust = [ranking.robust_bradley_terry(one, flip_rate=flip_rate, margin=margin, probability=q) for one, q in ((a, p), (b, 1 - p))]
    assert close(robust[0], robust[1])
    clean = [
        ranking.robust_bradley_terry(a, flip_rate=0.0, margin=margin, probability=p),
        ranking.bradley_terry(a, zero, margin=margin, probability=p),
    ]
    assert close(clean[0], clean[1])


@pytest.mark.parametrize("margin", [0.0, 0.8])
@pytest.mark.parametrize("probability", [None, 0.5, 0.7])
def test_robust_is_the_clean_loss_on_average(margin: float, probability: float | None) -> None:
    """A label kept with 1 - e and flipped with e, a flip turning p into 1 - p: the expectation is the loss of the clean label."""
    gap, e = d(0.6), 0.2
    p = 1.0 if probability is None else probability
    kept, flipped = (ranking.robust_bradley_terry(gap, flip_rate=e, margin=margin, probability=q) for q in (p, 1 - p))
    assert close((1 - e) * kept + e * flipped, ranking.bradley_terry(gap, d(0), margin=margin, probability=p))


def test_centering_and_accuracy() -> None:
    assert close(ranking.centering(d(1.0), d(-3.0)), 4.0)
    assert close(ranking.accuracy(d(1, 0, 2), d(0, 1, 2)), d(1, 0, 0.5))


# -- calibration ------------------------------------------------------------------------------------------------------------------------


def test_calibration_error() -> None:
    """Confidences .55 to .95, accuracies .5 .7 .7 .9 .9, 100 each: |gaps| .05 .05 .05 .05 .05 give 0.05."""
    rows = [
        {"confidence": c, "accuracy": a, "count": 100}
        for c, a in zip((0.55, 0.65, 0.75, 0.85, 0.95), (0.5, 0.7, 0.7, 0.9, 0.9), strict=True)
    ]
    assert calibration.expected_calibration_error(rows) == pytest.approx(0.05, abs=1e-12)


def test_reliability_table_and_brier() -> None:
    gaps = d(2, 2, -2, 0.1)
    table = calibration.reliability_table(gaps)
    sure = 1 / (1 + math.exp(-2))
    assert [row["count"] for row in table] == [1, 3]
    assert table[1]["confidence"] == pytest.approx(sure) and table[1]["accuracy"] == pytest.approx(2 / 3)
    assert calibration.brier(d(0.0)) == pytest.approx(0.25)


@settings(deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=30))
def test_temperature_never_hurts(values: list[float]) -> None:
    gaps = d(*values)
    temperature = calibration.fit_temperature(gaps)
    before, after = (torch.nn.functional.softplus(-gaps / tau).mean() for tau in (1.0, temperature))
    assert temperature > 0 and float(after) <= float(before) + 1e-12


def test_temperature_finds_the_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(4000, generator=generator, dtype=torch.float64)
    labels = torch.rand(4000, generator=generator, dtype=torch.float64) < torch.sigmoid(truth)
    gaps = 3 * torch.where(labels, truth, -truth)
    assert calibration.fit_temperature(gaps) == pytest.approx(3, rel=0.1)
