"""Large buffers of a moment, beside the heap.

A chunk of logits is 50 MB on a vocabulary of 49,152. Between activations that come and go, the heap seldom has a hole of that size and grows
at its end instead; what was the buffer is then filled with small tensors, and the next buffer finds no hole either: rounds of PPO took
0.4 GB more than what was in use. Pages of its own go back to the system with the buffer.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

_LARGE = 1 << 20
"""Bytes; smaller ones find their place anywhere."""


def workspace(shape: Sequence[int], like: Tensor) -> Tensor:
    """An uninitialised tensor of a shape, of the type and on the device of `like`; on a CPU in pages of its own where it is large."""
    size = math.prod(shape) * like.itemsize
    if like.device.type != "cpu" or size < _LARGE:
        return like.new_empty(shape)
    pages = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=like.dtype).view(*shape)
