"""Kahneman-Tversky optimisation: learn from single answers marked desirable or not.

The baseline z0 is the KL of policy from reference, estimated over the whole step on mismatched pairs (this prompt, another row's
answer), without gradient and never below 0. It needs a pass of its own before any backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from accord.config.kto import KTOConfig
from accord.data.kinds import as_kind
from accord.data.packing import Unit, pack
from accord.errors import DataError
from accord.methods.reference import ReferenceTrainer
from accord.objectives.preference import kto
from accord.objectives.segments import segment_sum
from accord.training.metrics import Metrics
from accord.training.setup import say


class KTOTrainer(ReferenceTrainer):
    """Rows (prompt, completion, label); preference rows become one desirable and one undesirable answer.

    Args:
        ref_model: the reference policy; None takes the model before training.
    """

    method = "kto"
    adapter = "kto"
    kinds = ("labelled", "preference")
    config_class = KTOConfig
    config: KTOConfig
    metric_names = ("loss", "kl", "rewards/margins")

    def make_units(self, rows: Sequence[Any]) -> list[Unit]:
        """One unit an answer; `mismatch` holds the unit of this prompt with the next row's answer.

        Raises:
            DataError: with fewer than two rows there is no mismatched answer; a tie has no desirable one.
        """
        soft = sum(row.kind == "preference" and row.probability not in (None, 0.5, 1.0) for row in rows)
        if soft:
            say(
                f"{soft} pairs have soft labels, which KTO has no place for: the preferred answer counts as desirable, the other as undesirable."
            )
        units = self.renderer.units(single for row in rows for single in as_kind(row, "labelled"))
        if len(units) < 2:
            raise DataError("KTO needs at least two rows: its baseline pairs each prompt with another row's answer.")
        mates = [*units[1:], units[0]]
        for unit, mate in zip(units, mates, strict=True):
            unit.data["mismatch"] = replace(unit, branches=mate.branches, data={})
        return units

    def compared(self, units: Sequence[Unit]) -> Sequence[Unit]:
        """These units, then each one's prompt with another row's answer."""
        return [*units, *(unit.data["mismatch"] for unit in units)]

    def totals(self, units: Sequence[Unit]) -> dict[str, float]:
        return {"rows": float(len(units))}

    @torch.no_grad()
    def statistics(self, units: Sequence[Unit], totals: dict[str, float]) -> dict[str, float]:
        """Sum over the step of the mismatched log-ratios."""
        found = 0.0
        with self.policy.gathered():
            for part in self.micro_batches([unit.data["mismatch"] for unit in units]):
                logprobs, reference = self._logprobs(part)
                found += float((logprobs - reference).double().sum())
        return {"mismatched_logratio": found}

    def _logprobs(self, units: Sequence[Unit]) -> tuple[Tensor, Tensor]:
        """(C,) log pi and log ref of each answer, end token included."""
        batch = pack(units, self.policy.device)
        logprobs = self.policy.forward(batch, self.prepared.stack).logprobs
        assert logprobs is not None
        sums = segment_sum(logprobs, batch.completion, batch.num_completions)
        reference = torch.tensor([unit.data["reference"][0] for unit in units], dtype=sums.dtype, device=sums.device)
        return sums, reference

    def loss(self, units: Sequence[Unit], totals: dict[str, float]) -> tuple[Tensor, Metrics]:
        config = self.config
        logprobs, reference = self._logprobs(units)
        logratio = logprobs - reference
        desirable = torch.tensor([bool(unit.data["example"].label) for unit in units], device=logratio.device)
        baseline = torch.tensor(max(0.0, totals["mismatched_logratio"] / totals["rows"]), dtype=logratio.dtype, device=logratio.device)
        losses = kto(
            logratio,
            desirable,
            baseline,
            beta=config.beta,
            desirable_weight=config.desirable_weight,
            undesirable_weight=config.undesirable_weight,
        )
        rewards = config.beta * logratio.detach()
        metrics = Metrics()
        metrics.ratio("kl", float(baseline) * len(units), len(units))
        metrics.ratio("rewards/chosen", rewards[desirable].sum(), int(desirable.sum()))
        metrics.ratio("rewards/rejected", rewards[~desirable].sum(), int((~desirable).sum()))
        metrics.ratio("logps/chosen", logprobs[desirable].detach().sum(), int(desirable.sum()))
        metrics.ratio("logps/rejected", logprobs[~desirable].detach().sum(), int((~desirable).sum()))
        metrics.ratio("desirable_share", int(desirable.sum()), len(units))
        return losses.sum() / totals["rows"], metrics

    def derived(self, values: dict[str, float]) -> dict[str, float]:
        if "rewards/chosen" not in values or "rewards/rejected" not in values:
            return {}
        return {"rewards/margins": values["rewards/chosen"] - values["rewards/rejected"]}
