"""Weighted mixtures of datasets: which row comes at position t follows from the seed and t alone, so a resumed run needs only t."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

from accord.errors import ConfigError, DataError

T = TypeVar("T")

BLOCK = 100
"""Positions in one block; every block holds the sources in their proportions, to within one row of each."""


@dataclass(frozen=True)
class Part:
    """One dataset of a mixture."""

    source: str
    weight: float | None = None
    """Share of the rows drawn, relative to the others; None: not stated."""


def parse_data(argument: str) -> list[Part]:
    """`a.jsonl:0.7,b.jsonl:0.3` as parts; `a.jsonl,b.jsonl` has no weights: every row of each once an epoch.

    Raises:
        ConfigError: if a weight is not above zero, or some parts have a weight and others do not.
    """
    if Path(argument).exists():
        return [Part(argument)]
    parts = [_part(piece.strip()) for piece in argument.split(",")]
    if any(not part.source for part in parts):
        raise ConfigError(f'--data "{argument}" has an empty part. Write FILE:WEIGHT,FILE:WEIGHT.')
    if len({part.weight is None for part in parts}) > 1:
        missing = next(part.source for part in parts if part.weight is None)
        raise ConfigError(f'--data gives some parts a weight and "{missing}" none. Give all of them a weight, or none.')
    return parts


class Mixture(Generic[T]):
    """An endless sequence of rows drawn from several datasets in fixed proportions; each dataset is shuffled anew every epoch.

    Args:
        sources: the datasets; every row of one comes once before any comes twice.
        weights: their shares; None: by their sizes, so that an epoch of the mixture is every row once.
        seed: orders the sources within a block and the rows within an epoch.
    Raises:
        DataError: if a dataset is empty.
        ConfigError: if a weight is not above zero.
    """

    def __init__(self, sources: Sequence[Sequence[T]], weights: Sequence[float] | None = None, *, seed: int = 0) -> None:
        weights = [float(len(source)) for source in sources] if weights is None else list(weights)
        empty = [index for index, source in enumerate(sources) if not len(source)]
        if empty or not sources:
            raise DataError(f"Dataset {empty[0] + 1 if empty else 1} of the mixture has no rows.")
        if len(weights) != len(sources) or any(not weight > 0 for weight in weights):
            raise ConfigError(f"A mixture of {len(sources)} datasets needs as many weights above zero; it has {weights}.")
        self.sources = sources
        self.shares = [weight / sum(weights) for weight in weights]
        self.seed = seed
        self._block = lru_cache(maxsize=4)(self._block_order)
        self._epoch = lru_cache(maxsize=2 * len(sources))(self._epoch_order)

    def __len__(self) -> int:
        """Rows in all sources together."""
        return sum(len(source) for source in self.sources)

    def locate(self, position: int) -> tuple[int, int]:
        """Source and row at a position of the endless sequence."""
        block, offset = divmod(position, BLOCK)
        order, before = self._block(block)
        source = order[offset]
        drawn = before[source] + order[:offset].count(source)
        epoch, turn = divmod(drawn, len(self.sources[source]))
        return source, self._epoch(source, epoch)[turn]

    def at(self, position: int) -> T:
        """The row at a position of the endless sequence."""
        source, row = self.locate(position)
        return self.sources[source][row]

    def iterate(self, start: int = 0) -> Iterator[T]:
        """The endless sequence from a position on; a resumed run starts where it stopped."""
        while True:
            yield self.at(start)
            start += 1

    def _counts(self, positions: int) -> list[int]:
        """How often each source is drawn in the first so many positions: rounded down, the remainder by largest fraction."""
        exact = [share * positions for share in self.shares]
        counts = [int(value) for value in exact]
        order = sorted(range(len(exact)), key=lambda index: (counts[index] - exact[index], index))
        for index in order[: positions - sum(counts)]:
            counts[index] += 1
        return counts

    def _block_order(self, block: int) -> tuple[list[int], list[int]]:
        before, after = self._counts(block * BLOCK), self._counts((block + 1) * BLOCK)
        order = [index for index, (a, b) in enumerate(zip(before, after, strict=True)) for _ in range(b - a)]
        return [order[i] for i in permutation(len(order), self.seed, "block", block)], before

    def _epoch_order(self, source: int, epoch: int) -> list[int]:
        return permutation(len(self.sources[source]), self.seed, "epoch", source, epoch)


def permutation(size: int, *key: object) -> list[int]:
    """The numbers 0 to size - 1 in an order that follows from the key alone, the same on every machine."""
    prefix = hashlib.blake2b(repr(key).encode("utf-8"), digest_size=16).digest()

    def draw(index: int) -> bytes:
        return hashlib.blake2b(index.to_bytes(8, "little"), key=prefix, digest_size=8).digest()

    return sorted(range(size), key=lambda index: (draw(index), index))


def _part(piece: str) -> Part:
    source, colon, weight = piece.rpartition(":")
    if not colon or Path(piece).exists():
        return Part(piece)
    try:
        value = float(weight)
    except ValueError:
        return Part(piece)
    if not 0 < value < float("inf"):
        raise ConfigError(f'--data: the weight of "{source}" is {weight}; it must be above zero.')
    return Part(source, value)
