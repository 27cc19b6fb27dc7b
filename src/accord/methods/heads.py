"""What trainers of heads on hidden states share: a LoRA backbone beside them, or features of a frozen one that are read once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from accord.config.heads import HeadsConfig
from accord.data.packing import Unit, pack
from accord.errors import ConfigError
from accord.models.adapters import Want
from accord.models.heads import FeatureHeads
from accord.rewards.scorer import Scorer
from accord.training.offline import OfflineTrainer


class HeadsTrainer(OfflineTrainer):
    """Trains heads on a fresh LoRA adapter (`backbone="lora"`) or on frozen features (`"heads"`).

    With frozen features the backbone runs once over the data, and the heads train on what it returned.

    Args:
        known_features: features by row id under the same stack and reading, shared between trainers; filled as rows are read.
    """

    heads_name: str
    """Under which checkpoints know the heads."""

    def __init__(
        self,
        model: Any,
        args: HeadsConfig | None = None,
        *positional: Any,
        known_features: dict[str, Tensor] | None = None,
        **keywords: Any,
    ) -> None:
        self.known_features = {} if known_features is None else known_features
        super().__init__(model, args, *positional, **keywords)
        config = cast("HeadsConfig", self.config)
        if config.feature_layer is not None and config.feature_layer > self.policy.num_layers:
            raise ConfigError(
                f"feature_layer={config.feature_layer}: this model has {self.policy.num_layers} layers. Choose 1 to {self.policy.num_layers}, or None for the last."
            )
        self.heads = self.make_heads(self.policy.hidden_size).to(self.policy.device)
        self.frozen = config.backbone == "heads"
        self.heads_scale = 1.0 if self.frozen else config.head_learning_rate_scale
        if self.frozen:
            self.policy.train_only(None)
        self.standardised = False

    @abstractmethod
    def make_heads(self, hidden_size: int) -> FeatureHeads:
        """Fresh heads, as the config wants them. hidden_size: the model's width."""

    @property
    @abstractmethod
    def scorer(self) -> Scorer[Any, Any]:
        """The object that trained, ready to score: the same tokens, the same features, the same heads."""

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """What is trained beside the backbone."""
        return {f"{self.heads_name}.{name}": parameter for name, parameter in self.heads.named_parameters()}

    def parameters(self) -> dict[str, nn.Parameter]:
        return ({} if self.frozen else super().parameters()) | self.head_parameters()

    def buffers(self) -> dict[str, Tensor]:
        return dict(self.heads.named_buffers())

    def parameter_groups(self) -> list[dict[str, Any]]:
        backbone = [] if self.frozen else list(super().parameters().values())
        heads = {"params": list(self.head_parameters().values()), "scale": self.heads_scale}
        return [{"params": backbone, "scale": 1.0}, heads] if backbone else [heads]

    def prepare_units(self, units: Sequence[Unit]) -> None:
        if not self.frozen:
            return
        self.scorer.remember(units, self.known_features, self.token_budget)
        for unit in units:
            unit.data["features"] = self.known_features[unit.id]

    def before_training(self) -> None:
        super().before_training()
        if self.frozen and not self.standardised:
            self.heads.standardise(torch.cat([self.train_units[i].data["features"] for i in self.rows_used()]))
            self.standardised = True

    def raw(self, units: Sequence[Unit]) -> Tensor:
        """What the heads say of these units before any normalisation, a row for each of their branches' `places`."""
        return self.heads.raw(self.ends(units))

    def ends(self, units: Sequence[Unit]) -> Tensor:
        """What the heads read of these units."""
        if self.frozen:
            return torch.cat([unit.data["features"] for unit in units]).to(self.policy.device)
        batch = pack(units, self.policy.device)
        (ends,) = self.policy.forward(batch, self.prepared.stack, Want(logprobs=False, ends=(self.heads.reading,))).ends
        return ends

    def write_model(self, folder: Path) -> None:
        self.scorer.save(folder, self.processing_class, full=self.prepared.full and not self.frozen)
