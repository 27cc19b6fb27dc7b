"""The clipped policy and value losses of PPO, a token at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from accord.errors import ShapeError
from accord.objectives.segments import at_least_fp32


def ppo_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, *, clip: float, dual_clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """-min(ratio A, clip(ratio, 1 - clip, 1 + clip) A) a token (Schulman et al. 2017, Eq. 7, arXiv:1707.06347). To be minimised.

    Args:
        logprobs: the policy now, with gradient. (M,)
        old_logprobs: the policy when the answers were scored. (M,)
        advantages: larger is better. (M,)
        clip: epsilon.
        dual_clip: c > 1 bounds the loss of bad tokens at c |A| (Ye et al. 2020, arXiv:1912.09729); None is off.
    Returns:
        losses (M,) and a bool mask of the tokens whose gradient was clipped away (M,).
    Raises:
        ShapeError: if shapes differ.
    """
    if not logprobs.shape == old_logprobs.shape == advantages.shape:
        raise ShapeError(
            f"logprobs {tuple(logprobs.shape)}, old_logprobs {tuple(old_logprobs.shape)}, advantages {tuple(advantages.shape)} must all be (M,)."
        )
    ratio = (at_least_fp32(logprobs) - at_least_fp32(old_logprobs)).exp()
    plain, bounded = -ratio * advantages, -ratio.clamp(1 - clip, 1 + clip) * advantages
    losses = torch.maximum(plain, bounded)
    clipped = bounded > plain
    if dual_clip is not None:
        ceiling = -dual_clip * advantages
        over = (advantages < 0) & (losses > ceiling)
        losses = torch.where(over, ceiling, losses)
        clipped = clipped | over
    return losses, clipped.detach()


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


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """1 - mean squared error / variance of the returns: 1 is perfect, 0 is as good as a constant, negative is worse. 0 when returns are constant."""
    variance = returns.var(unbiased=False)
    error = ((returns - values) ** 2).mean()
    return torch.where(variance > 0, 1 - error / variance.clamp_min(1e-30), torch.zeros_like(variance))
