"""What is to be settled: one entry a task, whatever its kind, with its most disputed part."""

from __future__ import annotations

from typing import Any

from accord.annotation.disputes import Dispute, disputes
from accord.annotation.panel import judgements_of
from accord.types import Annotation, Task
from labelling import answer, talk, task


def said(on: Task, **values: dict[str, Any]) -> list[Annotation]:
    return [Annotation(f"{on.id}-{name}", on.id, on.kind, value, name) for name, value in values.items()]


PAIR = Task("with:a:colon", "pair", task("pair", "P", answer("a"), answer("b")).prompt, (answer("a"), answer("b")))
RANKING = task("ranking", "Q", answer("a"), answer("b"), answer("c"))
RATING, SAME = task("rating", "R", answer("a")), task("rating", "S", answer("a"))
STEPS = task("steps", "T", answer("a", "b"))
CHAT = task("chat", "U", talk("a", "b", "c"))
TASKS = {one.id: one for one in (PAIR, RANKING, RATING, SAME, STEPS, CHAT)}
SAID = [
    *said(PAIR, ann={"choice": 0}, bob={"choice": "tie"}),
    *said(RANKING, ann={"ranks": [1, 2, 3]}, bob={"ranks": [1, 3, 2]}),
    *said(RATING, ann={"rating": 2}, bob={"rating": 7}),
    *said(SAME, ann={"rating": 4}, bob={"rating": 4}),
    *said(STEPS, ann={"labels": [1, -1]}, bob={"labels": [1, 1]}),
    *said(CHAT, ann={"turns": [{"turn": 0, "rating": 3}, {"turn": 1, "rating": 3}]}, bob={"turns": [{"turn": 1, "rating": 4}]}),
]


def listed(*settled: str) -> list[Dispute]:
    return disputes(judgements_of(SAID, TASKS), SAID, TASKS, settled=settled)


def test_every_kind_is_listed_with_its_part_and_its_words() -> None:
    found = {one.task: (one.part, one.said) for one in listed()}
    assert found == {
        PAIR.id: ("", {"answer 1": 1, "a tie": 1}),
        RANKING.id: ("answers 2 and 3", {"answer 2": 1, "answer 3": 1}),
        RATING.id: ("", {"2 of 7": 1, "7 of 7": 1}),
        STEPS.id: ("step 2", {"right": 1, "wrong": 1}),
        CHAT.id: ("turn 2", {"3 of 7": 1, "4 of 7": 1}),
    }


def test_the_furthest_apart_come_first_and_settled_ones_not_at_all() -> None:
    """Ratings by hand: of 2 7 4 4 3 4 the mean squared difference of two is 2 × 14 / 5; 2 and 7 are 25 apart, 3 and 4 are 1."""
    order = [one.task for one in listed()]
    assert order.index(RATING.id) == 0 and order[-1] == CHAT.id
    by_task = {one.task: one.disagreement for one in listed()}
    assert abs(by_task[RATING.id] - 25 / 5.6) < 1e-12 and abs(by_task[CHAT.id] - 1 / 5.6) < 1e-12
    assert {one.task for one in listed(PAIR.id, CHAT.id)} == set(TASKS) - {PAIR.id, CHAT.id, SAME.id}
