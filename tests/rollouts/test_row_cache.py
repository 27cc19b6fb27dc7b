"""The cache of sampled rows: prompts kept once, and attention in two parts that is plain attention."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from accord.data.packing import Unit, pack
from accord.rollouts.row_cache import Entering, RowCache, attention, compacted

HEADS, KV_HEADS, WIDTH = 4, 2, 8


class Rows:
    """A cache beside a plain record of every key and value that each row has seen."""

    def __init__(self, seed: int, window: int | None, softcap: float | None, dtype: torch.dtype = torch.float32) -> None:
        self.random, self.generator = random.Random(seed), torch.Generator().manual_seed(seed)
        self.window, self.softcap, self.dtype = window, softcap, dtype
        self.cache = RowCache(12, 9, 16, torch.device("cpu"))
        self.seen: list[tuple[Tensor, Tensor]] = []

    def drawn(self, heads: int, count: int) -> Tensor:
        return torch.randn(1, heads, count, WIDTH, generator=self.generator, dtype=self.dtype)

    def enter(self, siblings: list[int]) -> None:
        lengths = [self.random.randint(1, 9) for _ in siblings]
        batch = pack([Unit(tuple(self.random.sample(range(100), length)), ()) for length in lengths])
        count = len(batch.tokens)
        key, value = self.drawn(KV_HEADS, count), self.drawn(KV_HEADS, count)
        layout = Entering(self.cache, batch)
        layout.attend(0, self.drawn(HEADS, count), key, value, scale=0.5, window=self.window, softcap=self.softcap)
        owners = [unit for unit, many in enumerate(siblings) for _ in range(many)]
        self.cache.enter(lengths, owners)
        for owner in owners:
            start, end = batch.spans[owner].prompt
            mine = [torch.cat((part[0, :, : batch.prefix], part[0, :, start:end]), dim=1) for part in (key, value)]
            self.seen.append((mine[0], mine[1]))

    def step(self) -> None:
        """One more token a row: what the cache finds is plain attention over all that the row has seen."""
        count = len(self.seen)
        query, key, value = self.drawn(HEADS, count), self.drawn(KV_HEADS, count), self.drawn(KV_HEADS, count)
        found = self.cache.attend(0, query, key, value, scale=0.5, window=self.window, softcap=self.softcap)
        self.cache.advance()
        for row in range(count):
            self.seen[row] = tuple(
                torch.cat((old, new[0, :, row : row + 1]), dim=1) for old, new in zip(self.seen[row], (key, value), strict=True)
            )  # type: ignore[assignment]
            keys, values = (part.repeat_interleave(HEADS // KV_HEADS, dim=0) for part in self.seen[row])
            scores = (query[0, :, row : row + 1] @ keys.transpose(1, 2)) * 0.5
            if self.softcap is not None:
                scores = self.softcap * torch.tanh(scores / self.softcap)
            if self.window is not None:
                scores[..., : max(0, keys.shape[1] - self.window)] = float("-inf")
            assert torch.allclose(found[0, :, row], (scores.softmax(-1) @ values)[:, 0], atol=1e-5), row

    def keep(self, slots: list[int]) -> None:
        self.seen = [self.seen[row] for row in self.cache.keep(slots)]


@pytest.mark.parametrize(("window", "softcap"), [(None, None), (4, None), (None, 3.0), (6, 2.0)])
@pytest.mark.parametrize("seed", range(4))
def test_rows_that_come_and_go_attend_as_if_alone(seed: int, window: int | None, softcap: float | None) -> None:
    rows = Rows(seed, window, softcap)
    rows.enter([3, 1, 2])
    for _ in range(3):
        rows.step()
    rows.keep([1, 3, 5])
    rows.step()
    rows.enter([2, 4])
    for _ in range(2):
        rows.step()
    rows.keep(sorted(rows.random.sample(range(9), 4)))
    rows.step()


def test_a_prompt_is_kept_once_however_many_answer_it() -> None:
    rows = Rows(0, None, None)
    rows.enter([8, 4])
    assert rows.cache.prompts.keys[0].shape == (2, KV_HEADS, 9, WIDTH)
    assert rows.cache.answers.room == 12
    rows.step()
    rows.keep([8, 9])  # the first prompt has no answers left: the other takes its place
    assert rows.cache.standing.owners == (0, 0) and len(rows.cache.standing.prompts) == 1
    rows.step()


@given(st.sets(st.integers(0, 40), max_size=20))
@settings(max_examples=50, deadline=None)
def test_compacting_keeps_everyone_and_moves_as_few_as_can_be(kept: set[int]) -> None:
    order, movers, gaps = compacted(sorted(kept))
    assert set(order) == kept and len(order) == len(kept)
    assert len(movers) == len(gaps) == sum(one >= len(kept) for one in kept)
    assert all(order[place] == place for place in kept if place < len(kept))
    assert [order[gap] for gap in gaps] == movers


def test_both_ways_of_attending_give_the_same_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, 2, size, WIDTH, generator=generator) for size in (4, 7, 7))
    added = torch.zeros(3, 1, 1, 7)
    added[1, ..., 5:] = float("-inf")
    fast, plain = attention(query, key, value, added, 0.5, None), attention(query, key, value, added.expand(3, 1, 4, 7), 0.5, None)
    for one, other in zip(fast, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_query_that_sees_nothing_counts_for_nothing() -> None:
    added = torch.full((1, 1, 2, 3), float("-inf"))
    found, sums = attention(torch.ones(1, 1, 2, WIDTH), torch.ones(1, 1, 3, WIDTH), torch.ones(1, 1, 3, WIDTH), added, 1.0, None)
    assert not found.any() and bool((sums == torch.finfo(torch.float32).min).all())
