"""Supervised fine-tuning: its fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from accord.config.base import TrainingConfig
from accord.config.known_names import accepts_known_names


@accepts_known_names
@dataclass
class SFTConfig(TrainingConfig):
    """Imitate demonstrations. LoRA rates are about ten times those of full fine-tuning (Schulman et al. 2025, "LoRA without regret")."""

    loss_aggregation: str = "token"
    """token: every counted token of the step weighs the same. sequence: every answer does, which favours short answers."""
    max_prompt_length: int | None = None
    """Longest prompt in tokens, cut on the left. None cuts only by max_length."""

    method: ClassVar[str] = "sft"
    full_learning_rate: ClassVar[float] = 2e-5
    lora_learning_rate: ClassVar[float] = 2e-4

    def validate(self) -> None:
        super().validate()
        self.choice("loss_aggregation", ("token", "sequence"))
