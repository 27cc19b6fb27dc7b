"""Direct preference optimisation and its family: their fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from accord.config.base import TrainingConfig
from accord.config.known_names import accepts_known_names
from accord.errors import ConfigError

LOSSES = ("sigmoid", "ipo", "hinge", "robust", "simpo", "orpo", "apo_zero", "sigmoid_norm")
SOFT_LABELS = ("sigmoid", "robust")
"""Losses that use label_smoothing and the probabilities of rows."""


@accepts_known_names
@dataclass
class DPOConfig(TrainingConfig):
    """Learn preferences without a reward model."""

    beta: float = 0.1
    """How strongly the policy is held to the reference. 0.01 to 0.5; simpo takes 2 to 10, orpo 0.1."""
    loss_type: str | list[str] = "sigmoid"
    """sigmoid (DPO), ipo, hinge, robust, simpo, orpo, apo_zero, sigmoid_norm (length-normalised)."""
    label_smoothing: float = 0.0
    """Share of labels taken to be flipped, 0 to 0.5. With sigmoid this is conservative DPO; 0 for losses other than robust."""
    simpo_gamma: float = 1.0
    """Target margin of simpo, in the units of beta times log-prob a token."""
    sft_coefficient: float = 0.0
    """Weight of an SFT loss on the chosen answers, mean over their tokens: 0.005 to 1 keeps them likely. 0 turns it off."""
    max_prompt_length: int | None = None
    """Longest prompt in tokens, cut on the left. None cuts only by max_length."""
    cache_reference: bool = True
    """True keeps reference log-probs for later runs (folder `reference` in the cache, which may be deleted). False computes every row."""

    method: ClassVar[str] = "dpo"
    full_learning_rate: ClassVar[float] = 5e-7
    lora_learning_rate: ClassVar[float] = 1e-5

    @property
    def loss_name(self) -> str:
        """The one loss this config names."""
        return self.loss_type if isinstance(self.loss_type, str) else self.loss_type[0]

    def validate(self) -> None:
        super().validate()
        if not isinstance(self.loss_type, str) and len(self.loss_type) != 1:
            raise ConfigError(f"DPOConfig: loss_type={self.loss_type!r} must name one loss. To add an SFT term use sft_coefficient.")
        if self.loss_name not in LOSSES:
            raise ConfigError(f"DPOConfig: loss_type={self.loss_name!r} must be one of {', '.join(LOSSES)}.")
        self.require("beta", self.beta > 0, "above 0")
        self.require("label_smoothing", 0 <= self.label_smoothing < 0.5, "0 up to (not including) 0.5")
        if self.label_smoothing and self.loss_name not in SOFT_LABELS:
            raise ConfigError(
                f"DPOConfig: loss_type={self.loss_name!r} does not use label_smoothing; {' and '.join(SOFT_LABELS)} do. Set it to 0."
            )
        if self.loss_name == "robust" and self.label_smoothing == 0:
            raise ConfigError("DPOConfig: loss_type='robust' needs label_smoothing above 0: the share of flipped labels it corrects for.")
