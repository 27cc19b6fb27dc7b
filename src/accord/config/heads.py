"""What methods that train heads on hidden states share: their fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from accord.config.base import TrainingConfig


@dataclass
class HeadsConfig(TrainingConfig):
    """Fields of reward models and process reward models."""

    backbone: str = "lora"
    """lora: train the given adapter (or the model) and the heads. heads: train heads alone on the frozen model's features, in seconds."""
    head_width: int = 0
    """Hidden units of each head. 0 is linear (a linear reward head exports as a transformers classifier); 64 can weigh features by others."""
    feature_layer: int | None = None
    """Layer the heads read, 1 to the number of layers. None is the last."""
    head_learning_rate_scale: float = 1.0
    """Multiplies the learning rate for the heads when a LoRA backbone is trained beside them."""

    full_learning_rate: ClassVar[float] = 1e-5
    lora_learning_rate: ClassVar[float] = 1e-4
    heads_learning_rate: ClassVar[float] = 2e-3

    def default_learning_rate(self, *, full: bool) -> float:
        if self.backbone == "heads":
            return self.heads_learning_rate
        return super().default_learning_rate(full=full)

    def validate(self) -> None:
        super().validate()
        self.choice("backbone", ("lora", "heads"))
        self.require("head_learning_rate_scale", self.head_learning_rate_scale >= 0, "0 or more")
        self.require("head_width", self.head_width >= 0, "0 (linear) or more")
        self.require("feature_layer", self.feature_layer is None or self.feature_layer >= 1, "1 or more, or None")
