"""Answers of the reference policy to training prompts: what gives rewards mean 0 and variance 1, so that a KL price means the same for any."""

from __future__ import annotations

from collections.abc import Sequence

from accord.data.packing import Branch, Unit
from accord.data.render import Renderer
from accord.methods.prompts import as_prompt
from accord.models.adapters import PolicyModel, Stack
from accord.rollouts.local import LocalSampler
from accord.rollouts.random import shuffled
from accord.rollouts.sampler import SamplingConfig
from accord.types import Example, Rollout

REFERENCE_ANSWERS = 64
"""How many answers fix the scale of a reward: its mean is then known to 1/8 of its standard deviation."""


def reference_answers(
    policy: PolicyModel, renderer: Renderer, stack: Stack, rows: Sequence[Example], config: SamplingConfig, *, seed: int
) -> list[Rollout]:
    """One answer each to up to `REFERENCE_ANSWERS` of the different prompts of `rows`, chosen by `seed`."""
    prompts = list({row.prompt_id: row for row in rows}.values())
    chosen = shuffled(len(prompts), "reference answers", seed)[:REFERENCE_ANSWERS]
    return sample_answers(policy, renderer, stack, [prompts[index] for index in chosen], config)


def sample_answers(policy: PolicyModel, renderer: Renderer, stack: Stack, rows: Sequence[Example], config: SamplingConfig) -> list[Rollout]:
    """Answers of the policy under `stack` to the prompts of these rows."""
    prompts = [as_prompt(row, renderer) for row in rows]
    return LocalSampler(policy, renderer, stack).sample(prompts, config)


def rollout_units(rollouts: Sequence[Rollout]) -> list[Unit]:
    """One unit a rollout, on the sampled ids."""
    return [Unit(rollout.prompt_ids, (Branch(rollout.completion_ids),), rollout.prompt_id) for rollout in rollouts]
