"""PPO's own options: each does what it says, or says that it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

import tiny
from accord import PPOConfig, PPOTrainer
from accord.data.packing import pack
from accord.errors import ConfigError, DataError, DivergedError
from accord.methods.experience import advantages_and_returns
from accord.models.adapters import PolicyModel
from accord.models.heads import RewardHeads
from accord.rewards.combine import FunctionReward, LearnedReward
from accord.rewards.learned import RewardModel
from accord.rollouts.local import LocalSampler
from accord.types import Rollout

SIZES: dict[str, Any] = {
    "num_iterations": 4,
    "prompts_per_iteration": 3,
    "num_generations": 2,
    "max_new_tokens": 5,
    "learning_rate": 1e-3,
    "missing_eos_penalty": None,
}


def size(completions: list[Any], **columns: Any) -> list[float]:
    return [float(len(completion[0]["content"])) for completion in completions]


def build(folder: Path, reward: Any = size, rows: Any = None, policy: Any = None, ptx: Any = None, **options: Any) -> PPOTrainer:
    return PPOTrainer(
        PPOConfig(**{"output_dir": str(folder), **SIZES, **options}),
        tiny.tokenizer(),
        policy or tiny.policy(),
        reward,
        tiny.prompts() if rows is None else rows,
        peft_config=tiny.lora(),
        ptx_dataset=ptx,
    )


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ({"num_train_epochs": 2.0}, "num_iterations"),
        ({"per_device_train_batch_size": 4}, "prompts_per_iteration"),
        ({"gradient_accumulation_steps": 2}, "num_mini_batches"),
    ],
)
def test_options_of_other_methods_name_their_counterpart(option: dict[str, Any], instead: str) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(option))}=.*no meaning for PPO.*Use instead: {instead}"):
        PPOConfig(**option)


def test_demonstrations_and_their_weight_come_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ptx_dataset .*is missing"):
        build(tmp_path, ptx_coef=0.5)
    with pytest.raises(ConfigError, match="ptx_coef .*is missing"):
        build(tmp_path, ptx=tiny.demonstrations())


def test_ptx_loss_is_logged_as_nats_a_token(tmp_path: Path) -> None:
    """At step 1 the policy is the base model: the metric is its mean negative log-probability of the demonstrations, without the weight."""
    trainer = build(tmp_path, ptx=tiny.demonstrations(3), ptx_coef=0.25)
    with torch.no_grad():
        expected = -float(trainer.policy.forward(pack(trainer.ptx_units), trainer.reference).logprobs.mean())
    trainer.train()
    assert trainer.log_history[0]["loss/ptx"] == pytest.approx(expected, abs=1e-4)
    assert trainer.log_history[-1]["loss/ptx"] < expected


def test_plain_prompts_go_through_the_chat_template(tmp_path: Path) -> None:
    """What is sampled from in PPO is what SFT and reward training read: the rendered prompt of the same row."""
    trainer = build(tmp_path, rows=[{"prompt": "Hello"}])
    text = trainer.processing_class.decode(list(trainer.prompts[0].ids))
    assert text == "<|start|>user\nHello<|end|>\n<|start|>assistant\n"


LONG = [{"prompt": f"{number} " + "very " * 60 + "end"} for number in range(2)]


@pytest.mark.parametrize(
    ("options", "room"),
    [({"max_length": 40}, 35), ({"max_length": None, "max_prompt_length": 20}, 20), ({"max_length": 1024}, 512 - 5)],
    ids=["max_length", "max_prompt_length", "positions"],
)
def test_long_prompts_are_cut_on_the_left_and_counted(
    options: dict[str, Any], room: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*LONG, {"prompt": "Hi"}, {"prompt": "word " * 200}]
    trainer = build(tmp_path, rows=rows, **options)
    whole = [tiny.tokenizer().apply_chat_template([{"role": "user", "content": row["prompt"]}], add_generation_prompt=True) for row in rows]
    whole = [row["input_ids"] if not isinstance(row, list) else row for row in whole]
    assert [list(prompt.ids) for prompt in trainer.prompts] == [ids[-room:] for ids in whole]
    cut = sum(len(ids) > room for ids in whole)
    assert f"train_dataset: {cut} prompts cut on the left." in capsys.readouterr().err
    trainer.config.num_iterations = 1
    trainer.train()
    assert all(len(unit.ids) <= room for unit in trainer.prompts)


def test_no_room_for_a_prompt_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_new_tokens=5 must be below max_length=5"):
        build(tmp_path, max_length=5)
    with pytest.raises(ConfigError, match="max_new_tokens=512 leaves no room for a prompt: the model has 512 positions"):
        build(tmp_path, max_new_tokens=512)


def test_a_prompt_without_tokens_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its prompt has no tokens"):
        PPOTrainer(
            PPOConfig(output_dir=str(tmp_path), **SIZES),
            tiny.tokenizer(template=False),
            tiny.policy(),
            size,
            [{"prompt": "fine"}, {"prompt": ""}],
            peft_config=tiny.lora(),
        )


def test_no_reward_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No reward"):
        build(tmp_path, None)


def test_stop_kl_ends_after_the_round_that_passed_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free = build(tmp_path / "free", learning_rate=3e-2, lr_scheduler_type="constant", num_iterations=6)
    free.train()
    drift = [row["objective/kl"] for row in free.log_history if "objective/kl" in row]
    limit = 0.5 * max(drift[:-1])
    first = next(index for index, value in enumerate(drift) if value > limit)
    assert first + 1 < len(drift)
    stopped = build(tmp_path / "stopped", learning_rate=3e-2, lr_scheduler_type="constant", num_iterations=6, stop_kl=limit)
    stopped.train()
    assert stopped.iteration == first + 1
    assert f"Stopped after iteration {first + 1}: KL {drift[first]:.1f} nats" in capsys.readouterr().err


def test_checkpoints_stand_between_rounds_even_where_max_steps_cuts_one_short(tmp_path: Path) -> None:
    """Three steps of four: the checkpoint is the one after the first two, and going on from there gives the straight run."""
    sizes = {"num_ppo_epochs": 1, "num_mini_batches": 2, "save_steps": 1, "lr_scheduler_type": "constant"}
    build(tmp_path / "short", **sizes, max_steps=3).train()
    assert [path.name for path in (tmp_path / "short").glob("checkpoint-*")] == ["checkpoint-2"]
    straight = build(tmp_path / "straight", **sizes, max_steps=4)
    straight.train()
    again = build(tmp_path / "again", **sizes, max_steps=4)
    again.train(resume_from_checkpoint=str(tmp_path / "short" / "checkpoint-2"))
    for name, parameter in straight.parameters().items():
        assert torch.equal(parameter, again.parameters()[name]), name


def test_a_resumed_run_holds_its_sampling_weights_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun where memory was too short for a second set of weights, resumed where there is plenty: merged weights would round differently."""
    sizes = {"tokens_per_microbatch": 256, "save_steps": 1, "num_ppo_epochs": 1, "num_mini_batches": 1, "lr_scheduler_type": "constant"}
    with monkeypatch.context() as patched:
        patched.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
        build(tmp_path / "short", **sizes, num_iterations=2).train()
        straight = build(tmp_path / "straight", **sizes)
        straight.train()
    resumed = build(tmp_path / "short", **sizes)
    resumed.train(resume_from_checkpoint=True)
    fresh = build(tmp_path / "fresh", **sizes, num_iterations=1)
    fresh.train()
    sides = [trainer.sampler for trainer in (straight, resumed, fresh)]
    assert [isinstance(side, LocalSampler) and side.held is not None and side.held.merged for side in sides] == [False, False, True]
    for name, parameter in straight.parameters().items():
        assert torch.equal(parameter, resumed.parameters()[name]), name


