"""From the scores of groups of answers to the advantage of each of their tokens: KL, baseline, scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from accord.config.grpo import GRPOConfig
from accord.data.packing import Unit
from accord.errors import ConfigError
from accord.objectives.advantages import group_advantages, rloo_advantages
from accord.objectives.kl import k1
from accord.objectives.process import step_credit_rewards
from accord.objectives.segments import segment_reverse_cumsum, segment_sum
from accord.rewards.combine import OUTCOME


def compared(units: Sequence[Unit], config: GRPOConfig, beta: float | None = None) -> Tensor:
    """The advantage of each counted token, larger is better.

    With KL in the reward (`kl_in="reward"`) an answer's reward is first lowered by beta times its k1 from the reference; `batch_mean` charges
    each token what is still to come.

    Args:
        units: one a prompt, their answers scored.
        beta: price of KL now. None is the config's.
    Returns:
        (M,)
    """
    rewards = torch.tensor([score.value for unit in units for score in unit.data["scores"]], dtype=torch.float32)
    lengths = torch.tensor([branch.num_counted for unit in units for branch in unit.branches])
    completion = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    price = (config.beta if beta is None else beta) if config.kl_in == "reward" else 0.0
    kl = torch.zeros(len(completion))
    if price:
        kl = k1(*(torch.cat([unit.data[name] for unit in units]) for name in ("old_logprobs", "ref_logprobs")))
    if config.advantage == "batch_mean":
        returns = rewards[completion] - price * segment_reverse_cumsum(kl, completion)
        centred = returns - returns.mean()
        return centred / (returns.std(unbiased=False) + 1e-8) if config.scale_rewards == "batch" else centred
    group = torch.repeat_interleave(torch.arange(len(units)), torch.tensor([len(unit.branches) for unit in units]))
    if config.verifiable_share is not None:
        tokens = step_rewards(units, completion, config) - price * kl
        found = place_by_place(segment_reverse_cumsum(tokens, completion), completion, group)
        return found / (rewards.std() + 1e-4) if config.scale_rewards == "batch" else found
    charged = rewards - price * segment_sum(kl, completion, len(lengths))
    if config.advantage == "leave_one_out":
        found = rloo_advantages(charged, group)
        if config.scale_rewards == "batch":
            found = found / (charged.std() + 1e-4)
    else:
        found = group_advantages(charged, group, scale=config.scale_rewards)
    return found[completion]


def step_rewards(units: Sequence[Unit], completion: Tensor, config: GRPOConfig) -> Tensor:
    """What each token earns from the scores of its answer's steps and from the other rewards (`objectives.process.step_credit_rewards`). (M,)

    Raises:
        ConfigError: if no reward judges steps.
    """
    scores = [score for unit in units for score in unit.data["scores"]]
    if any(score.steps is None or score.step_ends is None for score in scores):
        raise ConfigError(
            f"{type(config).__name__}: verifiable_share={config.verifiable_share:g} is for a process reward model among the rewards, and none judges steps."
        )
    counts = torch.tensor([len(score.steps) for score in scores])
    starts = torch.bincount(completion).cumsum(0) - torch.bincount(completion)
    solution = torch.repeat_interleave(torch.arange(len(scores)), counts)
    branches = [branch for unit in units for branch in unit.branches]
    places = [
        end if b.counted is None else max(1, sum(b.counted[:end]))
        for b, score in zip(branches, scores, strict=True)
        for end in score.step_ends
    ]
    ends = torch.tensor(places) - 1 + starts[solution]
    assert config.verifiable_share is not None
    return step_credit_rewards(
        torch.tensor([value for score in scores for value in score.steps], dtype=torch.float32),
        solution,
        ends,
        torch.tensor([score.parts[OUTCOME] for score in scores], dtype=torch.float32),
        completion,
        temperature=config.softmin_temperature,
        verifiable_share=config.verifiable_share,
    )


def place_by_place(returns: Tensor, completion: Tensor, group: Tensor) -> Tensor:
    """Each token's return minus the mean return of its siblings at the same place, 0 where they have ended: unbiased, for a sibling does not
    depend on this answer, and what a token's past earned does not depend on the token.

    Args:
        returns: reward to come of each token. (M,)
        completion: which completion each belongs to, non-decreasing. (M,), int64
        group: which prompt each completion answers. (C,), int64
    Returns:
        (M,)
    """
    lengths = torch.bincount(completion)
    place = torch.arange(len(completion)) - (lengths.cumsum(0) - lengths)[completion]
    longest = int(lengths.max())
    cell = group[completion] * longest + place
    totals = torch.zeros((int(group.max()) + 1) * longest, dtype=returns.dtype).index_add(0, cell, returns)
    siblings = torch.bincount(group)[group[completion]].to(returns.dtype) - 1
    return returns - (totals[cell] - returns) / siblings
