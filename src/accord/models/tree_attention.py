"""Attention of a packed batch as one function on the CPU: torch's own flash kernel piece by piece, gradients written where they belong.

Through autograd every slice of queries, keys and values would make a gradient as long as the whole axis, so the cost of the slices would
grow with tokens times completions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

LARGEST_KEPT_MASK = 2048


class Piece(NamedTuple):
    """Positions start..end of the axis attend causally to themselves and to all of `before`."""

    start: int
    end: int
    before: tuple[tuple[int, int], ...] = ()

    @property
    def seen(self) -> tuple[tuple[int, int], ...]:
        """What it attends to, in order; neighbours joined, empty parts left out."""
        joined: list[tuple[int, int]] = []
        for first, last in (*self.before, (self.start, self.end)):
            if joined and joined[-1][1] == first:
                joined[-1] = (joined[-1][0], last)
            elif last > first:
                joined.append((first, last))
        return tuple(joined)


def fits(query: Tensor, value: Tensor) -> bool:
    """Whether `TreeAttention` takes these: CPU, fp32 or fp64, heads as wide for values as for queries."""
    return query.device.type == "cpu" and query.dtype in (torch.float32, torch.float64) and query.shape[-1] == value.shape[-1]


class TreeAttention(torch.autograd.Function):
    """softmax(q k^T scale) v for every piece. Grouped keys and values are read in place: none is repeated.

    Args of forward: query (1, heads, N, head_dim), key and value (1, kv_heads, N, head_dim), the pieces, which cover the axis, the
    scale, and the sliding window (None: none). Returns (1, heads, N, head_dim).
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: Sequence[Piece], scale: float, window: int | None) -> Tensor:
        groups = key.shape[1]
        # (1, N, heads, d) in memory, as the output projection wants it.
        output = query.new_empty(1, query.shape[2], query.shape[1], query.shape[3]).transpose(1, 2)
        queries, outputs = _grouped(query, groups), _grouped(output, groups)
        sums = []
        for piece in pieces:
            keys, values = _seen(key, piece, queries.shape[1]), _seen(value, piece, queries.shape[1])
            mask = _mask(piece, keys.shape[2], window, query.dtype)
            result, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                queries[:, :, piece.start : piece.end], keys, values, 0.0, mask is None, attn_mask=mask, scale=scale
            )
            outputs[:, :, piece.start : piece.end] = result
            sums.append(log_sum)
        ctx.save_for_backward(query, key, value, output, *sums)
        ctx.pieces, ctx.scale, ctx.window = pieces, scale, window
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        query, key, value, output, *sums = ctx.saved_tensors
        groups = key.shape[1]
        slopes = [tensor.new_zeros(1, tensor.shape[2], tensor.shape[1], tensor.shape[3]).transpose(1, 2) for tensor in (query, key, value)]
        queries, outputs, given, grad_query = (_grouped(tensor, groups) for tensor in (query, output, gradients[0], slopes[0]))
        for piece, log_sum in zip(ctx.pieces, sums, strict=True):
            keys, values = _seen(key, piece, queries.shape[1]), _seen(value, piece, queries.shape[1])
            mask = _mask(piece, keys.shape[2], ctx.window, query.dtype)
            own = slice(piece.start, piece.end)
            by_query, by_key, by_value = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                given[:, :, own],
                queries[:, :, own],
                keys,
                values,
                outputs[:, :, own],
                log_sum,
                0.0,
                mask is None,
                attn_mask=mask,
                scale=ctx.scale,
            )
            grad_query[:, :, own] = by_query
            for slope, part in ((slopes[1], by_key.sum(1)), (slopes[2], by_value.sum(1))):
                begin = 0
                for first, last in piece.seen:
                    slope[0, :, first:last] += part[:, begin : begin + last - first]
                    begin += last - first
        return (*slopes, None, None, None)


def _grouped(tensor: Tensor, groups: int) -> Tensor:
    """(1, heads, N, d) as (kv_heads, group, N, d), no copy."""
    return tensor[0].unflatten(0, (groups, -1))


def _seen(tensor: Tensor, piece: Piece, group: int) -> Tensor:
    """What a piece sees of keys or values (1, kv_heads, N, d), as (kv_heads, group, K, d) with the group's heads on the same memory."""
    parts = [tensor[0, :, first:last] for first, last in piece.seen]
    seen = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return seen.unsqueeze(1).expand(-1, group, -1, -1)


def _mask(piece: Piece, total: int, window: int | None, dtype: torch.dtype) -> Tensor | None:
    """(L, K) added to the scores, or None when plain causal attention says it all."""
    length = piece.end - piece.start
    window = window if window is not None and window < total else None
    if length == total and window is None:
        return None
    if total > LARGEST_KEPT_MASK:
        return _rows_of_mask(length, total, window, dtype)
    size = 256
    while size < total:
        size *= 2
    return _square_mask(size, window, dtype)[total - length : total, :total]


@lru_cache(maxsize=64)
def _square_mask(size: int, window: int | None, dtype: torch.dtype) -> Tensor:
    return _rows_of_mask(size, size, window, dtype)


def _rows_of_mask(length: int, total: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """Query i stands at position K - L + i and sees positions up to its own, at most `window` of them: 0 there, -inf elsewhere."""
    queries = torch.arange(total - length, total)[:, None]
    keys = torch.arange(total)[None, :]
    seen = keys <= queries
    if window is not None:
        seen &= keys > queries - window
    return torch.zeros(length, total, dtype=dtype).masked_fill_(~seen, float("-inf"))