def test_whitened_rewards_have_variance_1_and_keep_their_mean(tmp_path: Path) -> None:
    """With gamma = lambda = 1 and a critic at zero, a token's return is what is still to come: differences of returns are the rewards."""
    trainer = build(tmp_path, reward=lambda completions: [10.0 * x for x in size(completions)], gamma=1.0, lam=1.0, kl_coef=0.0)
    units, _ = trainer._scored(trainer._answer(trainer.prompts, trainer._sampling(0)), at_least=1)
    found = {}
    for whiten in (False, True):
        trainer.config.whiten_rewards = whiten
        trainer.config.whiten_advantages = False
        rewards = []
        for unit in advantages_and_returns(units, trainer.value_head, trainer.config, 0.0)[0]:
            for returns in unit.data["returns"].split([len(branch.ids) for branch in unit.branches]):
                rewards += (returns - torch.cat([returns[1:], torch.zeros(1)])).tolist()
        found[whiten] = torch.tensor(rewards, dtype=torch.float64)
    assert float(found[False].var(unbiased=False)) > 10
    assert float(found[True].var(unbiased=False)) == pytest.approx(1.0, abs=0.05)
    assert float(found[True].mean()) == pytest.approx(float(found[False].mean()), rel=1e-3)


def test_a_function_and_a_model_are_mixed_by_weight(tmp_path: Path) -> None:
    policy: PolicyModel = tiny.policy()
    trainer = build(tmp_path, policy=policy, num_iterations=1)
    model = RewardModel(policy, (), RewardHeads(policy.hidden_size, 3, seed=5), trainer.renderer)
    trainer.experience.rewards = [FunctionReward(size, 0.5, "size"), LearnedReward(model, 2.0)]
    row = trainer.train()
    assert {"rewards/size/mean", "rewards/reward_model/mean", "rewards/disagreement/mean"} <= row.keys()
    assert row["objective/scores"] == pytest.approx(0.5 * row["rewards/size/mean"] + 2 * row["rewards/reward_model/mean"], abs=1e-4)
    assert row["rewards/size/mean"] > 0 and abs(row["rewards/reward_model/mean"]) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_no_other_policy(dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 sampler and trainer differ by rounding, on single tokens by a lot; log-probs that are off by half a nat stop the run."""
    policy = PolicyModel(tiny.model(scale=0.4, num_hidden_layers=4).to(dtype))
    build(tmp_path / "a", policy=policy, num_iterations=1).train()
    trainer = build(tmp_path / "b", policy=PolicyModel(tiny.model(scale=0.4).to(dtype)), num_iterations=1)
    sample = LocalSampler.sample

    def shifted(self: LocalSampler, *given: Any, **more: Any) -> list[Rollout]:
        return [replace(one, sampler_logprobs=tuple(x - 0.5 for x in one.sampler_logprobs)) for one in sample(self, *given, **more)]

    monkeypatch.setattr(LocalSampler, "sample", shifted)
    with pytest.raises(DivergedError, match=r"disagree by 0\.[45]\d* nat on a token" + ("" if dtype == torch.float32 else " in the mean")):
        trainer.train()
