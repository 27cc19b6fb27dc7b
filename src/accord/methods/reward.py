"""Reward models: learn a score from comparisons, rankings and soft labels.

Every row becomes ordered pairs with a target probability, a margin and a weight; a ranking of K answers is one unit whose
K (K - 1) / 2 pairs share weight 1, so K answers cost K forwards and no answer is seen K - 1 times an epoch (InstructGPT, section 3.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from accord.config.reward import RewardConfig
from accord.data.packing import Unit
from accord.errors import ConfigError, DataError
from accord.methods.heads import HeadsTrainer
from accord.methods.length_heads import SUMS, LengthHeads, lengths, named, unnamed
from accord.methods.reference_answers import reference_answers, rollout_units
from accord.models.heads import RewardHeads, pair_weights
from accord.objectives.mitigation import correlation
from accord.objectives.ranking import accuracy, bradley_terry, centering, davidson, plackett_luce, robust_bradley_terry
from accord.objectives.weak_to_strong import confident_target, ramped
from accord.rewards.laplace import LaplaceUncertainty
from accord.rewards.learned import RewardModel
from accord.rollouts.sampler import SamplingConfig
from accord.training.metrics import Metrics
from accord.training.setup import say

SAMPLED_BUDGETS = 4
"""Micro-batches' worth of tokens that sampled answers and their prompts may keep at once: no gradient is kept of them."""


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
    group: Tensor
    """(C,) int64: the unit of each completion."""
    ranks: Tensor
    """(C,) int64: 1 is best, equal ranks are ties."""
    ranked: Tensor
    """(U,) bool: True for rankings, False for preferences."""


