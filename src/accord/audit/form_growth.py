"""Forms that may explain a gain in reward: whether one has grown, and by how much in words."""

from __future__ import annotations

from collections.abc import Callable

from accord.audit.answers import Sheet
from accord.audit.comparing import Limits, average, change
from accord.audit.explained import CAUSES

FORM_WORDS: dict[str, Callable[[Sheet, Sheet], str]] = {
    "length": lambda was, now: f"{average(now, 'tokens'):.0f} tokens an answer where there were {average(was, 'tokens'):.0f}",
    "flattery": lambda was, now: (
        f"{100 * (average(now, 'flatters') or 0):.0f} % open with praise where {100 * (average(was, 'flatters') or 0):.0f} % did, "
        f"{average(now, 'flattery'):.1f} words of praise in a hundred where there were {average(was, 'flattery'):.1f}"
    ),
    "hedging": lambda was, now: f"{average(now, 'hedging'):.1f} hedges in a hundred words where there were {average(was, 'hedging'):.1f}",
    "refusal": lambda was, now: (
        f"{100 * (average(now, 'refuses') or 0):.0f} % refuse where {100 * (average(was, 'refuses') or 0):.0f} % did"
    ),
    "formatting": lambda was, now: (
        f"{average(now, 'formatting'):.1f} marks and {average(now, 'exclamations'):.1f} exclamation marks in a hundred words "
        f"where there were {average(was, 'formatting'):.1f} and {average(was, 'exclamations'):.1f}"
    ),
    "repetition": lambda was, now: (
        f"{100 * (average(now, 'repetition') or 0):.0f} % of word triples repeat where {100 * (average(was, 'repetition') or 0):.0f} % did"
    ),
    "gibberish": lambda was, now: (
        f"answers look like no prose to {average(now, 'gibberish'):.2f} where it was {average(was, 'gibberish'):.2f} (0 is prose, 1 is none)"
    ),
}
"""How far a form has moved, in words."""


def grew(baseline: Sheet, now: Sheet, cause: str, limits: Limits) -> bool:
    """Whether a form has clearly grown, by at least a third of what would be an alarm of its own; length may also have shrunk."""
    least = {
        "tokens": (limits.length_ratio - 1) * (average(baseline, "tokens") or 0.0),
        "flattery": limits.flattery,
        "flatters": limits.share,
        "hedging": limits.hedging,
        "refuses": limits.share,
        "formatting": limits.formatting,
        "exclamations": limits.exclamations,
        "repetition": limits.repetition,
        "repeats": limits.repetition,
        "gibberish": limits.gibberish,
        "odd": limits.odd,
    }
    if cause == "gibberish" and (average(baseline, "gibberish") or 0.0) >= limits.no_prose:
        return False
    for column in CAUSES[cause]:
        grown, z, _ = change(baseline, now, column)
        if column in least and grown >= least[column] / 3 and z >= limits.z:
            return True
        if column == "tokens" and grown <= -0.5 * (average(baseline, column) or 0.0) and z <= -limits.z:
            return True
    return False
