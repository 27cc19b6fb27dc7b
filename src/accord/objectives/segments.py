"""Reductions over completions on the flat token axis, and whitening."""

from __future__ import annotations

import torch
from torch import Tensor

from accord.errors import ShapeError


def at_least_fp32(values: Tensor) -> Tensor:
    """Half types become fp32; fp32 and fp64 stay."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def segment_sum(values: Tensor, completion: Tensor, num_completions: int) -> Tensor:
    """Sum of each completion's values.

    Args:
        values: one value a counted token. (M,)
        completion: which completion each belongs to. (M,), int64
        num_completions: C; a completion without tokens gives 0.
    Returns:
        (C,)
    Raises:
        ShapeError: if the two tensors differ in length.
    """
    if values.shape != completion.shape:
        raise ShapeError(f"values {tuple(values.shape)} and completion {tuple(completion.shape)} must have the same shape (M,).")
    values = at_least_fp32(values)
    return torch.zeros(num_completions, dtype=values.dtype, device=values.device).index_add(0, completion, values)


def segment_count(completion: Tensor, num_completions: int) -> Tensor:
    """Counted tokens of each completion. (C,), int64"""
    return torch.bincount(completion, minlength=num_completions)


def segment_mean(values: Tensor, completion: Tensor, num_completions: int) -> Tensor:
    """Mean of each completion's values; 0 for a completion without tokens. (C,)"""
    sums = segment_sum(values, completion, num_completions)
    return sums / segment_count(completion, num_completions).clamp_min(1).to(sums.dtype)


def segment_reverse_cumsum(values: Tensor, completion: Tensor) -> Tensor:
    """Sum from each token to the end of its completion: undiscounted reward-to-go. (M,)"""
    values = at_least_fp32(values)
    if len(values) == 0:
        return values
    num_completions = int(completion[-1]) + 1
    before = values.cumsum(0) - values  # everything earlier on the axis
    sums = segment_sum(values, completion, num_completions)
    upto = sums.cumsum(0)[completion]  # everything up to the end of this completion
    return upto - before


def whiten(values: Tensor, *, shift_mean: bool, epsilon: float = 1e-8) -> Tensor:
    """Scale to variance 1 (biased variance, as the original implementations take it).

    Args:
        values: (M,)
        shift_mean: True subtracts the mean for good: the result has mean 0 (what advantages need). False puts the mean back after
            scaling (what token rewards need, so that their sign keeps its meaning).
        epsilon: added to the variance.
    Returns:
        (M,); constant values give 0 (or the mean), never NaN.
    """
    values = at_least_fp32(values)
    mean = values.mean()
    scaled = (values - mean) * torch.rsqrt(values.var(unbiased=False) + epsilon)
    return scaled if shift_mean else scaled + mean
