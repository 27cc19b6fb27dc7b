"""reasoning-gym's own scoring of an answer to one of its puzzles, as a reward source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accord.data.gym import COLUMN, gym_puzzle
from accord.errors import DataError
from accord.rewards.grader_process import FailureBudget, GraderFailure, GraderProcess
from accord.rewards.stated import stated_answer
from accord.types import Rollout, Score


class GymReward:
    """Scores answers to `data.gym.gym_prompts`; a `RewardSource`. 0 to 1: some generators give a part of it for what is nearly right.

    The stated answer (see `stated`) is scored, the whole text where nothing is marked. It runs in a `GraderProcess`.

    Args:
        weight: of this reward in the sum.
        name: in the metrics.
        timeout: seconds one answer may take.
        max_failure_share: see `FailureBudget`.
    """

    def __init__(self, *, weight: float = 1.0, name: str = "gym", timeout: float = 10.0, max_failure_share: float = 0.1) -> None:
        self.weight, self.name = weight, name
        self.process = GraderProcess("accord.rewards.gym:grade_puzzle", timeout=timeout)
        self.failures = FailureBudget("reasoning-gym", max_failure_share=max_failure_share)

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        return [self._score(rollout) for rollout in rollouts]

    def close(self) -> None:
        """End the process."""
        self.process.close()

    def _score(self, rollout: Rollout) -> Score:
        if COLUMN not in rollout.columns:
            raise DataError(f"Prompt {rollout.prompt_id} has no column {COLUMN!r}. Make the prompts with accord.data.gym.gym_prompts.")
        try:
            value = self.process.grade(rollout.text, rollout.columns[COLUMN])
        except GraderFailure as error:
            self.failures.count(str(error))
            return Score(None, error=f"{self.name}: {error}")
        self.failures.count(None)
        assert isinstance(value, float)
        return Score(value)


def grade_puzzle(text: str, place: Any) -> float:
    """The generator's score of what a text states, 0 to 1; 0 for a text that states nothing.

    Raises:
        DataError: if `place` names no puzzle.
    """
    dataset, puzzle = gym_puzzle(place)
    stated = stated_answer(text)
    return float(dataset.score_answer(answer=stated.text, entry=puzzle)) if stated else 0.0


def prepare() -> None:
    """Import reasoning-gym before the first answer's time runs."""
    import contextlib

    with contextlib.suppress(ImportError):
        import reasoning_gym  # noqa: F401
