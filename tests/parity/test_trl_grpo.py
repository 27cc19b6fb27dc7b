"""Three updates on identical rollouts, given to TRL 1.16 through its `rollout_func` and to accord by a sampler that replays them.

The second and third are off-policy, so ratios, clipping and KL matter. Loss and gradient norm to 1e-4 relative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from datasets import Dataset

from accord import GRPOConfig, GRPOTrainer
from accord.data.packing import Branch, Unit, pack
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Rollout
from parity.test_trl import peft_model, tokenizer, trl_arguments

trl = pytest.importorskip("trl")

PROMPTS, GROUP, UPDATES = 4, 4, 3
SEQUENCE = {"importance_sampling_level": "sequence", "epsilon": 3e-3, "epsilon_high": 4e-3}
TEXTS = [f"Tell me about number {i}{'!' * i}" for i in range(PROMPTS)]


def answers(prompt: int) -> list[list[int]]:
    """Fixed completions of different lengths that end with the end token, id 2."""
    generator = torch.Generator().manual_seed(prompt)
    return [[*torch.randint(40, 120, (2 + (3 * k + prompt) % 6,), generator=generator).tolist(), 2] for k in range(GROUP)]


def reward(completions: list[Any], completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """Any number that differs within groups."""
    return [float(sum(ids[:-1]) % 7) + 0.5 * len(ids) for ids in completion_ids]


class Replay:
    """The same answers whatever the policy, with the log-probs the policy gives them."""

    trainer: Any = None

    def sample(self, prompts: Sequence[Prompt], config: SamplingConfig) -> list[Rollout]:
        found = []
        for prompt in prompts:
            ids = answers(TEXTS.index(prompt.messages[-1].content))
            unit = Unit(prompt.ids, tuple(Branch(tuple(answer)) for answer in ids))
            with torch.no_grad():
                logprobs = self.trainer.policy.forward(pack([unit]), self.trainer.stack).logprobs
            parts = logprobs.split([len(answer) for answer in ids])
            for index, (answer, own) in enumerate(zip(ids, parts, strict=True)):
                found.append(
                    Rollout(
                        prompt.id,
                        prompt.messages,
                        prompt.ids,
                        tuple(answer),
                        "",
                        tuple(own.tolist()),
                        "stop",
                        index,
                        config.step,
                        prompt.columns,
                    )
                )
        return found


def rollout_func(prompts: list[Any], trainer: Any) -> dict[str, Any]:
    """TRL's: one answer for each repeated prompt, in turn."""
    made = tokenizer()
    seen: dict[str, int] = {}
    prompt_ids, completion_ids = [], []
    for prompt in prompts:
        text = prompt[-1]["content"]
        index = seen[text] = seen.get(text, -1) + 1
        prompt_ids.append(made.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False))
        completion_ids.append(answers(TEXTS.index(text))[index])
    return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": [[0.0] * len(ids) for ids in completion_ids]}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"loss_type": "grpo"}, {"loss_type": "sequence_mean", "scale_rewards": "group"}),
        ({"loss_type": "dapo", "epsilon_high": 0.28}, {"loss_type": "token_mean", "scale_rewards": "group", "epsilon_high": 0.28}),
        ({"loss_type": "dr_grpo", "scale_rewards": "none"}, {}),
        (
            {"loss_type": "dapo", "scale_rewards": "batch", "delta": 1.5},
            {"loss_type": "token_mean", "scale_rewards": "batch", "delta": 1.5},
        ),
        (
            {"loss_type": "grpo", "beta": 0.1, "use_bias_correction_kl": False},
            {"loss_type": "sequence_mean", "scale_rewards": "group", "beta": 0.1, "kl_in": "loss_k3"},
        ),
        (
            {"loss_type": "grpo", **SEQUENCE},
            {"loss_type": "sequence_mean", "scale_rewards": "group", **SEQUENCE},
        ),
        (
            {"loss_type": "cispo", "epsilon_high": 1.05},
            {"clip": "cispo", "loss_type": "token_mean", "scale_rewards": "group", "epsilon_high": 1.05},
        ),
    ],
    ids=["grpo", "dapo", "dr_grpo", "batch-delta", "grpo-kl", "gspo", "cispo"],
)
def test_three_updates(tmp_path: Any, theirs: dict[str, Any], ours: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    expected, found = histories(tmp_path, reward, theirs, ours, UPDATES)
    assert_same(found, expected)
    assert found[-1]["reward"] == pytest.approx(expected[0]["reward"], rel=1e-5)
    assert max(abs(row["val/ratio"] - 1) for row in found) > 1e-3  # off-policy, or the comparison would say little


def some(whose: Any) -> Any:
    """A second reward that judges some answers only: None for the others."""

    def more(prompts: list[Any], completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
        texts = [prompt[-1]["content"] for prompt in prompts]
        return [float(len(ids)) if whose(text, ids) else None for text, ids in zip(texts, completion_ids, strict=True)]

    return more


def test_a_reward_for_some_prompts(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """None for all answers to a prompt: both libraries add up the other rewards. None for some of them: TRL compares sums of different
    parts, accord leaves these answers out and counts them."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    theirs = {"loss_type": "dr_grpo", "scale_rewards": "none"}
    expected, found = histories(tmp_path / "prompts", [reward, some(lambda text, ids: text != TEXTS[1])], theirs, {}, 1)
    assert_same(found, expected)
    assert found[0]["reward"] == pytest.approx(expected[0]["reward"], rel=1e-5) and found[0]["completions/not_scored"] == 0
    expected, found = histories(tmp_path / "answers", [reward, some(lambda text, ids: len(ids) > 4)], theirs, {}, 1)
    short = sum(len(ids) <= 4 for prompt in range(PROMPTS) for ids in answers(prompt))
    assert 0 < found[0]["completions/not_scored"] == short and abs(found[0]["reward"] - expected[0]["reward"]) > 0.1


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Loss and gradient norm to 1e-4 relative, step by step."""
    assert len(expected) == len(found)
    for name in ("loss", "grad_norm"):
        ours, theirs = (torch.tensor([float(row[name]) for row in history], dtype=torch.float64) for history in (found, expected))
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=2e-6), f"{name}: {ours.tolist()} against {theirs.tolist()}"


def histories(
    tmp_path: Any, rewards: Any, theirs: dict[str, Any], ours: dict[str, Any], updates: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What TRL and accord log of so many updates on the same rollouts."""
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in TEXTS]
    shared = {
        "num_generations": GROUP,
        "max_completion_length": 16,
        "num_iterations": updates,
        "per_device_train_batch_size": PROMPTS * GROUP,
    }
    arguments = {**trl_arguments(), **shared, "max_steps": updates, "learning_rate": 1e-2, "adam_epsilon": 1e-8, **theirs}
    them = trl.GRPOTrainer(
        model=peft_model(),
        reward_funcs=rewards,
        args=trl.GRPOConfig(output_dir=str(tmp_path / "trl"), **arguments),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
        rollout_func=rollout_func,
    )
    them.train()
    sampler = Replay()
    args = GRPOConfig(output_dir=str(tmp_path / "accord"), max_steps=updates, learning_rate=1e-2, **shared, **ours)
    us = GRPOTrainer(peft_model(), rewards, args, rows, processing_class=tokenizer(), sampler=sampler)
    sampler.trainer = us
    us.train()
    return [row for row in them.state.log_history if "loss" in row], us.log_history
