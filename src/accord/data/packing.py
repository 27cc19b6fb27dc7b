"""Shared-prefix packing: prompts and their completions lie end to end on one token axis, each prompt encoded once.

    tokens      | s s s | p p p p | a a a | b b b b b | p p | a a a a |        (N,)
    positions   | 0 1 2 | 3 4 5 6 | 7 8 9 | 7 8 9 ... | 3 4 | 5 6 7 8 |        (N,)
    completion  |       |         | 0 0 0 | 1 1 1 1 1 |     | 2 2 2 2 |

What all prompts of a batch begin with (the header of a chat template, a system message, few-shot examples) stands once at the front.
A prompt attends to that prefix and itself, a completion to the prefix, its own prompt and itself, never to its siblings or to other
rows (`models/packed_attention.py`): each row sees exactly what it would see alone. Quantities per
token are flat (M,) vectors over the *counted* completion tokens; the token that predicts each of them is `sources`. The last
prompt token predicts the first token of every completion, so it appears once a completion in `sources` and its gradient adds up.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from accord.errors import DataError

SHORTEST_PREFIX = 8
"""Shared beginnings of fewer tokens than this are not worth an attention call of their own."""


@dataclass(frozen=True)
class Branch:
    """One completion as token ids."""

    ids: tuple[int, ...]
    counted: tuple[bool, ...] | None = None
    """Which tokens the objective sees; None counts all of them."""
    ends: tuple[int, ...] | None = None
    """Where heads read it: after how many of its tokens each part that they judge (a step) ends, ascending. None: once, at its end."""

    @property
    def places(self) -> tuple[int, ...]:
        """`ends`, said or not."""
        return (len(self.ids),) if self.ends is None else self.ends

    @property
    def num_counted(self) -> int:
        return len(self.ids) if self.counted is None else sum(self.counted)


@dataclass(frozen=True)
class Unit:
    """What may not be split: a prompt with the completions that a loss compares (a pair, a ranking), or with one completion."""

    prompt_ids: tuple[int, ...]
    branches: tuple[Branch, ...]
    id: str = ""
    data: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the method knows about it: reference log-probs, rewards, labels. Never read by packing."""

    @property
    def num_tokens(self) -> int:
        """Tokens it takes in a packed batch that shares no prefix with it."""
        return len(self.prompt_ids) + sum(len(branch.ids) for branch in self.branches)

    @property
    def num_counted(self) -> int:
        return sum(branch.num_counted for branch in self.branches)


@dataclass(frozen=True)
class Span:
    """Where one prompt (after the shared prefix) and its completions lie on the token axis: half-open intervals, end to end."""

    prompt: tuple[int, int]
    branches: tuple[tuple[int, int], ...]


class Place(NamedTuple):
    """Where a head reads, as positions on the token axis."""

    prompt: int
    """The prompt's last token."""
    first: int
    """The completion's first token."""
    begin: int
    """First token of the part that ends here: behind the place before, or the completion's first."""
    stop: int
    """What follows the part's last token."""


@dataclass(frozen=True)
class PackedBatch:
    """Units packed on one token axis. N tokens, C completions, M counted tokens."""

    units: tuple[Unit, ...]
    spans: tuple[Span, ...]
    tokens: Tensor
    """(N,) int64"""
    prefix: int
    """How many tokens at the front of the axis begin every prompt; 0 when nothing is shared."""
    positions: Tensor
    """(N,) int64, restarting after the prefix at every prompt; branches continue where their prompt ends."""
    sources: Tensor
    """(M,) int64: the position on the token axis whose state predicts each counted token."""
    targets: Tensor
    """(M,) int64: the counted tokens themselves."""
    completion: Tensor
    """(M,) int64, non-decreasing: which completion each counted token belongs to."""
    unit_of: Tensor
    """(C,) int64: which unit each completion belongs to."""

    @property
    def num_completions(self) -> int:
        return len(self.unit_of)

    @property
    def answers(self) -> list[Place]:
        """What heads read: of each completion, each of its `ends`."""
        return [
            place
            for span, unit in zip(self.spans, self.units, strict=True)
            for (first, _), branch in zip(span.branches, unit.branches, strict=True)
            for place in places_of(span.prompt[1] - 1, first, branch)
        ]

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)


