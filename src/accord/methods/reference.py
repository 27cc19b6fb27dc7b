"""Reference log-probabilities of a dataset, computed once and kept on its units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from accord.data.packing import Unit, pack, split_by_budget
from accord.errors import ConfigError
from accord.models.adapters import PolicyModel, Stack, Want
from accord.objectives.segments import segment_sum
from accord.training import processes


class ReferenceLogprobs:
    """Sums of log-probs over each completion under the reference policy.

    Args:
        policy: the model being trained; before its first step, `stack` on it is the reference.
        stack: the reference's adapters.
        ref_model: another model to use instead.
        token_budget: tokens a forward pass.
    """

    def __init__(self, policy: PolicyModel, stack: Stack, ref_model: Any, token_budget: int) -> None:
        self.token_budget = token_budget
        self.is_start = ref_model is None
        self.model, self.stack = policy, stack
        if ref_model is not None:
            if ref_model is policy.model:
                raise ConfigError(
                    "model and ref_model are the same object: the reference would move with the policy. Leave ref_model out, or pass a copy."
                )
            self.model = ref_model if isinstance(ref_model, PolicyModel) else PolicyModel(ref_model)
            self.stack = tuple(self.model.adapters)

    @torch.no_grad()
    def fill(self, units: Sequence[Unit], *, moved: bool = False) -> None:
        """Set `unit.data["reference"]` to a tuple of floats, one a completion, where it is missing. Processes share the work.

        Args:
            moved: True: the base weights have been trained, so the model no longer is its own reference. False: they are as at the start.
        Raises:
            ConfigError: if the start of the policy is asked about new rows after its weights moved.
        """
        missing = [unit for unit in units if "reference" not in unit.data]
        if missing and moved and self.is_start:
            raise ConfigError(
                "The reference is the model before training, whose weights full fine-tuning has changed. Give these rows as eval_dataset at the start, or pass ref_model."
            )
        found: list[tuple[float, ...]] = []
        for part in split_by_budget(processes.share(missing), self.token_budget):
            batch = pack(part, self.model.device)
            logprobs = self.model.forward(batch, self.stack, Want(logprobs=True)).logprobs
            assert logprobs is not None
            sums = iter(segment_sum(logprobs, batch.completion, batch.num_completions).tolist())
            found += [tuple(next(sums) for _ in unit.branches) for unit in part]
        for unit, values in zip(missing, processes.gather(found), strict=True):
            unit.data["reference"] = values
