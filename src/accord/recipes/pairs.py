"""Comparisons as pairs, where a method needs two answers a row, saying what became of rankings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from accord.data.kinds import as_kind
from accord.types import Example


def pairs_of(rows: Sequence[Example], say: Callable[[str], None], what: str) -> list[Example]:
    """Preferences as they are, every pair of each ranking (ties with probability 0.5), and one line that counts the rankings.

    Args:
        what: whose rows these are, for the line.
    Raises:
        DataError: if a row is no comparison. Names file and row.
    """
    rankings = [row for row in rows if row.kind == "ranking"]
    pairs = [pair for row in rows for pair in as_kind(row, "preference")]
    if rankings:
        made = len(pairs) - (len(rows) - len(rankings))
        say(f"{what}: {len(rankings)} ranking{'s' * (len(rankings) > 1)} taken apart into {made} pairs.")
    return pairs
