"""Held-out evaluation measures against the model before training, in full fine-tuning too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from accord import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from accord.data.packing import pack
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
