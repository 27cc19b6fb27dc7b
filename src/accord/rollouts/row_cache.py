"""Keys and values while sampling: a prompt's once for all of its answers, read in place, and each answer's own.

A new token attends to its prompt and to its own answer apart; the two results are joined by their log-sum-exp, which is exact. The
siblings' queries go through their prompt together, so its keys are read from memory once a step and not once an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from accord.data.packing import PackedBatch
from accord.models.packed_attention import TreeLayout
from accord.models.tree_attention import fits


class Store:
    """Keys and values of every layer in places 0..n-1: (places, kv_heads, size, head_dim). Grows as places are asked for."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.room = 0
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def make_room(self, places: int) -> None:
        """Have at least so many places."""
        if places <= self.room:
            return
        self.room = places if not self.room else max(places, 2 * self.room)
        for store in (self.keys, self.values):
            for layer, old in store.items():
                store[layer] = old.new_zeros(self.room, *old.shape[1:])
                store[layer][: len(old)] = old

    def ready(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Allocate a layer whose keys and values are (..., kv_heads, _, head_dim) like these."""
        if layer not in self.keys:
            for store, like in ((self.keys, key), (self.values, value)):
                store[layer] = like.new_zeros(self.room, like.shape[-3], self.size, like.shape[-1])

    def move(self, sources: Sequence[int], places: Sequence[int], used: int) -> None:
        """Copy the first `used` positions of some places to others."""
        if not places:
            return
        for store in (*self.keys.values(), *self.values.values()):
            to, source = (torch.tensor(list(which), dtype=torch.int64, device=store.device) for which in (places, sources))
            store[to, :, :used] = store[source, :, :used]


@dataclass(frozen=True)
class Standing:
    """Which rows stand in the cache and whose prompts they continue; it changes when rows enter or leave."""

    owners: tuple[int, ...]
    """Of each row, the place of its prompt."""
    prompts: tuple[int, ...]
    """Lengths of the prompts, by place."""
    device: torch.device

    @cached_property
    def widest(self) -> int:
        """Most answers to one prompt."""
        return max(self.owners.count(place) for place in set(self.owners))

    @cached_property
    def places(self) -> Tensor:
        """(B,) of each row its place among (prompts * widest) queries."""
        taken = [0] * len(self.prompts)
        found = []
        for owner in self.owners:
            found.append(owner * self.widest + taken[owner])
            taken[owner] += 1
        return torch.tensor(found, dtype=torch.int64, device=self.device)

    @cached_property
    def rows(self) -> Tensor:
        """(prompts * widest,) the row of each place; places that nobody takes repeat row 0, and nothing reads what they find."""
        found = torch.zeros(len(self.prompts) * self.widest, dtype=torch.int64, device=self.device)
        found[self.places] = torch.arange(len(self.owners), device=self.device)
        return found

    @cached_property
    def visible(self) -> Tensor:
        """(prompts, 1, 1, longest) bool: positions that belong to the prompt."""
        lengths = torch.tensor(self.prompts, device=self.device)
        return (torch.arange(max(self.prompts), device=self.device) < lengths[:, None])[:, None, None]


class RowCache:
    """The rows being decoded, in places 0..n-1, and their prompts.

    Args:
        slots: most rows at a time.
        longest: longest prompt, in tokens.
        answer: longest answer, in tokens.
    """

    def __init__(self, slots: int, longest: int, answer: int, device: torch.device) -> None:
        self.slots, self.device = slots, device
        self.prompts, self.answers = Store(longest), Store(answer)
        self.answers.make_room(slots)
        self.standing = Standing((), (), device)
        self.lengths = torch.zeros(0, dtype=torch.int64, device=device)
        """(B,) tokens so far, prompt included: the position of the next one."""
        self.written = torch.zeros(0, dtype=torch.int64, device=device)
        """(B,) tokens of the answer so far."""
        self._masks: dict[int | None, tuple[Tensor, Tensor]] = {}

    def enter(self, prompts: Sequence[int], owners: Sequence[int]) -> None:
        """New rows stand in the next places from now on.

        Args:
            prompts: lengths of their prompts, which `Entering` has written.
            owners: of each row, which of these prompts it answers.
        """
        old = self.standing
        self.standing = Standing((*old.owners, *(len(old.prompts) + owner for owner in owners)), (*old.prompts, *prompts), self.device)
        lengths = torch.tensor([prompts[owner] for owner in owners], dtype=torch.int64, device=self.device)
        self.lengths = torch.cat((self.lengths, lengths))
        self.written = torch.cat((self.written, torch.zeros_like(lengths)))
        self._masks = {}

    def keep(self, slots: Sequence[int]) -> list[int]:
        """Drop every row but these; the last ones move into the gaps. Returns which row stands in each place now."""
        order, sources, gaps = compacted(slots)
        self.answers.move(sources, gaps, int(self.written.max()) + 1 if len(self.written) else 0)
        owners = [self.standing.owners[row] for row in order]
        prompts, sources, gaps = compacted(sorted(set(owners)))
        self.prompts.move(sources, gaps, self.prompts.size)
        place = {prompt: index for index, prompt in enumerate(prompts)}
        self.standing = Standing(
            tuple(place[owner] for owner in owners), tuple(self.standing.prompts[prompt] for prompt in prompts), self.device
        )
        index = torch.tensor(order, dtype=torch.int64, device=self.device)
        self.lengths, self.written, self._masks = self.lengths[index], self.written[index], {}
        return order

    def advance(self) -> None:
        """Every row is one token longer."""
        self.lengths, self.written, self._masks = self.lengths + 1, self.written + 1, {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None, softcap: float | None
    ) -> Tensor:
        """One new token a row: (1, heads, B, head_dim), as `Layout` says."""
        count, kv_heads = query.shape[2], key.shape[1]
        self.answers.ready(layer, key, value)
        rows = torch.arange(count, device=self.device)
        for store, new in ((self.answers.keys, key), (self.answers.values, value)):
            store[layer][rows, :, self.written] = new[0].transpose(0, 1)
        prompt_mask, answer_mask = self._seen(window, query.dtype, grouped=query.shape[1] // kv_heads)
        queries = query[0].transpose(0, 1).unflatten(1, (kv_heads, -1))  # (B, kv_heads, group, d)
        used = answer_mask.shape[-1]
        own, own_sum = attention(
            queries, self.answers.keys[layer][:count, :, :used], self.answers.values[layer][:count, :, :used], answer_mask, scale, softcap
        )
        standing, group = self.standing, queries.shape[2]
        prompts, longest = len(standing.prompts), prompt_mask.shape[-1]
        together = queries[standing.rows].unflatten(0, (prompts, -1)).transpose(1, 2).flatten(2, 3)
        shared, shared_sum = attention(
            together,
            self.prompts.keys[layer][:prompts, :, :longest],
            self.prompts.values[layer][:prompts, :, :longest],
            prompt_mask,
            scale,
            softcap,
        )

        def back(tensor: Tensor) -> Tensor:
            """(prompts, kv_heads, widest * group, ...) to (B, kv_heads, group, ...)."""
            return tensor.unflatten(2, (-1, group)).transpose(1, 2).flatten(0, 1)[standing.places]

        weight = torch.sigmoid(back(shared_sum) - own_sum).to(own.dtype).unsqueeze(-1)
        return torch.lerp(own, back(shared), weight).flatten(1, 2).transpose(0, 1).unsqueeze(0)

    def _seen(self, window: int | None, dtype: torch.dtype, grouped: int) -> tuple[Tensor, Tensor]:
        """What is added to the scores over the prompts and over the answers; shared by the layers of a step."""
        if window is not None and int(self.lengths.max()) < window:
            window = None
        if window not in self._masks:
            answer = torch.arange(int(self.written.max()) + 1, device=self.device)
            seen = (answer <= self.written[:, None])[:, None, None]
            visible = self.standing.visible
            if window is not None:
                seen = seen & (answer > (self.written - window)[:, None])[:, None, None]
                first = (self.lengths - window)[self.standing.rows].view(len(self.standing.prompts), 1, -1, 1)
                visible = visible & (torch.arange(visible.shape[-1], device=self.device) > first)
                visible = visible.repeat_interleave(grouped, dim=2)
            self._masks[window] = (_added(visible, dtype), _added(seen, dtype))
        return self._masks[window]


class Entering:
    """The layout of prompts that enter a cache: attends as their tree and keeps each prompt's keys and values once."""

    def __init__(self, cache: RowCache, prompts: PackedBatch) -> None:
        self.store, self.prompts = cache.prompts, prompts
        self.tree = TreeLayout(prompts)
        self.first = len(cache.standing.prompts)
        self.store.make_room(self.first + len(prompts.spans))

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scale: float, window: int | None, softcap: float | None
    ) -> Tensor:
        """(1, heads, N, head_dim), as `Layout` says."""
        self.store.ready(layer, key, value)
        prefix = self.prompts.prefix
        for place, span in enumerate(self.prompts.spans, self.first):
            for begin, (start, end) in ((0, (0, prefix)), (prefix, span.prompt)):
                self.store.keys[layer][place, :, begin : begin + end - start] = key[0, :, start:end]
                self.store.values[layer][place, :, begin : begin + end - start] = value[0, :, start:end]
        return self.tree.attend(layer, query, key, value, scale=scale, window=window, softcap=softcap)


