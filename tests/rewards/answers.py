"""Rollouts made of plain texts, for rewards that read texts."""

from __future__ import annotations

from typing import Any

from accord.types import Message, Rollout


def rollout(text: str, *, prompt_id: str = "p", index: int = 0, step: int = 0, length: int = 3, **columns: Any) -> Rollout:
    """A sampled answer of `length` tokens to the prompt "What is it?"."""
    return Rollout(
        prompt_id=prompt_id,
        prompt=(Message("user", "What is it?"),),
        prompt_ids=(1, 2),
        completion_ids=tuple(range(length)),
        text=text,
        sampler_logprobs=(0.0,) * length,
        finish_reason="stop",
        sample_index=index,
        policy_step=step,
        columns=columns,
    )
