"""Supervised fine-tuning: maximise the log-probability of demonstrations, completion tokens only (end token included)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from accord.config.sft import SFTConfig
from accord.data.packing import Unit, pack
from accord.models.adapters import Want
from accord.objectives.segments import segment_mean
from accord.training.metrics import Metrics
from accord.training.offline import OfflineTrainer


class SFTTrainer(OfflineTrainer):
    """L = - sum of counted log-probs / number of counted tokens in the whole step (`loss_aggregation="token"`, the default)."""

    method = "sft"
    adapter = "sft"
    kinds = ("demonstration", "text")
    config_class = SFTConfig
    config: SFTConfig
    metric_names = ("loss", "entropy")

    def totals(self, units: Sequence[Unit]) -> dict[str, float]:
        return {"tokens": float(sum(unit.num_counted for unit in units)), "rows": float(len(units))}

    def loss(self, units: Sequence[Unit], totals: dict[str, float]) -> tuple[Tensor, Metrics]:
        batch = pack(units, self.policy.device)
        out = self.policy.forward(batch, self.prepared.stack, Want(logprobs=True, entropy=True))
        assert out.logprobs is not None and out.entropy is not None and out.greedy is not None
        metrics = Metrics()
        metrics.mean("entropy", out.entropy)
        metrics.mean("mean_token_accuracy", out.greedy)
        metrics.mean("mean_token_logprob", out.logprobs)
        metrics.mean("perplexed_tokens", (out.logprobs.detach() < -5).float())
        if self.config.loss_aggregation == "sequence":
            return -segment_mean(out.logprobs, batch.completion, batch.num_completions).sum() / totals["rows"], metrics
        return -out.logprobs.sum() / max(totals["tokens"], 1.0), metrics