def comparisons(units: Sequence[Unit], device: torch.device | str = "cpu") -> Comparisons:
    """Ordered pairs of preference and ranking units.

    Raises:
        DataError: if there is none.
    """
    rows: list[tuple[int, int, float, float, float, int]] = []
    group: list[int] = []
    all_ranks: list[int] = []
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
        group += [index] * count
        all_ranks += ranks
        offset += count
    if not rows:
        raise DataError("No comparison in this batch of rows.")
    better, worse, probability, margin, weight, unit_index = zip(*rows, strict=True)
    ranked = [unit.data["example"].kind == "ranking" for unit in units]

    def tensor(values: Sequence[Any], dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return Comparisons(
        better=tensor(better),
        worse=tensor(worse),
        probability=tensor(probability, torch.float32),
        margin=tensor(margin, torch.float32),
        weight=tensor(weight, torch.float32),
        unit=tensor(unit_index),
        group=tensor(group),
        ranks=tensor(all_ranks),
        ranked=tensor(ranked, torch.bool),
    )


def comparison_losses(
    scores: Tensor, pairs: Comparisons, config: RewardConfig, log_nu: Tensor | None = None, *, confidence: float = 0.0
) -> Tensor:
    """Loss of each unit under each head; every unit weighs 1, however many answers it compares.

    Args:
        scores: raw scores, larger is better. (C, K)
        pairs: what `comparisons` made of the units, on the same device.
        config: which loss, and its options.
        log_nu: the tie parameter of `davidson`.
        confidence: how far a label is drawn towards what each head itself prefers (`weak_to_strong.confident_target`); 0 leaves it.
    Returns:
        (U, K)
    """
    better, worse = scores[pairs.better], scores[pairs.worse]
    probability, weight = pairs.probability[:, None], pairs.weight[:, None]
    margin = pairs.margin[:, None] if config.use_margin else 0.0
    if config.loss == "davidson":
        assert log_nu is not None
        losses = davidson(better, worse, probability, log_nu)
    elif config.loss == "robust":
        losses = robust_bradley_terry(better - worse, flip_rate=config.label_smoothing, margin=margin, probability=probability)
    else:
        soft = probability * (1 - config.label_smoothing) + (1 - probability) * config.label_smoothing
        if confidence:
            soft = confident_target(soft, torch.sigmoid(better - worse - margin), confidence=confidence)
        losses = bradley_terry(better, worse, margin=margin, probability=soft)
    whole_rankings = config.loss == "plackett_luce"
    if whole_rankings:  # of two answers it is Bradley-Terry, soft labels and margins included
        losses = losses.masked_fill(pairs.ranked[pairs.unit][:, None], 0.0)
    if config.center_rewards_coefficient:
        losses = losses + config.center_rewards_coefficient * centering(better, worse)
    found = losses.new_zeros(len(pairs.ranked), scores.shape[1]).index_add(0, pairs.unit, losses * weight)
    if whole_rankings:
        heads = torch.stack([plackett_luce(head, pairs.group, pairs.ranks) for head in scores.unbind(1)], 1)
        found = found + heads.masked_fill(~pairs.ranked[:, None], 0.0)
    return found


class RewardTrainer(HeadsTrainer):
    """Trains reward heads at the end token; arguments and backbones are those of `HeadsTrainer`."""

    method = "reward"
    adapter = "reward"
    kinds = ("preference", "ranking")
    config_class = RewardConfig
    config: RewardConfig
    heads: RewardHeads
    heads_name = "reward_heads"
    metric_names = ("loss", "accuracy", "margin")
    laplace: LaplaceUncertainty | None = None

    def __init__(self, model: Any, args: RewardConfig | None = None, *positional: Any, **keywords: Any) -> None:
        super().__init__(model, args, *positional, **keywords)
        config = self.config
        moving = self.prepared.full and not self.frozen
        if moving and config.normalise and config.normalise_on == "samples":
            raise ConfigError(
                "normalise_on='samples' needs the reference policy and full fine-tuning changes it. Pass a peft_config, or normalise_on='training'."
            )
        self.normalise_on = config.normalise_on or ("training" if moving else "samples")
        self.log_nu = nn.Parameter(torch.zeros(())) if config.loss == "davidson" else None
        self.length_heads = LengthHeads(self.heads, config.seed) if config.length_head else None

    def make_heads(self, hidden_size: int) -> RewardHeads:
        config = self.config
        size = hidden_size * (3 if config.head_context else 1)
        return RewardHeads(
            size, config.num_heads, width=config.head_width, layer=config.feature_layer, context=config.head_context, seed=config.seed
        )

    @property
    def reward_model(self) -> RewardModel:
        """The object that trained, ready to score: the same tokens, the same features, the same heads."""
        model = RewardModel(self.policy, self.prepared.stack, self.heads, self.renderer)
        model.laplace = self.laplace
        return model

    @property
    def scorer(self) -> RewardModel:
        return self.reward_model

    def head_parameters(self) -> dict[str, nn.Parameter]:
        found = super().head_parameters() | ({} if self.log_nu is None else {"log_nu": self.log_nu})
        return found | ({} if self.length_heads is None else {"length_heads": self.length_heads.weight})

    def make_units(self, rows: Sequence[Any]) -> list[Unit]:
        """Raises ConfigError at the first row whose label the loss cannot use."""
        if self.config.loss == "davidson" and self.config.use_margin:
            for row in rows:
                if row.strength:
                    raise ConfigError(
                        f"{row.where or 'A row'} has a margin ({row.strength:g}) and loss 'davidson' has none. "
                        "Use loss='bradley_terry' or 'robust', or use_margin=False to ignore margins."
                    )
        return super().make_units(rows)

    # -- loss ---------------------------------------------------------------------------------------------------------------------------

    def _head_weights(self, units: Sequence[Unit]) -> Tensor:
        """(U, K): 1 for a single head, Poisson(1) from the unit's id for several."""
        if self.heads.num_heads == 1:
            return torch.ones(len(units), 1)
        return pair_weights([unit.id for unit in units], self.heads.num_heads, seed=self.config.seed)

    def totals(self, units: Sequence[Unit]) -> dict[str, float]:
        weights = self._head_weights(units).sum(0) if units else torch.zeros(self.heads.num_heads)
        return {"units": float(len(units))} | {f"head{k}": float(weight) for k, weight in enumerate(weights)}

    @torch.no_grad()
    def statistics(self, units: Sequence[Unit], totals: dict[str, float]) -> dict[str, float]:
        """With `length_head`: the sums from which the correlations of both heads with length follow."""
        if self.length_heads is None:
            return {}
        sums = torch.zeros(2, SUMS, self.heads.num_heads, dtype=torch.float64)
        with self.policy.gathered():
            for part in self.micro_batches(units):
                sums += self.length_heads.statistics(self.ends(part), part).cpu()
        return named(sums)

    def loss(self, units: Sequence[Unit], totals: dict[str, float]) -> tuple[Tensor, Metrics]:
        ends = self.ends(units)
        scores = self.heads.raw(ends)
        length_scores = None if self.length_heads is None else self.length_heads.raw(ends)
        pairs = comparisons(units, scores.device)
        weights = self._head_weights(units).to(scores.device)
        per_head = torch.tensor([max(totals[f"head{k}"], 1e-9) for k in range(scores.shape[1])], device=scores.device)
        confidence = ramped(self.global_step, self.total_steps(), most=self.config.confidence, warmup=self.config.confidence_warmup)
        compared = scores if length_scores is None else scores + length_scores
        per_unit = comparison_losses(compared, pairs, self.config, self.log_nu, confidence=confidence)
        # Each head is its own model: the loss is the sum over heads of its weighted mean, divided by K so that it reads as one loss.
        loss = (per_unit * weights / per_head).sum() / scores.shape[1]
        metrics = self._metrics(scores, pairs, units)
        if self.length_heads is not None and length_scores is not None:
            sums = unnamed(totals, scores.shape[1])
            loss = loss + self.length_heads.penalty(scores, length_scores, units, sums, len(units) / totals["units"])
            metrics.mean("length_correlation", correlation(sums[0]).abs())
        return loss, metrics

    @torch.no_grad()
    def _metrics(self, scores: Tensor, pairs: Comparisons, units: Sequence[Unit]) -> Metrics:
        metrics = Metrics()
        mean = scores.mean(1)
        better, worse = mean[pairs.better], mean[pairs.worse]
        decided = pairs.probability != 0.5
        if decided.any():
            right = accuracy(better, worse)
            metrics.mean("accuracy", right[decided])
            metrics.mean("margin", (better - worse)[decided])
            length = lengths(units, mean.device)
            shorter = (length[pairs.better] < length[pairs.worse]) & decided
            longer = (length[pairs.better] > length[pairs.worse]) & decided
            metrics.ratio("accuracy_shorter_wins", right[shorter].sum(), int(shorter.sum()))
            metrics.ratio("accuracy_longer_wins", right[longer].sum(), int(longer.sum()))
        metrics.mean("mean_reward", mean)
        metrics.minimum("min_reward", mean.min())
        metrics.maximum("max_reward", mean.max())
        if scores.shape[1] > 1:
            metrics.mean("head_disagreement", scores.std(1))
        return metrics

    # -- after training -----------------------------------------------------------------------------------------------------------------

    def normalise(self, units: Sequence[Unit]) -> None:
        """Fix mean 0 and variance 1 of each head on these answers. Makes the KL coefficient mean the same for any reward model."""
        self.heads.normalise(torch.cat(self._features(units)).to(self.policy.device))

    def fit_laplace(self) -> None:
        """Keep how sure the last layer is, given the comparisons that were trained on."""
        with self.policy.gathered():
            features = torch.cat(self._features(self.train_units)).to(self.policy.device)
        pairs = comparisons(self.train_units)
        self.laplace = LaplaceUncertainty.fit(self.heads, features[pairs.better], features[pairs.worse])

    def _features(self, units: Sequence[Unit]) -> list[Tensor]:
        known = [unit.data["features"] for unit in units if "features" in unit.data]
        return known if len(known) == len(units) else self.reward_model.features(units, self.token_budget)

    def _reference_units(self) -> list[Unit]:
        """Sampled answers of the policy that training starts from. (Base weights that are trained themselves are no such policy.)"""
        config = self.config
        rows = [unit.data["example"] for unit in self.train_units]
        longest = max(len(unit.prompt_ids) for unit in self.train_units) + config.max_new_tokens
        together = min(64, max(1, SAMPLED_BUDGETS * self.token_budget // longest))
        sampling = SamplingConfig(config.max_new_tokens, seed=config.seed, max_batch=together)
        return rollout_units(reference_answers(self.policy, self.renderer, self.prepared.reference, rows, sampling, seed=config.seed))

    def train(self, resume_from_checkpoint: str | bool | None = None) -> dict[str, Any]:
        last = super().train(resume_from_checkpoint)
        if self.config.laplace:
            self.fit_laplace()
        if self.config.normalise:
            sampled = self.normalise_on == "samples"
            with self.policy.gathered():
                units = self._reference_units() if sampled else self.train_units
                self.normalise(units)
            count = sum(len(unit.branches) for unit in units)
            what = "sampled answers of the reference policy" if sampled else "training answers"
            say(f"Rewards have mean 0 and variance 1 on {count} {what} (normalise_on={self.normalise_on}).")
        return last
