"""What a grader says of an answer: right, wrong, or that it found none; always with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from accord.types import Score

Outcome = Literal["right", "wrong", "no answer"]


@dataclass(frozen=True)
class Verdict:
    """One graded answer. A grader that cannot tell raises instead: there is no verdict that stands for a failure."""

    outcome: Outcome
    reason: str
    """What was compared with what, and what was left out of the comparison; one line for people."""

    @property
    def right(self) -> bool:
        return self.outcome == "right"

    def score(self) -> Score:
        """1 for right, 0 for wrong and for no answer, which is also a part of its own, so that a run shows how often it happens."""
        return Score(float(self.right), {"no_answer": float(self.outcome == "no answer")}, explanation=f"{self.outcome}: {self.reason}")


Grader = Callable[..., Verdict]
"""`grader(text, gold, **options)`: a pure function of an answer's text and what is known to be right. Raises DataError for a gold it cannot read."""


def compared(equal: bool, found: Any, gold: Any, notes: tuple[str, ...] = ()) -> Verdict:
    """The verdict of a comparison, with what was compared."""
    reason = f"{found} {'is' if equal else 'is not'} {gold}"
    return Verdict("right" if equal else "wrong", "; ".join((reason, *notes)))
