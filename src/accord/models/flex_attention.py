"""Attention of a packed batch by torch's flex attention: one call over the whole axis that skips the blocks nobody sees.

Chosen with `attention: flex`, for GPUs; on a CPU torch computes it forward only, which the tests compare with the path branch by branch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from accord.data.packing import PackedBatch

SHORTEST = 128
"""Batches of fewer tokens attend branch by branch: torch takes a kernel of another kind for them, and tests of that size failed on an H200 (torch 2.11)."""


class FlexLayout:
    """The tree of `TreeLayout` as a mask that is asked by position: which row, which branch of it, and where in the row."""

    def __init__(self, batch: PackedBatch) -> None:
        """The prefix is row -1 and seen by all; prompts are branch 0 of their row and seen by all of it."""
        self.length = batch.num_tokens
        row, branch = [-1] * batch.prefix, [0] * batch.prefix
        for index, span in enumerate(batch.spans):
            for number, (first, last) in enumerate((span.prompt, *span.branches)):
                row += [index] * (last - first)
                branch += [number] * (last - first)
        device = batch.tokens.device
        self.row, self.branch = (torch.tensor(values, device=device) for values in (row, branch))
        self.place = batch.positions
        self._masks: dict[int | None, Any] = {}

    def sees(self, query: Tensor, key: Tensor, window: int | None) -> Tensor:
        """Bool, of the broadcast shape of two tensors of positions: whether one attends to the other."""
        shared = self.row[key] < 0
        own = (self.row[key] == self.row[query]) & ((self.branch[key] == 0) | (self.branch[key] == self.branch[query]))
        seen = (shared | own) & (self.place[key] <= self.place[query])
        return seen if window is None else seen & (self.place[key] > self.place[query] - window)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None, softcap: float | None
    ) -> Tensor:
        """(1, heads, N, head_dim), as `Layout` says."""
        flex = _flex(query.device.type)
        return flex(query, key, value, _capped(softcap), self._mask(window), scale, enable_gqa=True)  # type: ignore[no-any-return]

    def _mask(self, window: int | None) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        if window not in self._masks:
            self._masks[window] = create_block_mask(
                lambda _batch, _head, query, key: self.sees(query, key, window), None, None, self.length, self.length, self.place.device
            )
        return self._masks[window]


@lru_cache
def _flex(device: str) -> Callable[..., Any]:
    """Compiled where it has kernels of its own. Not as `dynamic`: block sizes that are symbols fit no kernel. Lengths become symbols when they change."""
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention if device == "cpu" else torch.compile(flex_attention)


@lru_cache
def _capped(softcap: float | None) -> Callable[..., Tensor] | None:
    """What becomes of a score; None leaves it."""
    if softcap is None:
        return None

    def cap(score: Tensor, *_: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap
