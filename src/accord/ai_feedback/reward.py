"""A judge as the reward of PPO and GRPO (direct RLAIF, Lee et al. 2023, arXiv:2309.00267): its rating, with the ends of the scale at -1 and 1."""

from __future__ import annotations

from collections.abc import Sequence

from accord.ai_feedback.judges import Judge, Rater
from accord.ai_feedback.opening import open_judge, options_from
from accord.ai_feedback.store import AnswerStore
from accord.ai_feedback.verdicts import Answered, Rating
from accord.errors import ConfigError
from accord.rewards.grader_process import FailureBudget
from accord.types import LabelSource, Rollout, Score


class JudgeReward:
    """Scores answers by a judge's rating; a `RewardSource`. The rating itself is the part `rating`; an invalid one is an error, never a number.

    Args:
        judge: one that looks at one answer at a time (a `Rater`): a rating or a checklist.
        weight: of this reward in the sum.
        max_failure_share: more invalid ratings than this among the last 200 stop the run.
    Raises:
        ConfigError: if the judge only compares.
    """

    def __init__(self, judge: Judge, *, weight: float = 1.0, name: str = "judge", max_failure_share: float = 0.1) -> None:
        if not isinstance(judge, Rater):
            raise ConfigError(
                f"The judge {judge.name} compares two answers; a reward needs one that rates each: the prompt rating or rubric."
            )
        self.judge, self.weight, self.name = judge, weight, name
        self.failures = FailureBudget(f"Judge {judge.name}", max_failure_share=max_failure_share)

    @property
    def label_source(self) -> LabelSource:
        """Whose labels comparisons of these scores are."""
        return self.judge.source

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        ratings = self.judge.rate([Answered(rollout.prompt, rollout.text, rollout.columns) for rollout in rollouts])
        return [self._score(rating) for rating in ratings]

    def _score(self, rating: Rating) -> Score:
        self.failures.count(rating.invalid)
        if rating.value is None:
            return Score(None, error=f"{self.judge.name}: {rating.invalid}")
        return Score(rating.rescaled, {"rating": rating.value})


def judge_reward(named: str) -> JudgeReward:
    """`judge=MODEL`, `judge=URL#MODEL` or `judge=judge.yaml`, whose options are those of `accord judge`; the prompt is `rating` unless it says another.

    Raises:
        ConfigError: if nothing is named, or the judge rates nothing.
    """
    if not named:
        raise ConfigError("--reward judge needs a judge: judge=MODEL, judge=http://127.0.0.1:8000/v1#MODEL or judge=judge.yaml")
    options = options_from(named)
    return JudgeReward(open_judge(options, AnswerStore(options.answers), usual_prompt="rating"))
