"""What every sampler offers: prompts in, rollouts out, the log-probability of each token as it was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from accord.types import Message, Rollout


@dataclass(frozen=True)
class SamplingConfig:
    """How answers are drawn. RL wants temperature 1 and no truncation of the distribution: anything else is another policy."""

    max_new_tokens: int = 48
    """Longest answer in tokens, the end token included."""
    num_samples: int = 1
    """Answers for each prompt; the prompt is encoded once for all of them."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all. The log-probs returned are those of the distribution sampled from."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with this much probability; 1 keeps all."""
    seed: int = 0
    step: int = 0
    """Policy step, part of the key of every draw."""
    max_batch: int = 128
    """Rows decoded together: memory and speed only, never what is drawn."""


@dataclass(frozen=True)
class Prompt:
    """One thing to answer."""

    id: str
    ids: tuple[int, ...]
    messages: tuple[Message, ...] = ()
    columns: dict[str, Any] = field(default_factory=dict)


class Sampler(Protocol):
    """Draws answers from some policy."""

    def sample(self, prompts: Sequence[Prompt], config: SamplingConfig) -> list[Rollout]:
        """`num_samples` rollouts for each prompt, siblings next to each other, in the order of the prompts."""
        ...
