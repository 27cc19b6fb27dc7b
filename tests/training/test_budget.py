"""Tokens in a micro-batch: chosen from what is free when a run starts, said, recorded, and never changed after that."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

import tiny
from accord import DPOConfig, DPOTrainer, PPOConfig, PPOTrainer, SFTConfig, SFTTrainer
from accord.models.size import activation_bytes, logit_bytes, model_size, passing_floats
from accord.training.loop import Loop

SIZE = model_size(tiny.model().config)
PER_TOKEN = activation_bytes(SIZE) + 4 * passing_floats(SIZE, checkpointing=False)
LITTLE, MIDDLE, MUCH = (2 * tokens * 1.06 * PER_TOKEN + logit_bytes(SIZE) + 1e6 for tokens in (0, 600, 10**6))
"""Free memory half of which holds no tokens, 600, a million; a megabyte is for the adapter and its optimizer."""


def free(monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    """As if the system had so many bytes free."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(count)))


def trainer(method: str, folder: Path, **options: Any) -> Loop:
    shared: dict[str, Any] = {"output_dir": str(folder), "max_steps": 4, "learning_rate": 1e-3, "max_length": 256, **options}
    common: dict[str, Any] = {"processing_class": tiny.tokenizer(), "peft_config": tiny.lora()}
    if method == "ppo":
        config = PPOConfig(
            prompts_per_iteration=6, num_generations=8, max_new_tokens=12, num_ppo_epochs=1, num_mini_batches=1, num_iterations=4, **shared
        )
        return PPOTrainer(config, model=tiny.policy(), reward=size, train_dataset=tiny.prompts(), **common)
    shared["per_device_train_batch_size"] = 24
    if method == "dpo":
        return DPOTrainer(tiny.policy(), None, DPOConfig(**shared), tiny.pairs(30), **common)
    return SFTTrainer(tiny.policy(), SFTConfig(**shared), tiny.demonstrations(30), **common)


def size(completions: list[Any]) -> list[float]:
    return [float(len(completion[0]["content"])) for completion in completions]


@pytest.mark.parametrize(("available", "expected"), [(LITTLE, 256), (MIDDLE, 512), (MUCH, 1024)])
def test_less_memory_makes_smaller_micro_batches(
    available: float, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said once, and written where the run's settings are."""
    free(monkeypatch, available)
    run = trainer("sft", tmp_path)
    assert run.token_budget == expected
    run.train()
    assert re.findall(r"tokens_per_microbatch (.*)\n", capsys.readouterr().err) == [
        f"{expected}, from {available / 1e9:.1f} GB of free memory."
    ]
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["config"]["tokens_per_microbatch"] == expected


def test_what_is_trained_takes_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All weights, their gradients and moments leave less room than an adapter's."""
    free(monkeypatch, MIDDLE)
    config = SFTConfig(output_dir=str(tmp_path), max_length=256)
    full = SFTTrainer(
        tiny.policy(hidden_size=512, intermediate_size=1024), config, tiny.demonstrations(), processing_class=tiny.tokenizer()
    )
    assert full.token_budget == 256 < trainer("sft", tmp_path).token_budget


def test_processes_on_one_machine_share_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2 * MIDDLE)
    assert trainer("sft", tmp_path).token_budget == 1024
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert trainer("sft", tmp_path).token_budget == 512


def test_a_given_number_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    free(monkeypatch, LITTLE)
    assert trainer("sft", tmp_path, tokens_per_microbatch=3000).token_budget == 3000
    assert "tokens_per_microbatch" not in capsys.readouterr().err


@pytest.mark.parametrize("method", ["dpo", "ppo"])
def test_a_resumed_run_keeps_it_whatever_is_free_now(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bit for bit, with the reference read in the same batches (nothing of it is in a cache). Had the budget followed the memory, it would be
    equal up to rounding only, as a run with other micro-batches is."""
    options: dict[str, Any] = {"save_steps": 2, **({"cache_reference": False} if method == "dpo" else {})}

    def weights(run: Loop) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in run.parameters().values()])

    free(monkeypatch, LITTLE)
    straight = trainer(method, tmp_path / "straight", **options)
    straight.train()
    free(monkeypatch, MUCH)
    resumed = trainer(method, tmp_path / "resumed", **options)
    assert (straight.token_budget, resumed.token_budget) == (256, 1024)
    capsys.readouterr()
    resumed.train(str(tmp_path / "straight" / "checkpoint-2"))
    said = capsys.readouterr()
    assert "tokens_per_microbatch 256, as in the run that is resumed.\n" in said.err and "(bit for bit)" in said.out
    assert resumed.token_budget == 256 and torch.equal(weights(resumed), weights(straight))
    assert json.loads((tmp_path / "resumed" / "run.json").read_text(encoding="utf-8"))["config"]["tokens_per_microbatch"] == 256
    other = trainer(method, tmp_path / "other", **options)
    other.train()
    assert other.token_budget == 1024 and not torch.equal(weights(other), weights(straight))
    assert float((weights(other) - weights(straight)).norm() / weights(straight).norm()) < 1e-4
