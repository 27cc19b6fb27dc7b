"""Policy and value losses a token at a time (PPO, GSPO, CISPO), and how tokens are added up."""

from __future__ import annotations

import torch
from torch import Tensor

from accord.errors import ShapeError
from accord.objectives.segments import at_least_fp32, segment_count, segment_mean, segment_sum


def ppo_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip: float,
    clip_high: float | None = None,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """-min(ratio A, clip(ratio, 1 - clip, 1 + clip_high) A) a token (Schulman et al. 2017, Eq. 7, arXiv:1707.06347). To be minimised.

    Args:
        logprobs: the policy now, with gradient. (M,)
        old_logprobs: the policy when the answers were scored. (M,)
        advantages: larger is better. (M,)
        clip: epsilon.
        clip_high: epsilon above 1 where it differs (DAPO's clip-higher, Yu et al. 2025, arXiv:2503.14476); None takes `clip`.
        dual_clip: c > 1 bounds the loss of bad tokens at c |A| (Ye et al. 2020, arXiv:1912.09729); None is off.
    Returns:
        losses (M,) and a bool mask of the tokens whose gradient was clipped away (M,).
    Raises:
        ShapeError: if shapes differ.
    """
    _same_shape(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    return clipped_loss(
        at_least_fp32(logprobs) - at_least_fp32(old_logprobs), advantages, clip=clip, clip_high=clip_high, dual_clip=dual_clip
    )


def clipped_loss(
    log_ratio: Tensor, advantages: Tensor, *, clip: float, clip_high: float | None = None, dual_clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """`ppo_policy_loss` of a log-ratio, token or sequence level (`sequence_log_ratio`). (M,), (M,) to losses and clipped mask, (M,) each."""
    ratio = log_ratio.exp()
    plain, bounded = -ratio * advantages, -ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high)) * advantages
    losses = torch.maximum(plain, bounded)
    clipped = bounded > plain
    if dual_clip is not None:
        ceiling = -dual_clip * advantages
        over = (advantages < 0) & (losses > ceiling)
        losses = torch.where(over, ceiling, losses)
        clipped = clipped | over
    return losses, clipped.detach()


def sequence_log_ratio(log_ratio: Tensor, completion: Tensor, num_completions: int) -> Tensor:
    """The mean log-ratio of each completion, for each of its tokens: GSPO's s_i = exp(mean_t log ratio_t) (Zheng et al. 2025, Eq. 7, arXiv:2507.18071). (M,) to (M,)."""
    return segment_mean(log_ratio, completion, num_completions)[completion]


def cispo_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, cap: float) -> tuple[Tensor, Tensor]:
    """-min(ratio, cap) A log pi a token, the weight without gradient (CISPO; MiniMax 2025, Eq. 4, arXiv:2506.13585). To be minimised.

    Every token keeps a gradient, whatever its ratio: the weight is bounded, nothing is clipped away.

    Args:
        logprobs, old_logprobs, advantages: as `ppo_policy_loss`. (M,)
        cap: largest weight; 5 is usual.
    Returns:
        losses (M,) and a bool mask of the tokens whose weight was bounded (M,).
    Raises:
        ShapeError: if shapes differ.
    """
    _same_shape(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    ratio = (at_least_fp32(logprobs.detach()) - at_least_fp32(old_logprobs)).exp()
    return -ratio.clamp_max(cap) * advantages * at_least_fp32(logprobs), ratio > cap


AGGREGATIONS = ("token_mean", "sequence_mean", "constant")


def token_weights(
    completion: Tensor, num_completions: int, *, aggregation: str, total_tokens: float, total_completions: float, constant: float
) -> Tensor:
    """What each token's loss is multiplied by before all are added up over the whole step.

    `token_mean` is 1 / total_tokens (DAPO, arXiv:2503.14476): every token counts the same. `sequence_mean` is 1 / (total_completions n_i)
    (GRPO, arXiv:2402.03300, Eq. 3): a token of a short answer counts more, so long wrong answers are punished less a token. `constant` is
    1 / (total_completions constant) (Dr. GRPO, arXiv:2503.20783): the gradient of the expected reward up to a factor.

    Args:
        completion: which completion each counted token belongs to. (M,), int64
        num_completions: C, of this micro-batch.
        total_tokens, total_completions: of the whole step, over all micro-batches and processes.
        constant: tokens; the longest answer allowed is usual.
    Returns:
        (M,)
    Raises:
        ShapeError: if the aggregation is unknown.
    """
    ones = torch.ones(len(completion), device=completion.device)
    if aggregation == "token_mean":
        return ones / total_tokens
    if aggregation == "sequence_mean":
        return 1.0 / (total_completions * segment_count(completion, num_completions).clamp_min(1)[completion].to(ones.dtype))
    if aggregation == "constant":
        return ones / (total_completions * constant)
    raise ShapeError(f"aggregation={aggregation!r} must be one of {', '.join(AGGREGATIONS)}.")


def ppo_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, clip: float | None) -> Tensor:
    """0.5 max((v - R)^2, (old + clip(v - old) - R)^2) a token, as in the original PPO code. To be minimised.

    Args:
        values: estimates now. (M,)
        old_values: estimates when the answers were scored. (M,)
        returns: targets. (M,)
        clip: largest move from the old value; None leaves plain squared error.
    Returns:
        (M,)
    """
    if not values.shape == old_values.shape == returns.shape:
        raise ShapeError(
            f"values {tuple(values.shape)}, old_values {tuple(old_values.shape)}, returns {tuple(returns.shape)} must all be (M,)."
        )
    values = at_least_fp32(values)
    squared = (values - returns) ** 2
    if clip is None:
        return 0.5 * squared
    near = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.maximum(squared, (near - returns) ** 2)


def truncated_importance_weights(old_logprobs: Tensor, sampler_logprobs: Tensor, *, cap: float) -> Tensor:
    """min(exp(old - sampler), cap), detached: corrects for an engine that sampled from a slightly different policy. (M,)"""
    return (at_least_fp32(old_logprobs) - at_least_fp32(sampler_logprobs)).exp().clamp_max(cap).detach()


def masked_importance_weights(old_logprobs: Tensor, sampler_logprobs: Tensor, *, cap: float) -> Tensor:
    """exp(old - sampler) where it lies between 1 / cap and cap, else 0: what the two see too differently teaches nothing. Detached. (M,)"""
    weights = (at_least_fp32(old_logprobs) - at_least_fp32(sampler_logprobs)).exp().detach()
    return torch.where((weights >= 1 / cap) & (weights <= cap), weights, torch.zeros_like(weights))


def sequence_importance_weights(
    old_logprobs: Tensor, sampler_logprobs: Tensor, completion: Tensor, num_completions: int, *, cap: float
) -> Tensor:
    """min(product over the answer of exp(old - sampler), cap) for each of its tokens, detached: the exact weight of an answer but for the
    cap, with more variance than one a token. (M,)"""
    difference = at_least_fp32(old_logprobs) - at_least_fp32(sampler_logprobs)
    return segment_sum(difference, completion, num_completions).exp().clamp_max(cap)[completion].detach()


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """1 - mean squared error / variance of the returns: 1 is perfect, 0 is as good as a constant, negative is worse. 0 when returns are constant."""
    variance = returns.var(unbiased=False)
    error = ((returns - values) ** 2).mean()
    return torch.where(variance > 0, 1 - error / variance.clamp_min(1e-30), torch.zeros_like(variance))


def _same_shape(**tensors: Tensor) -> None:
    if len({tensor.shape for tensor in tensors.values()}) > 1:
        raise ShapeError(", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()) + " must all be (M,).")