def places_of(prompt: int, first: int, branch: Branch) -> list[Place]:
    """Where heads read a branch whose tokens lie from `first` on, behind the prompt that ends at `prompt`."""
    return [Place(prompt, first, first + begin, first + stop) for begin, stop in pairwise((0, *branch.places))]


def shared_prefix(units: Sequence[Unit]) -> int:
    """How many tokens all prompts begin with, at least one of each left over; 0 when that is too little to share."""
    if len(units) < 2:
        return 0
    first, last = min(unit.prompt_ids for unit in units), max(unit.prompt_ids for unit in units)
    limit = min(len(unit.prompt_ids) for unit in units) - 1
    same = next((index for index in range(limit) if first[index] != last[index]), limit)
    return same if same >= SHORTEST_PREFIX else 0


def pack(units: Sequence[Unit], device: torch.device | str = "cpu") -> PackedBatch:
    """Lay units end to end after the prefix that all of them share.

    Raises:
        DataError: if a unit has an empty prompt or an empty completion: there is nothing to predict from, or nothing to predict.
    """
    prefix = shared_prefix(units)
    tokens: list[int] = list(units[0].prompt_ids[:prefix]) if prefix else []
    positions: list[int] = list(range(prefix))
    sources: list[int] = []
    targets: list[int] = []
    completion: list[int] = []
    unit_of: list[int] = []
    spans: list[Span] = []
    for index, unit in enumerate(units):
        if not unit.prompt_ids or any(not branch.ids for branch in unit.branches):
            raise DataError(
                f"Row {unit.id or index} has an empty prompt or completion after tokenization: it cannot be trained on. Remove or fix it."
            )
        start = len(tokens)
        tokens += unit.prompt_ids[prefix:]
        positions += range(prefix, len(unit.prompt_ids))
        prompt_end = len(tokens)
        branches: list[tuple[int, int]] = []
        for branch in unit.branches:
            first = len(tokens)
            tokens += branch.ids
            positions += range(len(unit.prompt_ids), len(unit.prompt_ids) + len(branch.ids))
            for offset, token in enumerate(branch.ids):
                if branch.counted is None or branch.counted[offset]:
                    sources.append(prompt_end - 1 if offset == 0 else first + offset - 1)
                    targets.append(token)
                    completion.append(len(unit_of))
            unit_of.append(index)
            branches.append((first, len(tokens)))
        spans.append(Span((start, prompt_end), tuple(branches)))

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    return PackedBatch(
        units=tuple(units),
        spans=tuple(spans),
        tokens=tensor(tokens),
        prefix=prefix,
        positions=tensor(positions),
        sources=tensor(sources),
        targets=tensor(targets),
        completion=tensor(completion),
        unit_of=tensor(unit_of),
    )


def split_by_budget(units: Sequence[Unit], token_budget: int) -> list[list[Unit]]:
    """Cut a list of units into micro-batches of at most `token_budget` tokens, in order. A unit above the budget goes alone."""
    parts: list[list[Unit]] = []
    room = 0
    for unit in units:
        if not parts or unit.num_tokens > room:
            parts.append([])
            room = token_budget
        parts[-1].append(unit)
        room -= unit.num_tokens
    return parts


def pack_by_budget(units: Sequence[Unit], token_budget: int) -> list[list[Unit]]:
    """The same where order does not matter: best fit, longest first, and never more micro-batches than in order.

    The fullest micro-batch that still has room takes the next unit. Within one the order is that of `units`; the one with the longest
    unit is the first, so that memory is asked for once.
    """
    groups: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # ascending: tokens left, number of the micro-batch
    for index in sorted(range(len(units)), key=lambda index: -units[index].num_tokens):
        needed = units[index].num_tokens
        place = bisect_left(rooms, (needed, 0))
        if place == len(rooms):
            groups.append([])
            rooms.append((max(token_budget, needed), len(groups) - 1))
        room, group = rooms.pop(place)
        groups[group].append(index)
        insort(rooms, (room - needed, group))
    in_order = split_by_budget(units, token_budget)
    return in_order if len(in_order) < len(groups) else [[units[index] for index in sorted(group)] for group in groups]
