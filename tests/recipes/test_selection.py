"""Which pairs a round asks: chance, or the favourites of two heads; never twice, in an order that says nothing."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import pytest
import torch

from accord.annotation.assign import arm_of
from accord.recipes.selection import (
    COMPARES,
    ask,
    by_chance,
    distinct,
    double_thompson,
    known,
    labels_of,
    pair_key,
    question,
    random_pairs,
)
from accord.types import Message, Rollout

SOURCE = {"kind": "sample", "model": "m", "policy": "start"}


def rollout(prompt: str, text: str, index: int = 0, *, finished: bool = True) -> Rollout:
    return Rollout(
        prompt_id=f"id of {prompt}",
        prompt=(Message("user", prompt),),
        prompt_ids=(1, 2),
        completion_ids=(3, index),
        text=text,
        sampler_logprobs=(-1.0, -1.0),
        finish_reason="stop" if finished else "length",
        sample_index=index,
        columns={"answer": 7},
    )


def group(prompt: str, *texts: str) -> list[Rollout]:
    return [rollout(prompt, text, index) for index, text in enumerate(texts)]


def scores(*favourites: int, answers: int = 4) -> torch.Tensor:
    """Heads that each prefer one answer. (answers, heads)"""
    table = torch.zeros(answers, len(favourites))
    for head, answer in enumerate(favourites):
        table[answer, head] = 1.0
    return table


def test_two_heads_that_differ_choose_the_pair() -> None:
    for key in range(20):
        assert double_thompson(scores(0, 0, 0, 3, 3), 1, key) == [(0, 3)]


def test_heads_that_agree_leave_the_second_answer_to_chance() -> None:
    """Answer 1 is in every pair; each of the three others comes about as often: 300 draws, within four standard deviations of 100."""
    others = Counter(next(answer for answer in double_thompson(scores(1, 1, 1), 1, key)[0] if answer != 1) for key in range(300))
    assert set(others) == {0, 2, 3}
    assert all(abs(count - 100) < 4 * math.sqrt(300 * 2 / 9) for count in others.values())


def test_a_head_counts_as_often_as_it_is_drawn() -> None:
    """Two heads for 0, one for 1, one for 2: a pair needs a 0 unless 1 and 2 were drawn before any 0, which happens in 2/4 * 1/3 of all orders."""
    drawn = Counter(double_thompson(scores(0, 0, 1, 2), 1, key)[0] for key in range(2000))
    assert set(drawn) == {(0, 1), (0, 2), (1, 2)}
    assert drawn[(1, 2)] / 2000 == pytest.approx(1 / 6, abs=0.035)


@pytest.mark.parametrize("count", [2, 4, 6, 9])
def test_several_pairs_are_different(count: int) -> None:
    found = double_thompson(scores(0, 1, 2, 3), count, "key")
    assert len(found) == len(set(found)) == min(count, 6)
    assert set(found) <= set(combinations(range(4), 2))


def test_chance_takes_answers_as_they_were_drawn() -> None:
    assert random_pairs(5, 9) == [(0, 1), (2, 3)]
    assert random_pairs(4, 1) == [(0, 1)]
    assert random_pairs(1, 1) == []


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.3, 4), (1.0, 11)])
def test_a_share_of_the_prompts_is_chance_s(share: float, count: int) -> None:
    prompts = [f"p{index}" for index in range(11)]
    control = by_chance(prompts, share, 1)
    assert len(control) == count
    assert control == by_chance(prompts, share, 1)
    assert share in (0.0, 1.0) or control != by_chance(prompts, share, 2)


def test_equal_and_empty_answers_are_no_pair() -> None:
    assert [one.text for one in distinct(group("q", "a", " ", "a", "b"))] == ["a", "b"]
    found = ask([group("q", "a", "a"), group("r", "x", "y")], 2, round=1, source=SOURCE)
    assert (len(found.questions), found.alike, found.repeated) == (1, 1, 0)


def test_a_pair_is_asked_once() -> None:
    groups = [group("q", "a", "b"), group("r", "c", "d")]
    first = ask(groups, 2, round=1, source=SOURCE)
    again = ask([group("q", "b", "a"), group("r", "c", "e")], 2, round=2, source=SOURCE, asked=known([q.task for q in first.questions]))
    assert [pair_key(one.task) for one in again.questions] == [
        pair_key(ask([group("r", "c", "e")], 1, round=2, source=SOURCE).questions[0].task)
    ]
    assert again.repeated == 1


def test_a_task_says_nothing_of_who_wrote_what() -> None:
    """Either order of the answers gives one task; its rollouts stand in its order; the prompt's columns come along."""
    old, new = rollout("q", "one", 0), rollout("q", "two", 1, finished=False)
    about = [{**SOURCE, "policy": "start"}, {**SOURCE, "policy": "round 1"}]
    found = question((old, new), 2, about, {COMPARES: 1})
    other = question((new, old), 2, about[::-1], {COMPARES: 1})
    assert found == other
    assert [one.text for one in found.rollouts] == [completion.text for completion in found.task.completions]
    assert {one.text: one.source["policy"] for one in found.task.completions} == {"one": "start", "two": "round 1"}
    assert {one.text: one.finished for one in found.task.completions} == {"one": True, "two": False}
    assert found.task.columns == {"answer": 7, COMPARES: 1} and found.task.round == 2
    first = sum(
        question((rollout("q", f"a{i}"), rollout("q", f"b{i}")), 1, SOURCE, {}).task.completions[0].text[0] == "a" for i in range(200)
    )
    assert 70 < first < 130  # half of the time, four standard deviations


def test_which_arm_chose_it_is_kept() -> None:
    groups = [group("q", "a", "b", "c", "d"), group("r", "e", "f", "g", "h")]
    found = ask(groups, 2, round=2, source=SOURCE, scores={"id of q": scores(1, 3)})
    arms = {one.task.prompt[0].content: arm_of(one.task.columns) for one in found.questions}
    assert arms == {"q": "selected", "r": "random"}
    texts = {one.task.prompt[0].content: {c.text for c in one.task.completions} for one in found.questions}
    assert texts == {"q": {"b", "d"}, "r": {"e", "f"}}


def test_only_chance_s_labels_are_fit_for_evaluation() -> None:
    assert labels_of({"arm": "selected"}) and not labels_of({"arm": "selected"}, chance_alone=True)
    assert labels_of({"arm": "random"}, chance_alone=True) and labels_of({}, chance_alone=True)
    assert not labels_of({COMPARES: 1})
