"""Kahneman-Tversky optimisation: its fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from accord.config.base import TrainingConfig
from accord.config.known_names import accepts_known_names


@accepts_known_names
@dataclass
class KTOConfig(TrainingConfig):
    """Learn from single answers marked desirable or not. Rows a step should be 16 or more: the baseline is an average over them."""

    per_device_train_batch_size: int = 16
    """Times gradient_accumulation_steps: rows an optimizer step sees; the KL baseline is their average. Statistics, not memory."""
    beta: float = 0.1
    """How strongly the policy is held to the reference. 0.01 to 0.5."""
    desirable_weight: float = 1.0
    """Weight of desirable rows; keep weight times count of both kinds within a ratio of 1 to 1.5 (Ethayarajh et al. 2024)."""
    undesirable_weight: float = 1.0
    """Weight of undesirable rows."""
    max_prompt_length: int | None = None
    """Longest prompt in tokens, cut on the left. None cuts only by max_length."""
    cache_reference: bool = True
    """True keeps reference log-probs for later runs (folder `reference` in the cache, which may be deleted). False computes every row."""

    method: ClassVar[str] = "kto"
    full_learning_rate: ClassVar[float] = 1e-6
    lora_learning_rate: ClassVar[float] = 1e-5

    def validate(self) -> None:
        super().validate()
        self.require("beta", self.beta > 0, "above 0")
        self.require("desirable_weight", self.desirable_weight >= 0, "0 or more")
        self.require("undesirable_weight", self.undesirable_weight >= 0, "0 or more")
