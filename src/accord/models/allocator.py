"""What glibc's allocator does with freed activations: keep them for the next step, or give them back where memory is what is short.

And where tensors come from whose place is wanted again: `fresh`.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_THRESHOLD, _TRIM_THRESHOLD = 1 << 30, (1 << 31) - 1
_MMAP_SCARCE, _TRIM_SCARCE = 4 << 20, 64 << 20
_ALIGNED = 64
"""Bytes that torch aligns a tensor to."""
_ROOM = 512
"""Bytes beyond a tensor's own: torch asks for up to 96 more than a tensor has, so its tensors find room in what a tensor of `fresh` leaves."""
_SMALL = 1 << 16
_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


def keep_freed_memory() -> bool:
    """Have large blocks come from the heap and stay there when freed, so that the next step finds its pages in place.

    Taken from the system block by block, the activations of a step (2 to 10 MB each) cost a page fault per 4 kB: a third of the
    processor time of SFT on SmolLM2-135M went into the kernel that way. The price is a higher peak of resident memory.
    Left alone where the user chose (MALLOC_MMAP_THRESHOLD_) and where the C library is another one.

    Returns:
        True when it was set.
    """
    return _set(_MMAP_THRESHOLD, _TRIM_THRESHOLD)


def return_freed_memory() -> bool:
    """Have large blocks come from the system and go back when freed: the opposite, for activation checkpointing.

    What a layer keeps is then small and what passes through it large. On one heap the small blocks end up between the large ones and
    hold their place: a pair of 4,096 tokens had 3.3 GB resident after the forward pass of SmolLM2-135M on the heap, 1.7 GB like this.

    Returns:
        True when it was set.
    """
    return _set(_MMAP_SCARCE, _TRIM_SCARCE)


def give_back_freed() -> None:
    """Give the system the pages of all that is free on the heap now, holes between what is in use included.

    For the turn from training to sampling and back. A second weight set is of few large blocks, activations of many smaller ones: what the
    one leaves does not hold the other, and a heap that keeps both is as large as both.
    """
    if _glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _set(mmap_threshold: int, trim_threshold: int) -> bool:
    if not _glibc() or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(_M_MMAP_THRESHOLD, mmap_threshold)) and bool(library.mallopt(_M_TRIM_THRESHOLD, trim_threshold))


@cache
def _glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def fresh(shape: Sequence[int], like: Tensor) -> Tensor:
    """A tensor of any content, whose place the next one of its size can take when it is freed.

    torch aligns its tensors with posix_memalign, which in glibc asks for 96 bytes more than it keeps: the hole that a freed tensor leaves is
    too small for the next of the same size, so that one breaks a larger hole or comes on top, and the heap of a forward pass grows to one and a half
    times what is in use. Ordinary malloc takes the hole.

    Args:
        like: of which type and device.
    """
    count = math.prod(shape)
    kind = _NUMPY.get(like.dtype)
    if kind is None or count * like.element_size() < _SMALL or like.device.type != "cpu" or not _glibc():
        return like.new_empty(tuple(shape))
    size = like.element_size()
    memory = torch.from_numpy(np.empty(count + (_ALIGNED + _ROOM) // size, dtype=kind))
    start = -memory.data_ptr() % _ALIGNED // size
    return like.new_empty(0).set_(memory.untyped_storage(), start, tuple(shape))  # type: ignore[call-overload]
