"""The reward of constraints: the share of a prompt's constraints that its answer satisfies, each constraint a part of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accord.rewards.constraints.base import constraints_of
from accord.rewards.constraints.verdicts import judge
from accord.types import Example, Rollout, Score


def check_rows(examples: Iterable[Example]) -> int:
    """Parse the constraints of every row before a run begins.

    Returns:
        The number of constraints.
    Raises:
        DataError: at the first row that cannot be used. Names file, row, field and the nearest name.
    """
    return sum(len(constraints_of(example.columns, example.where or "A row")) for example in examples)


def _score(answer: str, row: dict[str, Any], where: str, all_or_nothing: bool, loose: bool) -> Score:
    verdict = judge(answer, constraints_of(row, where), loose=loose)
    value = float(verdict.all) if all_or_nothing else verdict.share
    broken = f"broken: {', '.join(verdict.broken)}" if verdict.broken else "all constraints hold"
    return Score(value, {name: float(holds) for name, holds in verdict.held}, explanation=broken)


def constraints(
    completions: Sequence[Any],
    instruction_id_list: Sequence[Any],
    kwargs: Sequence[Any],
    *,
    all_or_nothing: bool = False,
    loose: bool = False,
    key: Sequence[Any] | None = None,
) -> list[Score]:
    """Scores from 0 to 1, larger is better: a reward function with TRL's contract, for rows in IFEval's layout.

    Args:
        completions: texts, or message lists whose last message is the answer.
        instruction_id_list, kwargs: the row's columns, one entry a completion.
        all_or_nothing: True: 1 when every constraint of the prompt holds, else 0. False: the share that holds.
        loose: True: the loose verdicts of `verdicts.judge`. False: the strict ones.
        key: names the rows in error messages; None: their place is named.
    Raises:
        DataError: if a row's constraints cannot be parsed (see `check_rows`).
    """
    found: list[Score] = []
    for index, (completion, ids, given) in enumerate(zip(completions, instruction_id_list, kwargs, strict=True)):
        answer = completion if isinstance(completion, str) else str(completion[-1]["content"])
        where = f"Row {index + 1}" if key is None or key[index] is None else f"Row with key {key[index]}"
        found.append(_score(answer, {"instruction_id_list": ids, "kwargs": given}, where, all_or_nothing, loose))
    return found


@dataclass
class ConstraintReward:
    """Scores rollouts whose rows have `instruction_id_list` and `kwargs`: 0 to 1, larger is better; each constraint is a part."""

    weight: float = 1.0
    name: str = "constraints"
    all_or_nothing: bool = field(default=False, kw_only=True)
    """True: 1 when every constraint holds, else 0. False: the share that holds."""
    loose: bool = field(default=False, kw_only=True)
    """True: loose verdicts, which forgive an introduction, a closing line and markdown asterisks. False: strict ones."""

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """One score a rollout.

        Raises:
            DataError: if a row's constraints cannot be parsed (see `check_rows`).
        """
        return [
            _score(
                rollout.text,
                rollout.columns,
                f"Row with key {rollout.columns.get('key', rollout.prompt_id)}",
                self.all_or_nothing,
                self.loose,
            )
            for rollout in rollouts
        ]
