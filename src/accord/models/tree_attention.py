"""Attention of a packed batch as one function on the CPU: torch's own flash kernel piece by piece, gradients written where they belong.

Through autograd every slice of queries, keys and values would make a gradient as long as the whole axis, so the cost of the slices would
grow with tokens times completions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

LARGEST_KEPT_MASK = 2048
WORTH_JOINING = 1.7
"""A prompt and its branches attend in one call, siblings masked, when that looks at no more than so many times the pairs: the kernel is
two to three times faster a pair on 200 queries than on 50 (measured on two AVX2 cores)."""
LARGEST_JOINED = 512
Span = tuple[int, int]


@dataclass(frozen=True)
class Piece:
    """Positions start..end of the axis attend causally to themselves and to all of `before`; branches inside it not to their siblings."""

    start: int
    end: int
    before: tuple[Span, ...] = ()
    branches: tuple[Span, ...] = ()
    """Parts of start..end that see what comes before the first of them and themselves alone."""
    _masks: dict[tuple[int | None, torch.dtype], Tensor | None] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def seen(self) -> tuple[Span, ...]:
        """What it attends to, in order; neighbours joined, empty parts left out."""
        joined: list[Span] = []
        for first, last in (*self.before, (self.start, self.end)):
            if joined and joined[-1][1] == first:
                joined[-1] = (joined[-1][0], last)
            elif last > first:
                joined.append((first, last))
        return tuple(joined)

    @cached_property
    def total(self) -> int:
        """How many positions it attends to."""
        return sum(last - first for first, last in self.seen)

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """(L, K) added to the scores, or None when plain causal attention says it all. Made once."""
        if (window, dtype) not in self._masks:
            self._masks[window, dtype] = self._branched(window, dtype) if len(self.branches) > 1 else self._causal(window, dtype)
        return self._masks[window, dtype]

    def _causal(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        length, total = self.end - self.start, self.total
        window = window if window is not None and window < total else None
        if length == total and window is None:
            return None
        if total > LARGEST_KEPT_MASK:
            return _rows_of_mask(length, total, window, dtype)
        size = 256
        while size < total:
            size *= 2
        return _square_mask(size, window, dtype)[total - length : total, :total]

    def _branched(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Causal in the row's own order, where every branch follows the prompt; a branch sees none of its siblings."""
        length, total = self.end - self.start, self.total
        branch, place = torch.zeros(total, dtype=torch.int64), torch.arange(total)
        first_of_all, offset = self.branches[0][0], total - self.end
        for number, (first, last) in enumerate(self.branches, 1):
            branch[first + offset : last + offset] = number
            place[first + offset : last + offset] -= first - first_of_all
        query_branch, query_place = branch[total - length :, None], place[total - length :, None]
        seen = (place <= query_place) & ((branch == 0) | (branch == query_branch))
        if window is not None:
            seen &= place > query_place - window
        return torch.zeros(length, total, dtype=dtype).masked_fill_(~seen, float("-inf"))


def pieces_of(prefix: int, spans: Iterable[tuple[Span, Sequence[Span]]], *, join: bool) -> tuple[Piece, ...]:
    """The calls that a tree of prompts and branches needs: the shared prefix, then for each prompt one for it and one a branch.

    Args:
        spans: of each row its prompt (after the prefix) and its branches, end to end.
        join: True makes one call of a prompt and its branches where that is faster. False never does.
    """
    shared = (0, prefix)
    pieces = [Piece(*shared)]
    for prompt, branches in spans:
        apart = [Piece(*prompt, (shared,)), *(Piece(*branch, (shared, prompt)) for branch in branches)]
        whole = Piece(prompt[0], branches[-1][1] if branches else prompt[1], (shared,), tuple(branches))
        pairs = sum((piece.end - piece.start) * piece.total for piece in apart)
        size = whole.end - whole.start
        joined = join and branches and size <= LARGEST_JOINED and size * whole.total <= WORTH_JOINING * pairs
        pieces += [whole] if joined else apart
    return tuple(piece for piece in pieces if piece.end > piece.start)


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
            mask = piece.mask(window, query.dtype)
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
            mask = piece.mask(ctx.window, query.dtype)
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
