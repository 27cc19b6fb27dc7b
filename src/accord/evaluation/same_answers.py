"""Does an exported model answer as the one that it was made from? Greedy answers, and the log-probs of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from accord.data.packing import Branch, Unit, pack, split_by_budget
from accord.data.render import Renderer
from accord.models.adapters import PolicyModel, Stack, Want
from accord.rollouts.collect import prompt_limit
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import Prompt, SamplingConfig
from accord.types import Message

TOKENS_AT_ONCE = 1024
ROWS_AT_ONCE = 16

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Answers:
    """What a model answers, greedily; small enough to keep while another model takes its place in memory."""

    prompts: tuple[Ids, ...]
    answers: tuple[Ids, ...]
    logprobs: tuple[float, ...]
    """Of each token of each answer, one answer after the other, in nats."""
    max_new_tokens: int


@dataclass(frozen=True)
class Difference:
    """Between two models, on the first one's greedy answers."""

    prompts: int
    same: int
    """Prompts that both answer with the same tokens."""
    same_tokens: float
    """Share of the answers' tokens, each behind those of the first model, that the second one finds the most probable too."""
    largest: float
    """Largest difference in the log-prob of a token, in nats."""
    mean: float
    """Mean of its absolute value."""

    def __str__(self) -> str:
        return (
            f"{self.same} of {self.prompts} greedy answers and {self.same_tokens:.1%} of their tokens are the same; "
            f"log-probs of these tokens differ by {self.mean:.2g} nat on average, {self.largest:.2g} at most"
        )


def greedy_answers(policy: PolicyModel, stack: Stack, renderer: Renderer, questions: Sequence[str], *, max_new_tokens: int = 32) -> Answers:
    """Answer each question with the most probable tokens, adapters beside the base as they were trained.

    A question that is longer than the model's positions loses its beginning: both models read what is left.

    Raises:
        ConfigError: if the model has too few positions for any answer.
    """
    limit = prompt_limit(policy, max_new_tokens) or 0
    ids = [tuple(renderer.prompt_ids((Message("user", question),)))[-limit:] for question in questions]
    answers = _answers(policy, stack, renderer, ids, max_new_tokens)
    return Answers(tuple(ids), answers, tuple(_scored(policy, stack, ids, answers)[0].tolist()), max_new_tokens)


def difference(before: Answers, policy: PolicyModel, stack: Stack, renderer: Renderer) -> Difference:
    """How another model differs from the one that gave `before`."""
    mine = _answers(policy, stack, renderer, before.prompts, before.max_new_tokens)
    logprobs, greedy = _scored(policy, stack, before.prompts, before.answers)
    gaps = (logprobs - torch.tensor(before.logprobs)).abs()
    same = sum(one == other for one, other in zip(mine, before.answers, strict=True))
    return Difference(len(before.prompts), same, float(greedy.float().mean()), float(gaps.max()), float(gaps.mean()))


def _answers(policy: PolicyModel, stack: Stack, renderer: Renderer, prompts: Sequence[Ids], max_new_tokens: int) -> tuple[Ids, ...]:
    sampler = LocalSampler(policy, renderer, stack, merge=False)
    config = SamplingConfig(max_new_tokens=max_new_tokens, temperature=0.0, max_batch=ROWS_AT_ONCE)
    return tuple(rollout.completion_ids for rollout in sampler.sample([Prompt(str(i), ids) for i, ids in enumerate(prompts)], config))


@torch.no_grad()
def _scored(policy: PolicyModel, stack: Stack, prompts: Sequence[Ids], answers: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-prob of each token of each answer behind its prompt, in float32, and whether it is the most probable one, (M,) both."""
    units = [Unit(prompt, (Branch(answer),), str(index)) for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))]
    outputs = [policy.forward(pack(part, policy.device), stack, Want()) for part in split_by_budget(units, TOKENS_AT_ONCE)]
    logprobs = torch.cat([out.logprobs.float().cpu() for out in outputs if out.logprobs is not None])
    return logprobs, torch.cat([out.greedy.cpu() for out in outputs if out.greedy is not None])
