"""Attention for the packed layout, plugged into transformers' public attention interface.

A layout is passed as a keyword through the model's own forward; this function asks it to attend. Models whose attention needs
something we do not know (an unknown keyword, attention sinks) are rejected here and run row by row instead.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from accord.data.packing import PackedBatch
from accord.models.padded_attention import PaddedPieces
from accord.models.tree_attention import Piece, TreeAttention, fits, pieces_of

NAME = "accord_packed"
_HARMLESS = {"position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states", "is_causal", "past_key_values"}


class UnsupportedAttention(Exception):
    """The model passes something to its attention that the packed path does not implement."""


class Layout(Protocol):
    """Knows which token may see which. `attend` gets (1, heads, N, head_dim) queries and (1, kv_heads, N, head_dim) keys and values."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None, softcap: float | None
    ) -> Tensor:
        """Attention output, (1, heads, N, head_dim)."""
        ...


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function registered with transformers. Returns ((1, N, heads, head_dim), None).

    Raises:
        UnsupportedAttention: on a keyword we do not implement, so that a model is never silently wrong.
    """
    unknown = sorted(name for name, given in kwargs.items() if given is not None and name not in _HARMLESS)
    if unknown or packed is None or dropout:
        raise UnsupportedAttention(f"attention argument {', '.join(unknown) or 'dropout'}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer: Any = getattr(module, "layer_idx", None)
    if layer is None:  # by their number layers keep their keys apart while sampling
        raise UnsupportedAttention("attention without layer_idx")
    output = packed.attend(layer, query, key, value, scale=scale, window=sliding_window, softcap=softcap)
    return output.transpose(1, 2), None


class TreeLayout:
    """The shared prefix causal, each prompt against [prefix; itself], each completion against [prefix; its prompt; itself]. No N x N mask, no repeated heads."""

    def __init__(self, batch: PackedBatch) -> None:
        self.prefix, self.spans = batch.prefix, [(span.prompt, span.branches) for span in batch.spans]
        self._padded: PaddedPieces | None = None

    @cached_property
    def joined(self) -> tuple[Piece, ...]:
        """As few calls as pay, for the CPU's kernel."""
        return pieces_of(self.prefix, self.spans, join=True)

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """A call for the prefix, each prompt and each completion."""
        return pieces_of(self.prefix, self.spans, join=False)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None, softcap: float | None
    ) -> Tensor:
        """(1, heads, N, head_dim), as `Layout` says."""
        if softcap is None and fits(query, value):
            return TreeAttention.apply(query, key, value, self.joined, scale, window)  # type: ignore[no-any-return]
        if self._padded is None:
            self._padded = PaddedPieces(self.pieces, query.device)
        return self._padded.attend(query, key, value, scale, window, softcap)


def register() -> None:
    """Make `accord_packed` known to transformers; without a mask function transformers builds no mask at all."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
