"""Reward models: learn a score from comparisons, rankings and soft labels.

Every row becomes ordered pairs with a target probability, a margin and a weight; a ranking of K answers is one unit whose
K (K - 1) / 2 pairs share weight 1, so K answers cost K forwards and no answer is seen K - 1 times an epoch (InstructGPT, section 3.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from accord.config.reward import RewardConfig
from accord.data.packing import Unit, pack
from accord.errors import ConfigError, DataError
from accord.models.adapters import Want
from accord.models.heads import RewardHeads, pair_weights
from accord.objectives.ranking import bradley_terry, davidson, plackett_luce, robust_bradley_terry
from accord.rewards.learned import RewardModel
from accord.training import processes
from accord.training.metrics import Metrics
from accord.training.offline import OfflineTrainer


@dataclass(frozen=True)
class Comparisons:
    """All ordered pairs of some units: indices into their completions, better one first (ties in both orders are one pair at 0.5)."""

    better: Tensor
    """(Q,) int64"""
    worse: Tensor
    """(Q,) int64"""
    probability: Tensor
    """(Q,) probability that `better` is better."""
    margin: Tensor
    """(Q,)"""
    weight: Tensor
    """(Q,): 1 over the number of pairs of the unit."""
    unit: Tensor
    """(Q,) int64"""


def comparisons(units: Sequence[Unit]) -> Comparisons:
    """Ordered pairs of preference and ranking units.

    Raises:
        DataError: if there is none.
    """
    rows: list[tuple[int, int, float, float, float, int]] = []
    offset = 0
    for index, unit in enumerate(units):
        example = unit.data["example"]
        ranks = example.ranks or (1, 2)
        count = len(unit.branches)
        if example.kind == "preference":
            probability = 1.0 if example.probability is None else example.probability
            rows.append((offset, offset + 1, probability, example.strength or 0.0, 1.0, index))
        else:
            pairs = [(i, j) if ranks[i] <= ranks[j] else (j, i) for i in range(count) for j in range(i + 1, count)]
            for i, j in pairs:
                rows.append((offset + i, offset + j, 0.5 if ranks[i] == ranks[j] else 1.0, 0.0, 1.0 / len(pairs), index))
        offset += count
    if not rows:
        raise DataError("No comparison in this batch of rows.")
    columns = list(zip(*rows, strict=True))
    better, worse, unit_index = (torch.tensor(columns[i]) for i in (0, 1, 5))
    probability, margin, weight = (torch.tensor(columns[i], dtype=torch.float32) for i in (2, 3, 4))
    return Comparisons(better, worse, probability, margin, weight, unit_index)


class RewardTrainer(OfflineTrainer):
    """Trains reward heads at the end token, on a fresh LoRA adapter (`backbone="lora"`) or on frozen features (`"heads"`).

    With frozen features the backbone runs once over the data, and the heads train on what it returned.

    Args:
        known_features: features by row id under the same stack and layer, shared between trainers; filled as rows are read.
    """

    method = "reward"
    adapter = "reward"
    kinds = ("preference", "ranking")
    config_class = RewardConfig
    config: RewardConfig
    metric_names = ("loss", "accuracy", "margin")

    def __init__(
        self,
        model: Any,
        args: RewardConfig | None = None,
        *positional: Any,
        known_features: dict[str, Tensor] | None = None,
        **keywords: Any,
    ) -> None:
        self.known_features = {} if known_features is None else known_features
        super().__init__(model, args, *positional, **keywords)
        config = self.config
        if config.feature_layer is not None and config.feature_layer > self.policy.num_layers:
            raise ConfigError(
                f"feature_layer={config.feature_layer}: this model has {self.policy.num_layers} layers. Choose 1 to {self.policy.num_layers}, or None for the last."
            )
        size = self.policy.hidden_size * (3 if config.head_context else 1)
        heads = RewardHeads(
            size, config.num_heads, width=config.head_width, layer=config.feature_layer, context=config.head_context, seed=config.seed
        )
        self.heads = heads.to(self.policy.device)
        self.frozen = config.backbone == "heads"
        if self.frozen:
            self.policy.train_only(None)
            if not self.prepared.full:
                self.prepared.stack = self.prepared.reference if self._fresh_adapter() else self.prepared.stack
        self.log_nu = nn.Parameter(torch.zeros(())) if config.loss == "davidson" else None
        self.standardised = False

    def _fresh_adapter(self) -> bool:
        return self.prepared.stack != self.prepared.reference and self.adapter in self.prepared.stack

    @property
    def reward_model(self) -> RewardModel:
        """The object that trained, ready to score: the same tokens, the same features, the same heads."""
        return RewardModel(self.policy, self.prepared.stack, self.heads, self.renderer)

    def parameters(self) -> dict[str, nn.Parameter]:
        found = {} if self.frozen else super().parameters()
        found |= {f"reward_heads.{name}": parameter for name, parameter in self.heads.named_parameters()}
        if self.log_nu is not None:
            found["log_nu"] = self.log_nu
        return found

    def buffers(self) -> dict[str, Tensor]:
        return dict(self.heads.named_buffers())

    def parameter_groups(self) -> list[dict[str, Any]]:
        backbone = [] if self.frozen else list(super().parameters().values())
        heads = list(self.heads.parameters()) + ([self.log_nu] if self.log_nu is not None else [])
        scale = 1.0 if self.frozen else self.config.head_learning_rate_scale
        return [{"params": backbone, "scale": 1.0}, {"params": heads, "scale": scale}] if backbone else [{"params": heads, "scale": scale}]

    # -- features -----------------------------------------------------------------------------------------------------------------------

    def prepare_units(self, units: Sequence[Unit]) -> None:
        if not self.frozen:
            return
        self.reward_model.remember(units, self.known_features, self.token_budget)
        for unit in units:
            unit.data["features"] = self.known_features[unit.id]

    def before_training(self) -> None:
        super().before_training()
        if self.frozen and not self.standardised:
            self.heads.standardise(torch.cat([self.train_units[i].data["features"] for i in self.rows_used()]))
            self.standardised = True

    def _scores(self, units: Sequence[Unit]) -> Tensor:
        """(C, K) raw scores."""
        if self.frozen:
            return self.heads.raw(torch.cat([unit.data["features"] for unit in units]).to(self.policy.device))
        batch = pack(units, self.policy.device)
        out = self.policy.forward(batch, self.prepared.stack, Want(logprobs=False, **self.heads.reading))
        assert out.ends is not None
        return self.heads.raw(out.ends)

    # -- loss ---------------------------------------------------------------------------------------------------------------------------

    def _head_weights(self, units: Sequence[Unit]) -> Tensor:
        """(U, K): 1 for a single head, Poisson(1) from the unit's id for several."""
        if self.heads.num_heads == 1:
            return torch.ones(len(units), 1)
        return pair_weights([unit.id for unit in units], self.heads.num_heads, seed=self.config.seed)

    def totals(self, units: Sequence[Unit]) -> dict[str, float]:
        weights = self._head_weights(units).sum(0) if units else torch.zeros(self.heads.num_heads)
        return {"units": float(len(units))} | {f"head{k}": float(weight) for k, weight in enumerate(weights)}

    def loss(self, units: Sequence[Unit], totals: dict[str, float]) -> tuple[Tensor, Metrics]:
        scores = self._scores(units)
        pairs = comparisons(units)
        weights = self._head_weights(units).to(scores.device)
        per_head = torch.tensor([max(totals[f"head{k}"], 1e-9) for k in range(scores.shape[1])], device=scores.device)
        per_unit = self._unit_losses(units, scores, pairs)
        # Each head is its own model: the loss is the sum over heads of its weighted mean, divided by K so that it reads as one loss.
        loss = (per_unit * weights / per_head).sum() / scores.shape[1]
        return loss, self._metrics(scores, pairs, units)

    def _unit_losses(self, units: Sequence[Unit], scores: Tensor, pairs: Comparisons) -> Tensor:
        """(U, K)"""
        config = self.config
        if config.loss == "plackett_luce":
            return self._plackett_luce(units, scores)
        better, worse = scores[pairs.better], scores[pairs.worse]
        probability, margin, weight = (value.to(scores.device)[:, None] for value in (pairs.probability, pairs.margin, pairs.weight))
        if config.loss == "davidson":
            assert self.log_nu is not None
            outcome = torch.where(probability == 0.5, 0.5, 1.0).expand_as(better)
            losses = davidson(better, worse, outcome, self.log_nu)
        elif config.loss == "robust":
            losses = robust_bradley_terry(better - worse, flip_rate=config.label_smoothing)
        else:
            soft = probability * (1 - config.label_smoothing) + (1 - probability) * config.label_smoothing
            losses = bradley_terry(better, worse, margin=margin if config.use_margin else None, probability=soft)
        if config.center_rewards_coefficient:
            losses = losses + config.center_rewards_coefficient * (better + worse) ** 2
        return torch.zeros(len(units), scores.shape[1], device=scores.device).index_add(0, pairs.unit.to(scores.device), losses * weight)

    def _plackett_luce(self, units: Sequence[Unit], scores: Tensor) -> Tensor:
        rows, offset = [], 0
        for unit in units:
            count = len(unit.branches)
            ranks = torch.tensor(unit.data["example"].ranks or (1, 2), device=scores.device)
            group = torch.zeros(count, dtype=torch.int64, device=scores.device)
            rows.append(
                torch.stack([plackett_luce(scores[offset : offset + count, k], group, ranks).sum() for k in range(scores.shape[1])])
            )
            offset += count
        return torch.stack(rows)

    @torch.no_grad()
    def _metrics(self, scores: Tensor, pairs: Comparisons, units: Sequence[Unit]) -> Metrics:
        metrics = Metrics()
        mean = scores.mean(1)
        gap = mean[pairs.better] - mean[pairs.worse]
        decided = (pairs.probability != 0.5).to(gap.device)
        if decided.any():
            right = (gap > 0).double() + 0.5 * (gap == 0).double()
            metrics.mean("accuracy", right[decided])
            metrics.mean("margin", gap[decided])
            lengths = torch.tensor([len(branch.ids) for unit in units for branch in unit.branches])
            shorter = (lengths[pairs.better] < lengths[pairs.worse]) & (pairs.probability != 0.5)
            longer = (lengths[pairs.better] > lengths[pairs.worse]) & (pairs.probability != 0.5)
            metrics.ratio("accuracy_shorter_wins", right[shorter.to(gap.device)].sum(), int(shorter.sum()))
            metrics.ratio("accuracy_longer_wins", right[longer.to(gap.device)].sum(), int(longer.sum()))
        metrics.mean("mean_reward", mean)
        metrics.minimum("min_reward", mean.min())
        metrics.maximum("max_reward", mean.max())
        if scores.shape[1] > 1:
            metrics.mean("head_disagreement", scores.std(1))
        return metrics

    # -- after training -----------------------------------------------------------------------------------------------------------------

    def normalise(self, units: Sequence[Unit] | None = None) -> None:
        """Fix mean 0 and variance 1 of each head on reference samples (prompts with answers of the SFT policy); None uses the training rows.

        Makes the KL coefficient mean the same for any reward model (lm-human-preferences).
        """
        chosen = self.train_units if units is None else list(units)
        known = [unit.data["features"] for unit in chosen if "features" in unit.data]
        features = known if len(known) == len(chosen) else self.reward_model.features(chosen, self.token_budget)
        self.heads.normalise(torch.cat(features).to(self.policy.device))

    def train(self, resume_from_checkpoint: str | bool | None = None) -> dict[str, Any]:
        last = super().train(resume_from_checkpoint)
        if self.config.normalise:
            self.normalise()
        return last

    def save_model(self, output_dir: str | Path | None = None) -> None:
        if processes.is_main():
            full = self.prepared.full and not self.frozen
            self.reward_model.save(Path(output_dir or self.folder), self.processing_class, full=full)