def compacted(kept: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Who stands where once only `kept` (rising) stay and the last of them have moved into the gaps: the new order, who moved, and to where."""
    count = len(kept)
    stay = set(kept)
    gaps = [place for place in range(count) if place not in stay]
    movers = [one for one in kept if one >= count]
    order = [one for one in kept if one < count]
    for gap, mover in zip(gaps, movers, strict=True):
        order.insert(gap, mover)
    return order, movers, gaps


def attention(query: Tensor, key: Tensor, value: Tensor, added: Tensor, scale: float, softcap: float | None) -> tuple[Tensor, Tensor]:
    """Plain attention and the log-sum-exp of its scores.

    Args:
        query: (B, heads, L, d).
        key, value: (B, heads, K, d).
        added: (B or 1, 1, L or 1, K), 0 where a key is seen and -inf elsewhere.
    Returns:
        (B, heads, L, d), and (B, heads, L). A query that sees nothing gets 0 and the smallest number there is.
    """
    if softcap is None and fits(query, value) and added.shape[2] == 1:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, False, attn_mask=added, scale=scale)
    scores = torch.matmul(query, key.transpose(-1, -2)) * scale
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores + added
    sums = scores.logsumexp(-1).clamp_min(torch.finfo(scores.dtype).min)
    return torch.matmul((scores - sums.unsqueeze(-1)).exp().to(value.dtype), value), sums


def _added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))
