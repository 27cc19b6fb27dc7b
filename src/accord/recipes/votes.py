"""How models stand by the votes on their answers: wins, ties and losses of each two, with an interval that holds at every look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

from accord.annotation.stopping import always_valid
from accord.annotation.store import Store
from accord.data.annotation_values import ERASED
from accord.evaluation.intervals import Interval
from accord.types import Annotation, Task

AUTHORS = "authors"
"""In the source of an answer: the models that gave it."""


@dataclass(frozen=True)
class Author:
    """A model that answers: its name, and what tells its weights from those of another one under that name."""

    name: str
    weights: str

    def row(self) -> dict[str, Any]:
        """As it stands in the source of an answer."""
        return {"model": self.name, "weights": self.weights}


@dataclass(frozen=True)
class Pairing:
    """Two models, and the votes on which both had an answer."""

    first: str
    second: str
    wins: int
    """Of the first."""
    ties: int
    """Equal, both bad, or the same answer."""
    losses: int

    @property
    def interval(self) -> Interval:
        """The first one's win rate, ties half: valid however often it is looked at."""
        return always_valid(self.wins + 0.5 * self.ties, self.wins + self.ties + self.losses)

    @property
    def words(self) -> str:
        """What that says."""
        found = self.interval
        if found.count == 0:
            return "no vote yet"
        if found.low > 0.5 or found.high < 0.5:
            return f"{self.first if found.low > 0.5 else self.second} is preferred"
        return "not decided yet"


def pairings(store: Store, authors: Sequence[Author]) -> tuple[list[Pairing], int]:
    """Each two of some models, and how many votes of the project are about none of these pairs."""
    counts = {pair: [0, 0, 0] for pair in combinations(sorted(authors, key=lambda author: author.name), 2)}
    tasks = {task.id: task for task in store.tasks()}
    others = 0
    for kind in ("pair", "ranking"):
        for vote in store.annotations(kind=kind, source="human"):
            found = [one for one in outcomes(vote, tasks[vote.task]) if one[0] in counts]
            others += not found
            for pair, outcome in found:
                counts[pair][outcome] += 1
    return [Pairing(first.name, second.name, *count) for (first, second), count in counts.items()], others


def outcomes(vote: Annotation, task: Task) -> Iterator[tuple[tuple[Author, Author], int]]:
    """Every two authors of a task's answers by name, with 0 where the first one's is better, 1 for a tie and 2 where the second one's is."""
    if vote.value == ERASED:
        return
    ranks = _ranks(vote, len(task.completions))
    written = [
        (Author(str(one["model"]), str(one["weights"])), rank)
        for completion, rank in zip(task.completions, ranks, strict=True)
        for one in cast("list[dict[str, Any]]", completion.source.get(AUTHORS, []))
    ]
    for (first, one), (second, other) in combinations(sorted(written, key=lambda pair: pair[0].name), 2):
        yield (first, second), 1 if one == other else 0 if one < other else 2


def _ranks(vote: Annotation, count: int) -> list[int]:
    """1 is best. Of a pair the other is 2; both are 1 for a tie and where both are bad."""
    if vote.kind == "ranking":
        return list(cast("list[int]", vote.value["ranks"]))
    choice = vote.value["choice"]
    return [1 if choice in (index, "tie", "both_bad") else 2 for index in range(count)]
