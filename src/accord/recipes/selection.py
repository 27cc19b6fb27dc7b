"""What a round asks: pairs of answers that the policy has just given, drawn by chance or by double Thompson sampling over the reward model's heads."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from accord.annotation.assign import ARM, arm_of
from accord.rewards.learned import RewardModel
from accord.rollouts.random import shuffled
from accord.types import Completion, Message, Rollout, Task, content_hash, task_id

COMPARES = "compares"
"""Column of tasks: of which round's policy it is a comparison with the one before (labels for training have none)."""
ANSWERS = {"random": 2, "active": 4}
"""Answers sampled for each pair that is asked."""

Pair = tuple[int, int]
Asked = frozenset[tuple[str, frozenset[str]]]
"""Pairs that were asked before: prompt and answers by their ids."""


@dataclass(frozen=True)
class Question:
    """A task, and the sampled answers it shows, in the task's order."""

    task: Task
    rollouts: tuple[Rollout, Rollout]


@dataclass(frozen=True)
class Chosen:
    """What a round asks, and what it could not."""

    questions: list[Question]
    alike: int
    """Prompts whose answers were all the same."""
    repeated: int
    """Pairs left out because they were asked before."""


def distinct(group: Sequence[Rollout]) -> list[Rollout]:
    """Answers with different texts, the first of equal ones, in the order they were drawn; empty ones are left out."""
    found: dict[str, Rollout] = {}
    for rollout in group:
        if rollout.text.strip():
            found.setdefault(rollout.text, rollout)
    return list(found.values())


def random_pairs(answers: int, count: int) -> list[Pair]:
    """Disjoint pairs in the order of sampling: answers are independent draws, so this is chance."""
    return [(first, first + 1) for first in range(0, answers - 1, 2)][:count]


def double_thompson(scores: Tensor, count: int, *key: object) -> list[Pair]:
    """Different pairs, each of the favourites of two heads drawn at random (Dwaracherla et al. 2024, arXiv:2402.00396).

    A head is a plausible reward; a pair is asked where two of them would choose differently. Heads are drawn without replacement until one
    prefers another answer; where none does, the second answer is drawn at random.

    Args:
        scores: of the answers to one prompt under each head, larger is better. (A, K)
        count: pairs wanted; there are at most A (A - 1) / 2.
        key: what the draws depend on.
    """
    answers, heads = scores.shape
    favourites = scores.argmax(0).tolist()
    found: list[Pair] = []
    for turn in range(8 * count):
        drawn = [favourites[head] for head in shuffled(heads, "heads", *key, turn)]
        others = [answer for answer in shuffled(answers, "other", *key, turn) if answer != drawn[0]]
        second = next((answer for answer in drawn if answer != drawn[0]), others[0] if others else drawn[0])
        pair = (min(drawn[0], second), max(drawn[0], second))
        if drawn[0] != second and pair not in found:
            found.append(pair)
        if len(found) == count:
            return found
    rest = [pair for pair in combinations(range(answers), 2) if pair not in found]
    return [*found, *(rest[index] for index in shuffled(len(rest), "rest", *key))][:count]


def by_chance(prompts: Sequence[str], share: float, *key: object) -> set[str]:
    """The prompts whose pairs chance chooses although a rule chooses the others: `share` of them, rounded up."""
    order = shuffled(len(prompts), "control", *key)
    return {prompts[index] for index in order[: math.ceil(share * len(prompts))]}


def scored(groups: Sequence[Sequence[Rollout]], reward: RewardModel, *, but: Collection[str]) -> dict[str, Tensor]:
    """What each head says of the different answers to each prompt whose pairs the rule chooses, by the prompt's id. (A, K)

    Args:
        but: ids of the prompts whose pairs chance chooses.
    """
    asked = {group[0].prompt_id: distinct(group) for group in groups if group[0].prompt_id not in but}
    flat = [rollout for answers in asked.values() for rollout in answers]
    scores = reward.score_rollouts(flat) if flat else torch.empty(0, reward.heads.num_heads)
    return dict(zip(asked, scores.split([len(answers) for answers in asked.values()]), strict=True))


def ask(
    groups: Sequence[Sequence[Rollout]],
    wanted: int,
    *,
    round: int,
    source: Mapping[str, Any],
    asked: Asked = frozenset(),
    scores: Mapping[str, Tensor] | None = None,
    key: Sequence[object] = (),
) -> Chosen:
    """The pairs of a round.

    Args:
        groups: answers to each prompt.
        wanted: pairs in all, as evenly over the prompts as they go.
        round: of the tasks.
        source: `Completion.source` of the answers.
        asked: pairs that are not asked again.
        scores: (A, K) of the different answers to those prompts, by id, whose pairs the rule chooses. None: chance chooses all.
        key: what draws depend on beside prompt and round.
    """
    each = math.ceil(wanted / max(1, len(groups)))
    questions: list[Question] = []
    alike = repeated = 0
    for group in groups:
        answers = distinct(group)
        if len(answers) < 2:
            alike += 1
            continue
        mine = (scores or {}).get(group[0].prompt_id)
        pairs = random_pairs(len(answers), each) if mine is None else double_thompson(mine, each, *key, round, group[0].prompt_id)
        for first, second in pairs:
            made = question((answers[first], answers[second]), round, source, {ARM: "random" if mine is None else "selected"})
            if pair_key(made.task) in asked:
                repeated += 1
            elif len(questions) < wanted:
                questions.append(made)
    return Chosen(questions, alike, repeated)


def question(
    answers: tuple[Rollout, Rollout], round: int, source: Mapping[str, Any] | Sequence[Mapping[str, Any]], columns: Mapping[str, Any]
) -> Question:
    """Two answers as a task, in an order that says nothing about who wrote them.

    Args:
        source: `Completion.source` of both, or of each.
        columns: added to those of the prompt.
    """
    sources = [source, source] if isinstance(source, Mapping) else list(source)
    made = [
        (
            Completion((Message("assistant", rollout.text),), rollout.finish_reason == "stop", {**about, "index": rollout.sample_index}),
            rollout,
        )
        for rollout, about in zip(answers, sources, strict=True)
    ]
    made.sort(key=lambda pair: content_hash(["order", pair[0].id]))
    (first, first_rollout), (second, second_rollout) = made
    prompt, completions = answers[0].prompt, (first, second)
    task = Task(
        task_id("pair", prompt, completions, round),
        "pair",
        prompt,
        completions,
        round=round,
        columns={**answers[0].columns, **columns},
    )
    return Question(task, (first_rollout, second_rollout))


def pair_key(task: Task) -> tuple[str, frozenset[str]]:
    """What is asked, whenever it is asked: prompt and answers by their ids."""
    return task.prompt_id, frozenset(completion.id for completion in task.completions)


def labels_of(columns: Mapping[str, Any], *, chance_alone: bool = False) -> bool:
    """Whether a task or example is one of a round's labels, no comparison of policies.

    Args:
        chance_alone: True: and chance chose it, so that it is fit for evaluation. False takes both arms.
    """
    return columns.get(COMPARES) is None and not (chance_alone and arm_of(columns) == "selected")


def known(tasks: Collection[Task]) -> Asked:
    """The pairs among these tasks."""
    return frozenset(pair_key(task) for task in tasks if task.kind == "pair")
