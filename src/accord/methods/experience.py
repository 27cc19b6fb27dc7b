"""From sampled answers to what PPO learns from: scores, reference log-probs, value features, then advantages and returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from accord.config.ppo import PPOConfig
from accord.data.packing import Branch, Unit, pack, split_by_budget
from accord.models.adapters import PolicyModel, Stack, Want
from accord.models.heads import ValueHead
from accord.models.partial import keep_lower_states
from accord.objectives.advantages import gae, rloo_advantages
from accord.objectives.kl import k1, k3
from accord.objectives.segments import segment_sum, whiten
from accord.rewards.combine import LearnedReward, RewardSource, combined
from accord.types import Rollout


class Experience:
    """Scores rollouts and reads the reference once.

    Args:
        policy: the shared base.
        reference, value_stack: adapters of the reference policy and of the critic.
        rewards: their weighted sum is the score.
        keep_lower: run the layers below the first trained one once an iteration.
    """

    def __init__(
        self,
        policy: PolicyModel,
        reference: Stack,
        value_stack: Stack,
        value_head: ValueHead,
        rewards: Sequence[RewardSource],
        *,
        keep_lower: bool = True,
    ) -> None:
        self.policy, self.reference, self.value_stack, self.value_head = policy, reference, value_stack, value_head
        self.rewards, self.keep_lower = rewards, keep_lower

    @torch.no_grad()
    def make(self, groups: Sequence[Sequence[Rollout]], token_budget: int, *, exact: bool, stack: Stack, temperature: float) -> list[Unit]:
        """One unit a prompt, its answers as branches, with per-token tensors on the CPU.

        Args:
            groups: the answers to each prompt.
            token_budget: tokens a forward pass.
            exact: True takes the sampler's log-probs as the old policy's (they are the same function). False recomputes them.
            stack: the policy's adapters.
        """
        units = []
        for group in groups:
            branches = tuple(Branch(rollout.completion_ids) for rollout in group)
            sampled = torch.tensor([value for rollout in group for value in rollout.sampler_logprobs])
            data = {"rollouts": list(group), "sampler_logprobs": sampled, "old_logprobs": sampled}
            units.append(Unit(group[0].prompt_ids, branches, group[0].prompt_id, data))
        if self.keep_lower:
            keep_lower_states(self.policy, units, stack, token_budget)
        readers = self._readers()
        readings = tuple(dict.fromkeys(source.model.heads.reading for source in readers.values()))
        want = Want(logprobs=True, states=self.value_stack == self.reference, ends=readings)
        for part in split_by_budget(units, token_budget):
            self._read(part, exact, stack, temperature, want)
        ends = dict(zip(readings, map(torch.cat, zip(*(unit.data.pop("ends") for unit in units), strict=True)), strict=True))
        known = {index: source.scores_of(source.model.heads(ends[source.model.heads.reading])) for index, source in readers.items()}
        for index, source in self._same_base().items():
            if index not in known:
                known[index] = source.scores_of(source.model.score(units, token_budget))
        scores = iter(combined(self.rewards, [rollout for group in groups for rollout in group], known))
        for unit in units:
            unit.data["scores"] = [next(scores) for _ in unit.branches]
        return units

    def _same_base(self) -> dict[int, LearnedReward]:
        """Reward models, by position, on the base that the policy stands on: they read the units as they are, from their kept states."""
        return {
            index: source
            for index, source in enumerate(self.rewards)
            if isinstance(source, LearnedReward) and source.model.policy is self.policy
        }

    def _readers(self) -> dict[int, LearnedReward]:
        """Those of them whose features the reference pass gives for nothing: same adapters."""
        return {index: source for index, source in self._same_base().items() if source.model.stack == self.reference}

    def _read(self, part: list[Unit], exact: bool, stack: Stack, temperature: float, want: Want) -> None:
        batch = pack(part, self.policy.device)
        out = self.policy.forward(batch, self.reference, want, temperature=temperature)
        states = out.states if want.states else self.policy.forward(batch, self.value_stack, Want(logprobs=False, states=True)).states
        old = None if exact else self.policy.forward(batch, stack, Want(logprobs=True), temperature=temperature).logprobs
        assert out.logprobs is not None and states is not None
        lengths = [unit.num_counted for unit in part]
        ends = [read.float().split([len(unit.branches) for unit in part]) for read in out.ends]
        for index, unit in enumerate(part):
            unit.data["ref_logprobs"] = out.logprobs.split(lengths)[index].cpu()
            unit.data["states"] = states.split(lengths)[index].float().cpu()
            unit.data["ends"] = [read[index] for read in ends]
            if old is not None:
                unit.data["old_logprobs"] = old.split(lengths)[index].cpu()


@torch.no_grad()
def advantages_and_returns(
    units: Sequence[Unit], value_head: ValueHead, config: PPOConfig, kl_coefficient: float
) -> tuple[list[Unit], dict[str, float]]:
    """Token rewards, GAE and whitening over the whole iteration; returns units with the results on them, and the iteration's metrics.

    The reward of a token is -beta (old - ref); the score, clipped, minus the penalty for an answer that did not end by itself and
    (`compare_siblings`) minus the mean of its siblings, lands on the last token (the end token, where there is one).
    """
    lengths = torch.tensor([len(branch.ids) for unit in units for branch in unit.branches])
    completion = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    old, ref = (torch.cat([unit.data[name] for unit in units]) for name in ("old_logprobs", "ref_logprobs"))
    scores = torch.tensor([score.value for unit in units for score in unit.data["scores"]], dtype=torch.float32)
    rollouts = [rollout for unit in units for rollout in unit.data["rollouts"]]
    unfinished = torch.tensor([rollout.finish_reason != "stop" for rollout in rollouts])
    bounded = scores if config.score_clip is None else scores.clamp(-config.score_clip, config.score_clip)
    penalised = bounded - unfinished.float() * (config.missing_eos_penalty or 0.0)
    compared = penalised
    if config.compare_siblings:
        group = torch.repeat_interleave(torch.arange(len(units)), torch.tensor([len(unit.branches) for unit in units]))
        compared = rloo_advantages(penalised, group)
    kl_rewards = -kl_coefficient * k1(old, ref)
    rewards = kl_rewards.clone()
    ends = lengths.cumsum(0) - 1
    rewards[ends] += compared
    if config.whiten_rewards:
        rewards = whiten(rewards, shift_mean=False)
    device = value_head.weight.device
    values = value_head(torch.cat([unit.data["states"] for unit in units]).to(device)).cpu()
    advantages, returns = gae(rewards, values, completion, gamma=config.gamma, lam=config.lam)
    if config.whiten_advantages:
        advantages = whiten(advantages, shift_mean=True)
    metrics = {"objective/scores_clipped": float((bounded != scores).float().mean())}
    metrics |= _metrics(old, ref, completion, scores, penalised, kl_rewards, values, returns, lengths, unfinished, units)
    sizes = [unit.num_counted for unit in units]
    results = {"advantages": advantages.split(sizes), "returns": returns.split(sizes), "old_values": values.split(sizes)}
    return [
        replace(unit, data={**unit.data, **{name: parts[i] for name, parts in results.items()}}) for i, unit in enumerate(units)
    ], metrics


def held_out_metrics(units: Sequence[Unit]) -> dict[str, float]:
    """Mean score, KL from the reference (nats an answer, k1) and length of answers that nothing is learned from."""
    scores = [score.value for unit in units for score in unit.data["scores"]]
    old, ref = (torch.cat([unit.data[name] for unit in units]) for name in ("old_logprobs", "ref_logprobs"))
    return {
        "objective/scores": sum(scores) / len(scores),
        "objective/kl": float(k1(old, ref).sum()) / len(scores),
        "completions/mean_length": len(old) / len(scores),
    }


def _metrics(
    old: Tensor,
    ref: Tensor,
    completion: Tensor,
    scores: Tensor,
    penalised: Tensor,
    kl_rewards: Tensor,
    values: Tensor,
    returns: Tensor,
    lengths: Tensor,
    unfinished: Tensor,
    units: Sequence[Unit],
) -> dict[str, float]:
    count = len(lengths)
    finished = lengths[~unfinished].float()
    variance = float(returns.var(unbiased=False))
    found = {
        "objective/scores": float(scores.mean()),
        "objective/scores_std": float(scores.std(unbiased=False)),
        "objective/kl": float(segment_sum(k1(old, ref), completion, count).mean()),
        "objective/kl_k3": float(segment_sum(k3(old, ref), completion, count).mean()),
        "objective/entropy": float(segment_sum(-old, completion, count).mean()),
        "objective/non_score_reward": float(segment_sum(kl_rewards, completion, count).mean()),
        "objective/rlhf_reward": float((penalised + segment_sum(kl_rewards, completion, count)).mean()),
        "completions/mean_length": float(lengths.float().mean()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": float(unfinished.float().mean()),
        "completions/mean_terminated_length": float(finished.mean()) if len(finished) else 0.0,
        "value/explained_variance": 1.0 - float(((returns - values) ** 2).mean()) / variance if variance > 0 else 0.0,
    }
    names = sorted({name for unit in units for score in unit.data["scores"] for name in score.parts})
    for name in names:
        parts = [score.parts[name] for unit in units for score in unit.data["scores"] if name in score.parts]
        found[f"rewards/{name}/mean"] = sum(parts) / len(parts)
    return found
