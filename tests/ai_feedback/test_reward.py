"""A judge as a reward (science T7.3): its rating between -1 and 1, by name, in a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import tiny
from accord.ai_feedback.asking import Answer
from accord.ai_feedback.judge_prompts import load_prompt
from accord.ai_feedback.judges import PairwiseJudge, RatingJudge, RubricJudge
from accord.ai_feedback.reward import JudgeReward
from accord.config.grpo import GRPOConfig
from accord.errors import ConfigError
from accord.methods.grpo import GRPOTrainer
from accord.rewards.combine import combined
from accord.rewards.named import reward_of
from accord.types import Message, Rollout
from ai_feedback.scripted import Scripted, first_with

SHORT_RATING = {
    "kind": "rating",
    "messages": [{"role": "user", "content": "{conversation} | {answer} | 1 to 10:"}],
    "options": {str(number): [str(number), f" {number}"] for number in range(1, 11)},
}


def rollout(text: str) -> Rollout:
    return Rollout("p", (Message("user", "Say something."),), (1,), (5, 2), text, (0.0, 0.0), "stop")


def rating(masses: dict[str, float]) -> RatingJudge:
    return RatingJudge(Scripted(lambda question: Answer(masses=masses)), load_prompt("rating"))


def test_ratings_become_rewards() -> None:
    """Uniform: 5.5 of 1 to 10, reward 0. Ten for sure: 1."""
    (uniform,) = JudgeReward(rating({str(number): 0.1 for number in range(1, 11)})).score([rollout("x")])
    assert uniform.value == pytest.approx(0.0) and uniform.parts == {"rating": pytest.approx(5.5)}
    (sure,) = JudgeReward(rating({str(number): float(number == 10) for number in range(1, 11)})).score([rollout("x")])
    assert sure.value == pytest.approx(1.0)


def test_a_checklist_is_a_reward_too() -> None:
    """Yes to everything: 7 of 9, which is 5/9 between -1 and 1."""
    judge = RubricJudge(Scripted(lambda question: Answer("Yes")), load_prompt("rubric"))
    (score,) = combined([JudgeReward(judge, weight=0.5)], [rollout("x")])
    assert score.value == pytest.approx(0.5 * 5 / 9) and score.parts["judge/rating"] == pytest.approx(7.0)


def test_an_invalid_rating_is_no_score_and_too_many_stop() -> None:
    reward = JudgeReward(RatingJudge(Scripted(lambda question: Answer("Great!")), load_prompt("rating")))
    (score,) = reward.score([rollout("x")])
    assert score.value is None and "no verdict in the text" in (score.error or "")
    with pytest.raises(ConfigError, match="failed on 20 of the last 20 answers"):
        reward.score([rollout(f"x{i}") for i in range(30)])


def test_a_judge_that_only_compares_is_refused() -> None:
    with pytest.raises(ConfigError, match="a reward needs one that rates each"):
        JudgeReward(PairwiseJudge(Scripted(first_with(0.5)), load_prompt("pairwise")))


def judge_file(tiny_folder: Path, folder: Path, **changes: object) -> str:
    (folder / "short.yaml").write_text(yaml.safe_dump(SHORT_RATING), encoding="utf-8")
    path = folder / "judge.yaml"
    path.write_text(yaml.safe_dump({"judge": str(tiny_folder), "prompt": str(folder / "short.yaml"), **changes}), encoding="utf-8")
    return str(path)


def test_grpo_learns_from_a_judge_by_name(tiny_folder: Path, tmp_path: Path) -> None:
    reward = reward_of(f"judge={judge_file(tiny_folder, tmp_path)}*0.5")
    assert reward.weight == 0.5 and [score.value is not None for score in reward.score([rollout("yes"), rollout("no")])] == [True, True]
    config = GRPOConfig(
        output_dir=str(tmp_path / "run"), max_steps=2, per_device_train_batch_size=4, num_generations=2, max_completion_length=4
    )
    trainer = GRPOTrainer(
        tiny.policy(), [reward], config, train_dataset=tiny.prompts(4), processing_class=tiny.tokenizer(), peft_config=tiny.lora()
    )
    trainer.train()
    logged = [row for row in trainer.state.log_history if "rewards/judge/mean" in row]
    assert logged and all(-1 <= row["rewards/judge/mean"] <= 1 for row in logged)


def test_wrong_files_are_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds colour; a judge's file holds options of accord judge"):
        reward_of(f"judge={judge_file(tiny_folder, tmp_path, colour='red')}")
    with pytest.raises(ConfigError, match="cannot be read"):
        reward_of(f"judge={tmp_path / 'nothing.yaml'}")
