"""Weak-to-strong generalisation (Burns et al. 2023, arXiv:2312.09390): a strong model learns from a weak one's soft labels.

How much of what lies between the two it gets back is the performance gap recovered.
"""

from __future__ import annotations

import torch
from torch import Tensor

from accord.errors import ShapeError


def confident_target(weak: Tensor, strong: Tensor, *, confidence: float, threshold: float = 0.5) -> Tensor:
    """(1 - c) weak + c [strong > threshold]: the weak label, drawn towards what the strong model itself is sure of (Burns et al., section 4.3.1).

    No gradient goes through the strong model's part. A prediction exactly at the threshold is 0.5.

    Args:
        weak: soft labels, 0 to 1; broadcast against `strong`.
        strong: the strong model's probabilities, any shape.
        confidence: c, 0 (the weak label alone) to 1.
        threshold: above it a prediction counts as 1. For comparisons 0.5: swapping the answers must change nothing.
    """
    decided = (strong.detach() > threshold).to(strong.dtype) + 0.5 * (strong.detach() == threshold).to(strong.dtype)
    return (1 - confidence) * weak + confidence * decided


def matching_threshold(strong: Tensor, weak: Tensor) -> float:
    """The threshold at which as large a share of the strong model's predictions is above as of the weak labels is above 0.5.

    It keeps a strong model that doubts everything from calling everything 0: the classes keep their balance. Between two predictions
    it lies halfway; where all or none are above, beyond them.

    Args:
        strong, weak: probabilities. (n,)
    Raises:
        ShapeError: if they differ in shape, or are empty.
    """
    if strong.shape != weak.shape or strong.dim() != 1 or not len(strong):
        raise ShapeError(f"strong {tuple(strong.shape)} and weak {tuple(weak.shape)} must have the same shape (n,), n > 0.")
    ordered = torch.cat((strong.new_ones(1), strong.detach().sort(descending=True).values, strong.new_zeros(1))).double()
    above = int((weak > 0.5).sum())
    return float((ordered[above] + ordered[above + 1]) / 2)


def ramped(step: int, steps: int, *, most: float, warmup: float) -> float:
    """A coefficient that rises from 0 at the first step to `most` after the share `warmup` of all steps, in a straight line, and stays.

    (The paper's published code rises to `most * warmup` and then jumps.)

    Args:
        step: from 0.
        warmup: 0 is `most` from the start.
    """
    return most if warmup <= 0 else most * min(1.0, step / (warmup * max(steps, 1)))


def gap_recovered(weak: float, strong: float, ceiling: float) -> float | None:
    """(strong - weak) / (ceiling - weak): 0 is no better than the weak supervisor, 1 as good as with the truth. None: there is no gap.

    Args:
        weak: accuracy of the weak model that made the labels.
        strong: of the strong model that learned from them.
        ceiling: of the strong model that learned from the truth.
    """
    return None if ceiling == weak else (strong - weak) / (ceiling - weak)
