"""Advantages: generalized advantage estimation on the flat token axis, and the critic-free ones over groups of answers."""

from __future__ import annotations

import torch
from torch import Tensor

from accord.errors import ShapeError
from accord.objectives.segments import at_least_fp32, segment_count, segment_mean


def gae(rewards: Tensor, values: Tensor, completion: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalized Advantage Estimation (Schulman et al. 2015, Eq. 16, arXiv:1506.02438).

    Not whitened: call `segments.whiten` for that. The value after the end token is 0.

    Args:
        rewards: reward for emitting each counted token, KL penalty included. (M,)
        values: the critic's estimate before each token is emitted. (M,)
        completion: which completion each token belongs to, non-decreasing. (M,), int64
        gamma: discount a token, 0 to 1. RLHF uses 1.0.
        lam: 0 gives one-step TD, 1 gives Monte Carlo returns.
    Returns:
        advantages and returns, each (M,).
    Raises:
        ShapeError: if the three tensors differ in length.
    """
    if not rewards.shape == values.shape == completion.shape:
        raise ShapeError(
            f"rewards {tuple(rewards.shape)}, values {tuple(values.shape)}, completion {tuple(completion.shape)} must all be (M,)."
        )
    rewards, values = at_least_fp32(rewards), at_least_fp32(values)
    if len(rewards) == 0:
        return rewards, values
    follows = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    follows[:-1] = completion[1:] == completion[:-1]
    next_values = torch.where(follows, values.roll(-1), torch.zeros_like(values))
    deltas = rewards + gamma * next_values - values
    # One backward sweep over the position counted from the end of each completion: all completions at once.
    counts = segment_count(completion, int(completion[-1]) + 1)
    from_end = counts.cumsum(0)[completion] - 1 - torch.arange(len(values), device=values.device)
    advantages = deltas.clone()
    for distance in range(1, int(counts.max())):
        here = (from_end == distance).nonzero()[:, 0]
        advantages[here] = deltas[here] + gamma * lam * advantages[here + 1]
    return advantages, advantages + values


def group_advantages(rewards: Tensor, group: Tensor, *, scale: str = "none", epsilon: float = 1e-4) -> Tensor:
    """Reward minus the mean of the group (Shao et al. 2024; without scaling Dr. GRPO, Liu et al. 2025).

    Args:
        rewards: one a completion. (C,)
        group: which prompt each completion answers. (C,), int64
        scale: "none" leaves reward units. "group" divides by the group's standard deviation (n - 1): as the policy concentrates this
            goes to 0, and with it the effective KL price. "batch" divides by the standard deviation over the batch (n - 1).
        epsilon: added to the standard deviation.
    Returns:
        (C,)
    Raises:
        ShapeError: if a group has one member (its advantage would always be 0), or scale is unknown.
    """
    centred, counts = _centred(rewards, group)
    if scale == "none":
        return centred
    if scale == "group":
        sums = torch.zeros_like(counts, dtype=centred.dtype).index_add(0, group, centred * centred)
        return centred / ((sums / (counts - 1).clamp_min(1)).sqrt()[group] + epsilon)
    if scale == "batch":
        return centred / (at_least_fp32(rewards).std() + epsilon)
    raise ShapeError(f"scale={scale!r} must be none, group or batch.")


def rloo_advantages(rewards: Tensor, group: Tensor) -> Tensor:
    """Reward minus the mean of the OTHER answers: G / (G - 1) times the centred reward (Ahmadian et al. 2024). Unbiased. (C,)"""
    centred, counts = _centred(rewards, group)
    size = counts[group].to(centred.dtype)
    return centred * size / (size - 1)


def batch_advantages(rewards: Tensor, *, epsilon: float = 1e-8) -> Tensor:
    """Whitened over the whole batch (REINFORCE++, Hu 2025). (C,)"""
    rewards = at_least_fp32(rewards)
    return (rewards - rewards.mean()) / (rewards.var(unbiased=False) + epsilon).sqrt()


def _centred(rewards: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    if rewards.shape != group.shape:
        raise ShapeError(f"rewards {tuple(rewards.shape)} and group {tuple(group.shape)} must have the same shape (C,).")
    num_groups = int(group.max()) + 1 if len(group) else 0
    counts = segment_count(group, num_groups)
    if bool((counts == 1).any()):
        raise ShapeError("A group has one answer: its advantage would always be 0. Sample two or more answers a prompt.")
    rewards = at_least_fp32(rewards)
    return rewards - segment_mean(rewards, group, num_groups)[group], counts
