"""How models stand by votes: each vote counts once for each two models, both ways agree, and only for the weights that gave the answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accord.annotation.project import Project
from accord.annotation.stopping import always_valid
from accord.annotation.store import Store
from accord.recipes.votes import AUTHORS, Author, pairings
from accord.types import Completion, Message, Task, TaskKind, task_id

ONE, TWO, THREE = Author("one", "w1"), Author("two", "w2"), Author("three", "w3")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    project = Project.new(tmp_path / "votes", gold_rate=0.0, repeat_rate=0.0)
    with project.open_store() as found:
        found.add_annotator("me", "admin", id="me")
        yield found


def vote(store: Store, value: dict[str, Any], *answers: list[Author]) -> None:
    """A question with these authors, and a vote on it: the choice is the place of an answer here."""
    number = sum(1 for _ in store.tasks())
    prompt = (Message("user", f"Question {number}?"),)
    texts = tuple(
        Completion((Message("assistant", f"answer {place}"),), source={"kind": "sample", AUTHORS: [author.row() for author in authors]})
        for place, authors in enumerate(answers)
    )
    kind: TaskKind = "pair" if len(answers) == 2 else "ranking"
    task = Task(task_id(kind, prompt, texts), kind, prompt, texts)
    store.add_tasks([task])
    held = store.take("me", task.id, range(len(answers)))
    store.submit("me", task.id, held.token, f"s{number}", kind, value)


def counts(store: Store, *authors: Author) -> dict[tuple[str, str], tuple[int, int, int]]:
    return {(one.first, one.second): (one.wins, one.ties, one.losses) for one in pairings(store, authors)[0]}


def test_pairs_whatever_stands_where(store: Store) -> None:
    vote(store, {"choice": 0}, [ONE], [TWO])
    vote(store, {"choice": 1}, [TWO], [ONE])  # one again
    vote(store, {"choice": 0}, [TWO], [ONE])
    vote(store, {"choice": "tie"}, [ONE], [TWO])
    vote(store, {"choice": "both_bad"}, [TWO], [ONE])
    assert counts(store, ONE, TWO) == counts(store, TWO, ONE) == {("one", "two"): (2, 2, 1)}
    (found,), others = pairings(store, [ONE, TWO])
    assert found.interval == always_valid(3.0, 5) and found.interval.mean == 0.6 and others == 0
    assert found.words == "not decided yet"


def test_a_ranking_is_a_vote_on_each_two(store: Store) -> None:
    """one and three tie for the first place, two is last."""
    vote(store, {"ranks": [1, 3, 1]}, [ONE], [TWO], [THREE])
    assert counts(store, ONE, TWO, THREE) == {("one", "three"): (0, 1, 0), ("one", "two"): (1, 0, 0), ("three", "two"): (1, 0, 0)}


def test_the_same_answer_of_two_is_a_tie_of_theirs(store: Store) -> None:
    vote(store, {"choice": 1}, [ONE, THREE], [TWO])
    assert counts(store, ONE, TWO, THREE) == {("one", "three"): (0, 1, 0), ("one", "two"): (0, 0, 1), ("three", "two"): (0, 0, 1)}


def test_other_weights_other_models_and_what_was_taken_back_do_not_count(store: Store) -> None:
    vote(store, {"choice": 0}, [ONE], [TWO])
    vote(store, {"choice": 0}, [Author("one", "of yesterday")], [TWO])
    vote(store, {"choice": 0}, [THREE], [TWO])
    found, others = pairings(store, [ONE, TWO])
    assert (found[0].wins, found[0].losses, others) == (1, 0, 2)
    store.undo("me", "undo-1")
    assert pairings(store, [ONE, TWO])[1] == 1


def test_it_says_who_is_preferred_once_the_interval_says_so(store: Store) -> None:
    for number in range(40):
        vote(store, {"choice": 1}, [ONE], [TWO])
        (found,), _ = pairings(store, [ONE, TWO])
        assert (found.words == "two is preferred") == (found.interval.high < 0.5)
        if found.interval.high < 0.5:
            assert number > 4  # not after a few
            return
    raise AssertionError("forty votes of forty said nothing")
