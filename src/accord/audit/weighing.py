"""How likely a policy finds written answers: nothing is sampled, so a few forward passes tell."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from accord.audit.subjects import Choice, Weighed
from accord.data.packing import Unit, pack, split_by_budget
from accord.data.render import Renderer
from accord.models.adapters import PolicyModel, Stack
from accord.objectives.segments import segment_sum
from accord.types import Completion, Example, Message


class Weigher:
    """A policy that weighs options. `audit.subjects.Subject` without its sampling.

    Args:
        stack: its adapters.
        token_budget: tokens a forward pass.
    """

    def __init__(self, policy: PolicyModel, stack: Stack, renderer: Renderer, token_budget: int) -> None:
        self.policy, self.stack, self.renderer, self.token_budget = policy, stack, renderer, token_budget

    def weigh(self, choices: Sequence[Choice]) -> list[Weighed]:
        """log-probability of each option, its end included, in total and a token."""
        totals, counts = self.sums(self.units(choices))
        found: list[Weighed] = []
        for one in choices:
            mine, totals = totals[: len(one.options)], totals[len(one.options) :]
            tokens, counts = counts[: len(one.options)], counts[len(one.options) :]
            found.append(Weighed(tuple(mine), tuple(total / count for total, count in zip(mine, tokens, strict=True))))
        return found

    def units(self, choices: Sequence[Choice]) -> list[Unit]:
        """The choices as tokens, an option a branch."""
        rows = [Example("ranking", one.prompt, tuple(Completion((Message("assistant", text),)) for text in one.options)) for one in choices]
        return self.renderer.units(rows)

    @torch.no_grad()
    def sums(self, units: Sequence[Unit]) -> tuple[list[float], list[int]]:
        """log-probability and counted tokens of every completion of these units, in order."""
        totals: list[float] = []
        counts: list[int] = []
        for part in split_by_budget(units, self.token_budget):
            batch = pack(part, self.policy.device)
            logprobs = self.policy.forward(batch, self.stack).logprobs
            assert logprobs is not None
            totals += segment_sum(logprobs, batch.completion, batch.num_completions).tolist()
            counts += torch.bincount(batch.completion, minlength=batch.num_completions).tolist()
        return totals, counts
