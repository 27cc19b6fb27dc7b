"""Where a learning policy stands, in numbers: how long its answers are and how far it is from its start, over the preferences given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from accord.types import Task

WINDOW = 5
"""Questions whose answers a mean is over."""


@dataclass(frozen=True)
class Asked:
    """What answers showed of the policy when they were asked for: means over them."""

    clicks: int
    """Preferences given by then."""
    tokens: float
    """Length, the end token included."""
    kl_nats: float
    """log pi - log ref of an answer: its mean over answers of the policy itself is its KL from the start."""


@dataclass(frozen=True)
class Look:
    """An answer to the fixed prompt, always from the same draws."""

    text: str
    tokens: int
    step: int
    """Training steps before it."""


@dataclass(frozen=True)
class State:
    """Where learning stands."""

    clicks: int
    """Preferences that stand."""
    waiting: int
    """Those of them that nothing was learned from yet."""
    steps: int
    asked: tuple[Asked, ...]
    """The questions in order, each with the means over its two answers."""
    probe: str
    """The fixed prompt."""
    at_start: Look | None
    now: Look | None
    problem: str | None
    """Why training has stopped; None: it has not."""

    @property
    def curve(self) -> list[Asked]:
        """For each question the means over it and the `WINDOW` - 1 before it."""
        return [over(self.asked[max(0, end - WINDOW) : end]) for end in range(1, len(self.asked) + 1)]

    @property
    def first(self) -> Asked | None:
        """Means over the first `WINDOW` questions; None before there is any."""
        return over(self.asked[:WINDOW]) if self.asked else None

    @property
    def newest(self) -> Asked | None:
        """Means over the newest `WINDOW` questions."""
        return over(self.asked[-WINDOW:]) if self.asked else None


def asked_of(tasks: Iterable[Task]) -> list[Asked]:
    """What each pair of ours says of the policy that answered; tasks that came from elsewhere say nothing."""
    pairs = [[completion.source for completion in task.completions] for task in tasks if task.kind == "pair"]
    return [
        Asked(pair[0]["clicks"], sum(len(source["ids"]) for source in pair) / 2, sum(source["kl_nats"] for source in pair) / 2)
        for pair in pairs
        if all("kl_nats" in source for source in pair)
    ]


def over(asked: Sequence[Asked]) -> Asked:
    """The mean of some questions, at the newest of them."""
    count = len(asked)
    return Asked(asked[-1].clicks, sum(one.tokens for one in asked) / count, sum(one.kl_nats for one in asked) / count)
