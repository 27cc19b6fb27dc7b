"""What Constitutional AI trains on: revisions mixed with helpful demonstrations, and pairs of answers that a judge compares by principle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accord.ai_feedback.labels import Labels
from accord.errors import ConfigError
from accord.rollouts.random import shuffled
from accord.types import Completion, Example, Message, Rollout

TIE = 0.5


@dataclass(frozen=True)
class Mixture:
    """Rows to learn from, and how many of them came from where."""

    rows: list[Example]
    lessons: int
    helpful: int
    left_out: int
    """Lessons for which there were too few helpful rows."""


def mixed(lessons: Sequence[Example], helpful: Sequence[Example], *, share: float, seed: int) -> Mixture:
    """Lessons with so many helpful rows that these make up `share` of all, in an order drawn by seed.

    Where the helpful ones do not suffice, lessons are left out until they do: a model that learns little but declining declines everything.

    Args:
        lessons: what principles teach about prompts that ask for harm: revisions, or compared answers.
        helpful: rows of the same kind about harmless prompts.
        share: 0 (revisions alone) up to, not including, 1.
    Raises:
        ConfigError: if the share is out of range.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"The share of helpful demonstrations is {share}; it must be 0 or more and below 1.")
    wanted = math.ceil(len(lessons) * share / (1 - share) - 1e-9)
    used = min(wanted, len(helpful))
    most = len(lessons) if share == 0 or used == wanted else math.floor(used * (1 - share) / share + 1e-9)
    kept = [lessons[index] for index in shuffled(len(lessons), "revisions", seed)[:most]]
    added = [helpful[index] for index in shuffled(len(helpful), "helpful", seed)[:used]]
    rows = [*kept, *added]
    return Mixture([rows[index] for index in shuffled(len(rows), "mixture", seed)], len(kept), len(added), len(lessons) - len(kept))


def answer_pairs(rows: Sequence[Example], answers: Sequence[Sequence[Rollout]], source: dict[str, Any]) -> tuple[list[Example], int]:
    """Two answers at a time of those sampled to each prompt, to be judged; which stands first means nothing.

    Args:
        rows: prompts.
        answers: an even number of rollouts for each of them.
        source: who wrote them.
    Returns:
        the pairs, and how many were left out because both answers said the same.
    """
    found: list[Example] = []
    same = 0
    for row, rollouts in zip(rows, answers, strict=True):
        for first, second in zip(rollouts[::2], rollouts[1::2], strict=True):
            if first.text.strip() == second.text.strip():
                same += 1
                continue
            completions = tuple(_completion(rollout, source) for rollout in (first, second))
            found.append(Example("preference", row.prompt, completions, columns=dict(row.columns), where=row.where))
    return found, same


def decided(labels: Labels) -> tuple[list[Example], int]:
    """The rows in which the judge prefers an answer, and how many ties were left out."""
    rows = [row for row in labels.rows if row.probability != TIE]
    return rows, len(labels.rows) - len(rows)


def _completion(rollout: Rollout, source: dict[str, Any]) -> Completion:
    about = {"kind": "sample", **source, "sample_index": rollout.sample_index}
    return Completion((Message("assistant", rollout.text),), finished=rollout.finish_reason == "stop", source=about)
