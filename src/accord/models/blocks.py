"""Weights in the blocks that a GGUF file stores them in: 32 weights with one scale, widened a few rows at a time.

What llama.cpp's format says of a block (ggml-common.h), and nothing rounded once more: the numbers are those of gguf's own `dequantize`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Blocks:
    """A weight matrix as a file stores it."""

    raw: Tensor
    """(out, bytes of a row), uint8."""
    kind: str
    """The file's name of the type: Q8_0, Q4_K, F16, ..."""
    shape: tuple[int, ...]
    """(out, in)."""

    def dense(self) -> Tensor:
        """All of it in float32, as the gguf package reads it.

        Raises:
            NotImplementedError: if it cannot read this type.
        """
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        kind: Any = GGMLQuantizationType[self.kind]
        return torch.from_numpy(dequantize(self.raw.numpy(), kind)).view(self.shape)

    def rows(self, chosen: Tensor) -> Tensor:
        """Some rows in float32, of a type that can be held."""
        return widen_blocks(self.raw[chosen], self.kind, torch.empty(len(chosen), self.shape[1]))


def can_hold(kind: str) -> bool:
    """Whether layers compute with weights of this type as they are."""
    return kind in _WIDEN


def widen_blocks(raw: Tensor, kind: str, into: Tensor) -> Tensor:
    """Rows of a weight.

    Args:
        raw: (rows, bytes of a row), uint8.
        kind: a type for which `can_hold` is True.
        into: (rows, in) of a float type, written over and returned.
    """
    _WIDEN[kind](raw, into)
    return into


def _plain(dtype: torch.dtype) -> Callable[[Tensor, Tensor], object]:
    return lambda raw, into: into.copy_(raw.view(dtype))


def _q8_0(raw: Tensor, into: Tensor) -> None:
    """34 bytes: a scale in half precision, 32 signed bytes."""
    blocks = raw.view(-1, 34)
    into.view(-1, 32).copy_(blocks[:, 2:].view(torch.int8)).mul_(_half(blocks, 0, into.dtype))


def _q4_0(raw: Tensor, into: Tensor) -> None:
    """18 bytes: a scale, then codes 0 to 15 of the numbers -8 to 7; byte k holds number k below and number k + 16 above."""
    blocks = raw.view(-1, 18)
    _nibbles(blocks[:, 2:], into).sub_(8.0).mul_(_half(blocks, 0, into.dtype))


def _q4_1(raw: Tensor, into: Tensor) -> None:
    """20 bytes: a scale and an offset, then codes as in Q4_0 that begin at the offset."""
    blocks = raw.view(-1, 20)
    _nibbles(blocks[:, 4:], into).mul_(_half(blocks, 0, into.dtype)).add_(_half(blocks, 2, into.dtype))


def _nibbles(codes: Tensor, into: Tensor) -> Tensor:
    numbers = into.view(-1, 2, 16)
    numbers[:, 0].copy_(codes & 15)
    numbers[:, 1].copy_(codes >> 4)
    return into.view(-1, 32)


def _half(blocks: Tensor, first: int, dtype: torch.dtype) -> Tensor:
    """(blocks, 1): the number in half precision that begins at byte `first` of each block."""
    return blocks[:, first : first + 2].contiguous().view(torch.float16).to(dtype)


_WIDEN: dict[str, Callable[[Tensor, Tensor], object]] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "F16": _plain(torch.float16),
    "BF16": _plain(torch.bfloat16),
    "F32": _plain(torch.float32),
}
HELD = tuple(_WIDEN)
