"""How a count may stand to a number."""

from __future__ import annotations

RELATIONS = ("at least", "less than", "at most", "more than", "exactly")
"""How a count may stand to its number. IFEval's rows use the first two."""


def compare(count: int, relation: str, number: int) -> bool:
    """Whether a count stands to a number in one of `RELATIONS`."""
    return {
        "at least": count >= number,
        "less than": count < number,
        "at most": count <= number,
        "more than": count > number,
        "exactly": count == number,
    }[relation]
