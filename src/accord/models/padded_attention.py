"""Attention of a packed batch in few calls: pieces of about one size side by side, padded to the largest of them.

For GPUs, where a call costs more than its arithmetic, and for scores that no fused kernel takes (soft-capped ones, half precision on a CPU).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from accord.models.take import take
from accord.models.tree_attention import Piece

SMALLEST = 32
"""Pieces below this many positions share a bucket."""


class Bucket:
    """P pieces padded to L queries and K keys.

    Padding repeats a piece's last query and its first key, and sees and is seen as such; what padded queries find is dropped, and padded
    keys are masked.
    """

    def __init__(self, pieces: Sequence[Piece], device: torch.device) -> None:
        lengths, totals = ([count(piece) for piece in pieces] for count in (lambda one: one.end - one.start, lambda one: one.total))
        longest, widest = max(lengths), max(totals)
        steps = torch.arange(longest).clamp_max(torch.tensor(lengths)[:, None] - 1)
        queries = torch.tensor([piece.start for piece in pieces])[:, None] + steps
        keys = torch.stack([F.pad(torch.cat([torch.arange(*span) for span in piece.seen]), (0, widest - piece.total)) for piece in pieces])
        self.queries, self.keys = queries.to(device), keys.to(device)
        """(P, L) and (P, K): positions on the axis."""
        real = torch.arange(longest) < torch.tensor(lengths)[:, None]
        self.real = real.flatten().nonzero()[:, 0].to(device)
        """Which of the P * L queries are no padding."""
        self.covered = queries[real]
        """Positions of these, on the CPU."""
        self.places = (torch.tensor(totals)[:, None] - torch.tensor(lengths)[:, None] + steps).to(device)
        """(P, L): where each query stands among its keys."""
        self._masks: dict[int | None, Tensor] = {}

    def mask(self, window: int | None) -> Tensor:
        """(P, 1, L, K) bool: True where a query sees a key."""
        if window not in self._masks:
            places = self.places[:, None, :, None]
            keys = torch.arange(self.keys.shape[1], device=places.device)
            seen = keys <= places
            self._masks[window] = seen if window is None else seen & (keys > places - window)
        return self._masks[window]


class PaddedPieces:
    """The pieces of a batch in buckets. All of the axis is covered, each position once."""

    def __init__(self, pieces: Iterable[Piece], device: torch.device) -> None:
        sorted_by_size: dict[tuple[int, int], list[Piece]] = {}
        for piece in pieces:
            sorted_by_size.setdefault((_size(piece.end - piece.start), _size(piece.total)), []).append(piece)
        self.buckets = [Bucket(some, device) for _, some in sorted(sorted_by_size.items())]
        self.order = torch.cat([bucket.covered for bucket in self.buckets]).argsort().to(device)
        """(N,): which of the buckets' outputs, end to end, belongs to each position."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, softcap: float | None) -> Tensor:
        """softmax(q k^T scale) v for every piece.

        Args:
            query: (1, heads, N, d).
            key, value: (1, kv_heads, N, d), kv_heads a divisor of heads.
            window: how many positions a query sees at most, itself among them. None: all up to its own.
            softcap: scores become c tanh(score / c). None leaves them.
        Returns:
            (1, heads, N, d of the values).
        """
        found = []
        with _no_plans(query.device):
            for bucket in self.buckets:
                queries = take(query[0].transpose(0, 1), bucket.queries).transpose(1, 2)
                keys, values = (take(tensor[0].transpose(0, 1), bucket.keys).transpose(1, 2) for tensor in (key, value))
                output = padded_attention(queries, keys, values, bucket.mask(window), scale, softcap)
                found.append(take(output.transpose(1, 2).flatten(0, 1), bucket.real))
        return take(torch.cat(found), self.order).transpose(0, 1).unsqueeze(0)


def padded_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, softcap: float | None) -> Tensor:
    """Query (P, heads, L, d), key and value (P, kv_heads, K, d), mask (P, 1, L, K). Returns (P, heads, L, d)."""
    groups = query.shape[1] // key.shape[1]
    if softcap is None:
        keys, values = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)
    grouped = query.unflatten(1, (-1, groups))
    scores = torch.matmul(grouped, key.unsqueeze(2).transpose(-1, -2))
    scores = (scores if scores.dtype == torch.float64 else scores.float()) * scale
    scores = softcap * torch.tanh(scores / softcap)
    weights = scores.masked_fill(~mask.unsqueeze(2), float("-inf")).softmax(dim=-1).to(value.dtype)
    return torch.matmul(weights, value.unsqueeze(2)).flatten(1, 2)


def _size(count: int) -> int:
    """The power of two that holds so many."""
    return max(SMALLEST, 1 << (count - 1).bit_length())


@contextmanager
def _no_plans(device: torch.device) -> Iterator[None]:
    """Without cuDNN's attention, which makes a plan for every new shape: on an H200 steps of new lengths took 4 s, of known ones 0.7."""
    if device.type != "cuda":
        yield
        return
    kinds: Any = torch.nn.attention.SDPBackend
    with torch.nn.attention.sdpa_kernel([kinds.FLASH_ATTENTION, kinds.EFFICIENT_ATTENTION, kinds.MATH]):
        yield
