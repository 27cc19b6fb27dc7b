"""Direct preference optimisation and its family: preferences straight into the policy, no reward model.

The reference log-probs are computed once, before training, for the rows that training will use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from accord.config.dpo import SOFT_LABELS, DPOConfig
from accord.data.packing import Unit, pack
from accord.errors import ConfigError
from accord.methods.reference import ReferenceTrainer
from accord.models.adapters import Want
from accord.objectives.preference import PREFERENCE_LOSSES, REFERENCE_FREE, PairLogprobs
from accord.objectives.segments import segment_sum
from accord.training.metrics import Metrics
from accord.training.setup import say


class DPOTrainer(ReferenceTrainer):
    """Preference losses on (prompt, chosen, rejected); `args.loss_type` picks one of `PREFERENCE_LOSSES`.

    Args:
        ref_model: the reference policy; None takes the model before training (with adapters: the stack without the new one).
    """

    method = "dpo"
    adapter = "dpo"
    kinds = ("preference",)
    config_class = DPOConfig
    config: DPOConfig
    metric_names = ("loss", "rewards/accuracies", "rewards/margins")

    @property
    def loss_name(self) -> str:
        """Key of `PREFERENCE_LOSSES`."""
        return self.config.loss_name

    @property
    def needs_reference(self) -> bool:
        """False for losses of the policy alone."""
        return self.loss_name not in REFERENCE_FREE

    def compared(self, units: Sequence[Unit]) -> Sequence[Unit]:
        return units if self.needs_reference else []

    def make_units(self, rows: Sequence[Any]) -> list[Unit]:
        """Raises ConfigError at the first soft label or tie, if the loss has no place for it."""
        if self.config.loss_name not in SOFT_LABELS:
            for row in rows:
                if row.probability not in (None, 1.0):
                    raise ConfigError(
                        f"{row.where or 'A row'} has a soft label (probability {row.probability:g}) and loss_type {self.config.loss_name!r} does not use it. "
                        f"Use loss_type={' or '.join(map(repr, SOFT_LABELS))}, or drop the column."
                    )
        return super().make_units(rows)

    def totals(self, units: Sequence[Unit]) -> dict[str, float]:
        return {"pairs": float(len(units)), "chosen_tokens": float(sum(unit.branches[0].num_counted for unit in units))}

    def _pair(self, units: Sequence[Unit]) -> tuple[PairLogprobs, Tensor]:
        """The pairs, and whether each token of the chosen answers is the most probable one."""
        batch = pack(units, self.policy.device)
        out = self.policy.forward(batch, self.prepared.stack, Want(logprobs=True))
        assert out.logprobs is not None and out.greedy is not None
        sums = segment_sum(out.logprobs, batch.completion, batch.num_completions).view(-1, 2)
        counts = torch.bincount(batch.completion, minlength=batch.num_completions).view(-1, 2).to(sums.dtype)
        reference = torch.zeros_like(sums)
        if self.needs_reference:
            reference = torch.tensor([unit.data["reference"] for unit in units], dtype=sums.dtype, device=sums.device)
        pair = PairLogprobs(sums[:, 0], sums[:, 1], reference[:, 0], reference[:, 1], counts[:, 0], counts[:, 1])
        return pair, out.greedy[batch.completion % 2 == 0]

    def loss(self, units: Sequence[Unit], totals: dict[str, float]) -> tuple[Tensor, Metrics]:
        pair, greedy = self._pair(units)
        loss = self.pair_losses(pair, units).sum() / totals["pairs"]
        if self.config.sft_coefficient:
            loss = loss - self.config.sft_coefficient * pair.chosen.sum() / totals["chosen_tokens"]
        metrics = self._metrics(pair)
        metrics.mean("mean_token_accuracy", greedy)
        return loss, metrics

    def pair_losses(self, pair: PairLogprobs, units: Sequence[Unit]) -> Tensor:
        """One loss a pair. A subclass that overrides this trains with a loss of its own. (P,)"""
        return PREFERENCE_LOSSES[self.loss_name](pair, **self._options(units, pair))

    def _options(self, units: Sequence[Unit], pair: PairLogprobs) -> dict[str, Any]:
        config = self.config
        options: dict[str, Any] = {"beta": config.beta}
        if self.loss_name in SOFT_LABELS:
            options["label_smoothing"] = config.label_smoothing
            probabilities = [unit.data["example"].probability for unit in units]
            if any(probability is not None for probability in probabilities):
                options["probability"] = pair.chosen.new_tensor([1.0 if p is None else p for p in probabilities])
        if self.loss_name == "simpo":
            options["gamma"] = config.simpo_gamma
        return options

    def _metrics(self, pair: PairLogprobs) -> Metrics:
        metrics = Metrics()
        beta = self.config.beta
        chosen, rejected = (pair.chosen - pair.ref_chosen).detach() * beta, (pair.rejected - pair.ref_rejected).detach() * beta
        if not self.needs_reference:
            chosen, rejected = (pair.chosen / pair.chosen_tokens).detach() * beta, (pair.rejected / pair.rejected_tokens).detach() * beta
        metrics.mean("rewards/chosen", chosen)
        metrics.mean("rewards/rejected", rejected)
        metrics.mean("rewards/margins", chosen - rejected)
        metrics.mean("rewards/accuracies", (chosen > rejected).double() + 0.5 * (chosen == rejected).double())
        metrics.mean("logps/chosen", pair.chosen)
        metrics.mean("logps/rejected", pair.rejected)
        metrics.ratio("logps/chosen_per_token", pair.chosen.detach().sum(), pair.chosen_tokens.sum())
        metrics.mean("pairs_saturated", ((chosen - rejected) > 5).float())
        return metrics

    def train(self, resume_from_checkpoint: str | bool | None = None) -> dict[str, Any]:
        last = super().train(resume_from_checkpoint)
        first, final = self._chosen_trend()
        if first is not None and final is not None and final < first - 0.5:
            say(
                f"The log-probability of chosen answers fell by {first - final:.2f} nat a token. Common with DPO and no bug, but probability may go to answers nobody chose: "
                "look at samples; sft_coefficient=0.1 or loss_type='apo_zero' keeps it up."
            )
        return last

    def _chosen_trend(self) -> tuple[float | None, float | None]:
        values = [row["logps/chosen_per_token"] for row in self.log_history if "logps/chosen_per_token" in row]
        if len(values) < 10:
            return None, None
        part = max(3, len(values) // 5)
        return math.fsum(values[:part]) / part, math.fsum(values[-part:]) / part
