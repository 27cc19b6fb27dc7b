"""Attention over a tree of prompts and completions: against one dense mask, and its gradient by finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from accord.data.packing import Branch, Unit, pack
from accord.models.packed_attention import TreeLayout
from accord.models.padded_attention import PaddedPieces
from accord.models.tree_attention import Piece, TreeAttention

HEADER = tuple(range(10))


def layout_of(lengths: list[tuple[int, list[int]]], *, shared: bool) -> TreeLayout:
    units = [
        Unit((*(HEADER if shared else ()), *range(100 * i, 100 * i + prompt)), tuple(Branch(tuple(range(answer))) for answer in answers))
        for i, (prompt, answers) in enumerate(lengths, 1)
    ]
    batch = pack(units)
    assert not shared or len(units) < 2 or batch.prefix == len(HEADER)
    return TreeLayout(batch)


def inputs(length: int, heads: int = 4, kv_heads: int = 2, width: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    # Laid out as a projection leaves them: (1, N, heads, d) in memory.
    return [
        torch.randn(1, length, count, width, generator=generator, dtype=torch.float64).transpose(1, 2).requires_grad_(True)
        for count in (heads, kv_heads, kv_heads)
    ]


def dense(
    query: Tensor, key: Tensor, value: Tensor, pieces: tuple[Piece, ...], scale: float, window: int | None, softcap: float | None = None
) -> Tensor:
    """The same with one N x N mask and repeated heads."""
    count = query.shape[2]
    seen = torch.zeros(count, count, dtype=torch.bool)
    for piece in pieces:
        columns = [c for first, last in (*piece.before, (piece.start, piece.end)) for c in range(first, last)]
        for row in range(piece.start, piece.end):
            mine = columns[: columns.index(row) + 1]
            seen[row, mine if window is None else mine[-window:]] = True
    group = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(group, 1).transpose(-1, -2) * scale
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    return scores.masked_fill(~seen, float("-inf")).softmax(-1) @ value.repeat_interleave(group, 1)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(1, 8), max_size=3)), min_size=1, max_size=4),
    shared=st.booleans(),
    window=st.sampled_from([None, 1, 3, 11, 100]),
)
def test_equals_dense_attention(lengths: list[tuple[int, list[int]]], shared: bool, window: int | None) -> None:
    layout = layout_of(lengths, shared=shared)
    given_inputs = inputs(layout.pieces[-1].end)
    found = layout.attend(0, *given_inputs, scale=0.4, window=window, softcap=None)
    expected = dense(*given_inputs, layout.pieces, 0.4, window)
    assert torch.allclose(found, expected, atol=1e-10)
    weights = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).view_as(found)
    for mine, theirs in zip(*(torch.autograd.grad((output * weights).sum(), given_inputs) for output in (found, expected)), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 70), st.lists(st.integers(1, 40), max_size=3)), min_size=1, max_size=4),
    shared=st.booleans(),
    window=st.sampled_from([None, 1, 3, 11, 100]),
    softcap=st.sampled_from([None, 2.0]),
)
def test_padded_pieces_equal_dense_attention(
    lengths: list[tuple[int, list[int]]], shared: bool, window: int | None, softcap: float | None
) -> None:
    """The path of GPUs and of soft-capped scores, here on a CPU."""
    layout = layout_of(lengths, shared=shared)
    given_inputs = inputs(layout.pieces[-1].end)
    padded = PaddedPieces(layout.pieces, torch.device("cpu"))
    assert sum(len(bucket.real) for bucket in padded.buckets) == layout.pieces[-1].end
    found = padded.attend(*given_inputs, 0.4, window, softcap)
    expected = dense(*given_inputs, layout.pieces, 0.4, window, softcap)
    assert torch.allclose(found, expected, atol=1e-10)
    weights = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).view_as(found)
    for mine, theirs in zip(*(torch.autograd.grad((output * weights).sum(), given_inputs) for output in (found, expected)), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-10)


def test_pieces_of_one_size_are_one_call() -> None:
    """Sixteen prompts with an answer each: a call for the prompts, one for the answers, and none for each of the 32 pieces."""
    layout = layout_of([(40 + i, [34 + i]) for i in range(16)], shared=False)
    padded = PaddedPieces(layout.pieces, torch.device("cpu"))
    assert len(layout.pieces) == 32 and [len(bucket.queries) for bucket in padded.buckets] == [16, 16]


@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize("window", [None, 2])
def test_gradient_by_finite_differences(window: int | None, join: bool) -> None:
    layout = layout_of([(2, [3, 1]), (1, [2])], shared=False)
    pieces = layout.joined if join else layout.pieces
    assert torch.autograd.gradcheck(lambda q, k, v: TreeAttention.apply(q, k, v, pieces, 0.5, window), inputs(layout.pieces[-1].end))


def test_generic_path_is_the_same() -> None:
    """What a GPU, a half type or a soft cap runs: piece by piece through torch's attention or ours."""
    layout = layout_of([(4, [3, 1]), (2, [])], shared=True)
    given_inputs = inputs(layout.pieces[-1].end)
    found = layout.attend(0, *given_inputs, scale=0.4, window=5, softcap=1e6)  # so wide a cap changes nothing
    assert torch.allclose(found, layout.attend(0, *given_inputs, scale=0.4, window=5, softcap=None), atol=1e-6)


def test_long_masks_are_not_kept() -> None:
    short, long = (Piece(first, first + 10, ((0, first),)).mask(None, torch.float32) for first in (90, 2990))
    assert short is not None and long is not None
    assert torch.equal(short[:, :10], long[:, :10]) and torch.equal(short[:, -10:], long[:, -10:])
    assert long.untyped_storage().nbytes() == 4 * 10 * 3000


def test_a_pair_is_one_call_and_a_wide_group_is_not() -> None:
    pair, group = layout_of([(120, [40, 50])], shared=False), layout_of([(30, [64] * 8)], shared=False)
    assert len(pair.joined) == 1 and len(pair.pieces) == 3
    assert group.joined == group.pieces and len(group.pieces) == 9
