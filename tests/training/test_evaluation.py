"""Held-out evaluation: measured against the model before training; the best one is kept, and the last ones can end the run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from accord import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, PPOConfig, PPOTrainer, SFTConfig, SFTTrainer
from accord.config.base import TrainingConfig
from accord.data.packing import Branch, Unit, pack
from accord.errors import ConfigError
from accord.objectives.segments import segment_sum


@pytest.mark.parametrize("peft_config", [None, tiny.lora()], ids=["full", "lora"])
def test_dpo_margins_are_from_the_start(tmp_path: Path, peft_config: Any) -> None:
    args = DPOConfig(output_dir=str(tmp_path), max_steps=3, learning_rate=1e-2, beta=0.1)
    trainer = DPOTrainer(tiny.policy(), None, args, tiny.pairs(), tiny.pairs(4), processing_class=tiny.tokenizer(), peft_config=peft_config)
    trainer.train()
    batch = pack(trainer.eval_units)
    with torch.no_grad():
        now, start = (
            segment_sum(policy.forward(batch, stack).logprobs, batch.completion, batch.num_completions).view(-1, 2)
            for policy, stack in ((trainer.policy, trainer.prepared.stack), (tiny.policy(), ()))
        )
    expected = float(0.1 * ((now - start)[:, 0] - (now - start)[:, 1]).mean())
    assert abs(expected) > 1e-3
    assert trainer.evaluate()["eval_rewards/margins"] == pytest.approx(expected, abs=1e-4)


def test_new_rows_after_full_fine_tuning_need_a_reference_model(tmp_path: Path) -> None:
    for build in (
        lambda: DPOTrainer(
            tiny.policy(), None, DPOConfig(output_dir=str(tmp_path), max_steps=1), tiny.pairs(), processing_class=tiny.tokenizer()
        ),
        lambda: KTOTrainer(
            tiny.policy(), None, KTOConfig(output_dir=str(tmp_path), max_steps=1), tiny.labelled(), processing_class=tiny.tokenizer()
        ),
    ):
        trainer: Any = build()
        trainer.train()
        with pytest.raises(ConfigError, match="pass ref_model"):
            trainer.evaluate(tiny.pairs(3))


def sft(folder: Path, **options: Any) -> SFTTrainer:
    """Learns nine demonstrations; evaluated on other words, which it forgets at this rate: the evaluation soon gets worse."""
    config = SFTConfig(
        **{"output_dir": str(folder), "max_steps": 30, "learning_rate": 3e-2, "lr_scheduler_type": "constant", "eval_steps": 2, **options}
    )
    heldout = [{"prompt": "Count.", "completion": "zzz 123 qqq"}, {"prompt": "Sum.", "completion": "XYZ ###"}]
    return SFTTrainer(tiny.policy(), config, tiny.demonstrations(), heldout, tiny.tokenizer(), peft_config=tiny.lora())


def evaluations(trainer: Any, name: str = "eval_loss") -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in trainer.log_history if name in row]


def test_patience_ends_the_run_and_the_best_weights_come_back(tmp_path: Path) -> None:
    trainer = sft(tmp_path, early_stopping_patience=3, load_best_model_at_end=True)
    trainer.train()
    found = evaluations(trainer)
    step, best = min(found, key=lambda row: row[1])
    assert trainer.global_step < 30 and [row[0] for row in found[-3:]] == [step + 2, step + 4, step + 6]
    assert (trainer.state.best_metric, trainer.state.best_global_step) == (best, step)
    assert trainer.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{step}")
    assert found[-1][1] > best + 1e-2
    assert trainer.evaluate()["eval_loss"] == pytest.approx(best, abs=1e-6)


def test_the_best_checkpoint_outlives_the_newest(tmp_path: Path) -> None:
    """`save_total_limit` keeps the newest and the best, which is saved even between two saves."""
    trainer = sft(tmp_path, max_steps=16, save_steps=5, save_total_limit=1, eval_steps=1)
    trainer.train()
    step = min(evaluations(trainer), key=lambda row: row[1])[0]
    assert step % 5 and step < 15  # a step that save_steps alone would not have saved
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == sorted([f"checkpoint-{step}", "checkpoint-16"])


def test_without_checkpoints_none_is_named(tmp_path: Path) -> None:
    trainer = sft(tmp_path, max_steps=4)
    trainer.train()
    assert trainer.state.best_metric is not None and trainer.state.best_model_checkpoint is None
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize("name", ["entropy", "eval_entropy"])
def test_metric_with_and_without_eval(name: str, tmp_path: Path) -> None:
    trainer = sft(tmp_path, max_steps=8, metric_for_best_model=name)
    trainer.train()
    assert trainer.state.best_metric == max(value for _, value in evaluations(trainer, "eval_entropy"))


def test_unknown_metric_names_the_known_ones_and_loses_nothing(tmp_path: Path) -> None:
    trainer = sft(tmp_path, metric_for_best_model="entropi")
    with pytest.raises(
        ConfigError, match=r"'entropi' is not evaluated.*eval_entropy, eval_loss.*Did you mean eval_entropy\?.*checkpoint-2"
    ) as caught:
        trainer.train()
    assert len(str(caught.value).splitlines()) == 1
    assert (tmp_path / "checkpoint-2" / "training.safetensors").exists()


@pytest.mark.parametrize("option", [{"early_stopping_patience": 2}, {"load_best_model_at_end": True}, {"metric_for_best_model": "loss"}])
def test_what_watches_evaluations_needs_some(option: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs eval_steps above 0"):
        TrainingConfig(**option)
    config = SFTConfig(output_dir=str(tmp_path), eval_steps=2, **option)
    trainer = SFTTrainer(tiny.policy(), config, tiny.demonstrations(), None, tiny.tokenizer(), peft_config=tiny.lora())
    with pytest.raises(ConfigError, match="eval_steps=2 needs held-out rows"):
        trainer.train()


def test_overfit_learns_and_is_evaluated_on_the_first_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = sft(tmp_path, overfit=2, max_steps=40, learning_rate=1e-2, eval_steps=40)
    assert (
        [unit.id for unit in trainer.train_units]
        == [row.id for row in tiny.demonstrations()[:2]]
        == [unit.id for unit in trainer.eval_units]
    )
    trainer.train()
    assert "Overfitting the first 2 rows" in capsys.readouterr().err
    first = trainer.log_history[0]["loss"]
    assert evaluations(trainer)[0][1] < 0.3 * first


def test_kto_is_evaluated_with_margins(tmp_path: Path) -> None:
    config = KTOConfig(output_dir=str(tmp_path), max_steps=3, learning_rate=1e-2)
    trainer = KTOTrainer(
        tiny.policy(), None, config, tiny.labelled(), tiny.labelled(6), processing_class=tiny.tokenizer(), peft_config=tiny.lora()
    )
    trainer.train()
    found = trainer.evaluate()
    assert found["eval_rewards/margins"] == pytest.approx(found["eval_rewards/chosen"] - found["eval_rewards/rejected"])
    assert found["eval_rewards/margins"] != 0


# -- PPO --------------------------------------------------------------------------------------------------------------------------------


def letters(completions: list[Any], **columns: Any) -> list[float]:
    """ASCII letters in an answer: something that a random tiny model can learn in a few rounds."""
    return [float(sum(mark.isascii() and mark.isalpha() for mark in completion[0]["content"])) for completion in completions]


def ppo(folder: Path, **options: Any) -> PPOTrainer:
    sizes = {"num_iterations": 4, "prompts_per_iteration": 3, "num_generations": 4, "max_new_tokens": 4, "missing_eos_penalty": None}
    config = PPOConfig(**{"output_dir": str(folder), "learning_rate": 3e-2, "lr_scheduler_type": "constant", **sizes, **options})
    return PPOTrainer(
        config, tiny.tokenizer(), tiny.policy(), letters, tiny.prompts(6), peft_config=tiny.lora(), eval_dataset=tiny.prompts(10)[6:]
    )


def test_ppo_is_evaluated_on_one_answer_to_each_heldout_prompt(tmp_path: Path) -> None:
    """Score, KL and length recomputed from answers sampled here; the same draws each time, so that an unmoved policy scores the same."""
    trainer = ppo(tmp_path, eval_steps=1, num_iterations=3)
    assert trainer.evaluate() == trainer.evaluate()
    assert trainer.evaluate()["eval_objective/kl"] == pytest.approx(0.0, abs=1e-5)
    trainer.train()
    # Two optimizer steps an iteration: evaluated at the end of each iteration, not in its middle.
    assert [step for step, _ in evaluations(trainer, "eval_objective/scores")] == [2, 4, 6]
    found = trainer.evaluate()
    sampling = dataclasses.replace(trainer._sampling(-1), num_samples=1)
    rollouts = trainer.sampler.sample(trainer.eval_prompts, sampling)
    kl = []
    for rollout in rollouts:
        batch = pack([Unit(rollout.prompt_ids, (Branch(rollout.completion_ids),))])
        with torch.no_grad():
            now, start = (trainer.policy.forward(batch, stack).logprobs.sum() for stack in (trainer.stack, trainer.reference))
        kl.append(float(now - start))
    assert len(rollouts) == 4
    assert found["eval_objective/scores"] == pytest.approx(sum(letters([[{"content": r.text}] for r in rollouts])) / 4)
    assert found["eval_objective/kl"] == pytest.approx(sum(kl) / 4, abs=1e-4) and abs(sum(kl)) > 1e-2
    assert found["eval_completions/mean_length"] == pytest.approx(sum(len(r.completion_ids) for r in rollouts) / 4)


def test_evaluating_ppo_changes_nothing_that_is_learned(tmp_path: Path) -> None:
    watched, alone = ppo(tmp_path / "watched", eval_steps=1), ppo(tmp_path / "alone")
    watched.train()
    alone.train()
    assert evaluations(watched, "eval_objective/kl") and not evaluations(alone, "eval_objective/kl")
    for name, value in alone.parameters().items():
        assert torch.equal(watched.parameters()[name], value), name


def test_ppo_stops_early_with_its_best_policy(tmp_path: Path) -> None:
    """An answer has four tokens, so that its score has a ceiling: sooner or later nothing better comes."""
    trainer = ppo(
        tmp_path,
        num_iterations=40,
        eval_steps=1,
        early_stopping_patience=3,
        load_best_model_at_end=True,
        metric_for_best_model="eval_objective/scores",
    )
    trainer.train()
    found = evaluations(trainer, "eval_objective/scores")
    best = max(value for _, value in found)
    first = next(step for step, value in found if value == best)
    assert trainer.global_step < 80 and found[-1][0] == first + 6
    assert trainer.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{first}")
    assert trainer.evaluate()["eval_objective/scores"] == best > found[0][1]


def test_ppo_overfits_the_first_prompts(tmp_path: Path) -> None:
    trainer = ppo(tmp_path, overfit=2, num_iterations=2)
    assert [prompt.id for prompt in trainer.prompts] == [row.prompt_id for row in tiny.prompts(2)]
    trainer.train()
    asked = {json.loads(line)["prompt_id"] for line in (tmp_path / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()}
    assert asked == {row.prompt_id for row in tiny.prompts(2)}
