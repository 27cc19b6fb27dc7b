"""Trains tiny models from the command line, for tests that kill, resume and spread a run over processes.

    python run_training.py FOLDER SETTINGS METHOD...

SETTINGS is JSON: changes to the config, `resume` to go on from the last checkpoint, `pause` seconds after each step, the number of
`processes` that must have joined (1). Each method trains in FOLDER/METHOD.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers import TrainerCallback

import tiny
from accord import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    PPOConfig,
    PPOTrainer,
    PRMConfig,
    PRMTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)
from accord.training import processes
from accord.training.loop import Interrupted, Loop


class Pause(TrainerCallback):
    """Makes a step last long enough to be killed in."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
        time.sleep(self.seconds)


def by_length(completions: list[Any], **columns: Any) -> list[float]:
    return [len(completion[0]["content"]) / 10 for completion in completions]


def by_parity(completions: list[Any], **columns: Any) -> list[float]:
    """0 or 1: some groups agree, so dynamic sampling and the curriculum have something to do."""
    return [float(len(completion[0]["content"]) % 2) for completion in completions]


GRPO: dict[str, dict[str, Any]] = {
    "grpo_token_mean": {"loss_type": "token_mean", "scale_rewards": "batch", "kl_in": "loss_k3"},
    "grpo_sequence_mean": {"loss_type": "sequence_mean", "scale_rewards": "group", "control": "shuffled"},
}
"""Variants of GRPO that add token losses up in other ways; plain `grpo` divides by a constant."""


def build(method: str, folder: Path, callbacks: list[Any], changes: dict[str, Any], *, full: bool = False, upper: bool = False) -> Loop:
    """A trainer with uneven batches: 9 rows, 4 a step.

    Args:
        full: True trains all weights (in SFT with a head that is tied to the embeddings). False a fresh adapter.
        upper: True puts the adapter on the upper of the two layers. False on both.
    """
    shared: dict[str, Any] = {"output_dir": str(folder), "learning_rate": 1e-4, **changes}
    if method not in ("ppo", "grpo", *GRPO):
        shared = {"per_device_train_batch_size": 4, **shared}
    adapter = tiny.lora()
    if upper:
        adapter.target_modules, adapter.layers_to_transform = ["q_proj", "o_proj", "up_proj", "down_proj"], [1]
    common: dict[str, Any] = {"processing_class": tiny.tokenizer(), "callbacks": callbacks, "peft_config": None if full else adapter}
    if method == "sft":
        return SFTTrainer(
            tiny.policy(tie_word_embeddings=full),
            SFTConfig(**{"eval_steps": 3, **shared}),
            tiny.demonstrations(),
            tiny.demonstrations(4),
            **common,
        )
    if method == "sft_8bit":  # all weights, of which the embeddings are large enough for eight bits
        common["peft_config"] = None
        return SFTTrainer(tiny.policy(), SFTConfig(optim="adamw_8bit", **shared), tiny.demonstrations(), **common)
    if method == "reward":
        return RewardTrainer(tiny.policy(), RewardConfig(**shared), [*tiny.pairs(), *tiny.rankings()], **common)
    if method == "reward_heads":
        return RewardTrainer(tiny.policy(), RewardConfig(backbone="heads", **shared), tiny.pairs(), **common)
    if method == "prm":
        return PRMTrainer(tiny.policy(), PRMConfig(**shared), tiny.solutions(), **common)
    if method == "dpo":
        return DPOTrainer(tiny.policy(), None, DPOConfig(**shared), tiny.pairs(), tiny.pairs(3), **common)
    if method == "kto":
        return KTOTrainer(tiny.policy(), None, KTOConfig(**shared), tiny.labelled(), **common)
    rows: dict[str, Any] = {"train_dataset": tiny.prompts(), "eval_dataset": tiny.prompts(9)[6:]}
    if method.startswith("grpo"):
        options: dict[str, Any] = {
            "per_device_train_batch_size": 5,
            "steps_per_generation": 2,
            "num_generations": 2,
            "max_completion_length": 6,
            "max_steps": 16,
            "beta": 0.05,
            "dynamic_sampling": 1,
            "curriculum": True,
            "eval_steps": 3,
            **GRPO.get(method, {}),
        }
        return GRPOTrainer(tiny.policy(), by_parity, GRPOConfig(**{**options, **shared}), **rows, **common)
    sizes: dict[str, Any] = {
        "prompts_per_iteration": 5,
        "num_generations": 2,
        "max_new_tokens": 6,
        "num_iterations": 8,
        "kl_controller": "adaptive",
        "value": "adapter",
        "eval_steps": 3,
    }
    return PPOTrainer(PPOConfig(**{**sizes, **shared}), model=tiny.policy(), reward=by_length, **rows, **common)


def report_end(folder: Path) -> None:
    """Whether this process still belonged to a group when it ended: what was registered last ran first."""
    state = "member" if torch.distributed.is_initialized() else "left"
    (folder / f"group-{os.environ.get('RANK', '0')}").write_text(state, encoding="utf-8")


def main() -> None:
    torch.set_num_threads(1)
    atexit.register(report_end, Path(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    resume, pause, count = settings.pop("resume", None), settings.pop("pause", 0.0), settings.pop("processes", 1)
    for method in sys.argv[3:]:
        folder = Path(sys.argv[1]) / method
        trainer = build(method, folder, [Pause(pause)] if pause else [], settings)
        assert processes.world() == count
        try:
            trainer.train(resume)
        except Interrupted as stopped:
            print(f"interrupted: saved {stopped.args[0]}", flush=True)
            sys.exit(130)


if __name__ == "__main__":
    main()
