"""From the scores of groups of answers to the advantage of each of their tokens: KL, baseline, scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from accord.config.grpo import GRPOConfig
from accord.data.packing import Unit
from accord.objectives.advantages import group_advantages, rloo_advantages
from accord.objectives.kl import k1
from accord.objectives.segments import segment_reverse_cumsum, segment_sum


def compared(units: Sequence[Unit], config: GRPOConfig) -> Tensor:
    """The advantage of each counted token, larger is better.

    With KL in the reward (`kl_in="reward"`) an answer's reward is first lowered by beta times its k1 from the reference; `batch_mean` charges
    each token what is still to come.

    Args:
        units: one a prompt, their answers scored.
    Returns:
        (M,)
    """
    rewards = torch.tensor([score.value for unit in units for score in unit.data["scores"]], dtype=torch.float32)
    lengths = torch.tensor([branch.num_counted for unit in units for branch in unit.branches])
    completion = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    price = config.beta if config.kl_in == "reward" else 0.0
    kl = torch.zeros(len(completion))
    if price:
        kl = k1(*(torch.cat([unit.data[name] for unit in units]) for name in ("old_logprobs", "ref_logprobs")))
    if config.advantage == "batch_mean":
        returns = rewards[completion] - price * segment_reverse_cumsum(kl, completion)
        centred = returns - returns.mean()
        return centred / (returns.std(unbiased=False) + 1e-8) if config.scale_rewards == "batch" else centred
    group = torch.repeat_interleave(torch.arange(len(units)), torch.tensor([len(unit.branches) for unit in units]))
    charged = rewards - price * segment_sum(kl, completion, len(lengths))
    if config.advantage == "leave_one_out":
        found = rloo_advantages(charged, group)
        if config.scale_rewards == "batch":
            found = found / (charged.std() + 1e-4)
    else:
        found = group_advantages(charged, group, scale=config.scale_rewards)
    return found[completion]
