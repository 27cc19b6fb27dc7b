"""From sampled answers to what PPO learns from: scores, reference log-probs, value features, then advantages and returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

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
from accord.rewards.learned import RewardModel
from accord.rewards.mitigated import shaped
from accord.types import Rollout, Score

Critic = tuple[Stack, ValueHead]
"""The adapters whose states a value head reads, and the head."""


class Experience:
    """Scores rollouts and reads the reference once.

    Args:
        policy: the shared base.
        reference: adapters of the reference policy.
        rewards: their weighted sum is the score.
        reference_model: another model that is the reference; None is the shared base.
        reads_reference: True reads its log-probs of every answer. False only where the same pass gives something else that is needed, and
            of held-out answers.
        critic: reads the states of its adapters too. None where there is none.
        keep_lower: run the layers below the first trained one once a round.
    """

    def __init__(
        self,
        policy: PolicyModel,
        reference: Stack,
        rewards: Sequence[RewardSource],
        *,
        reference_model: PolicyModel | None = None,
        reads_reference: bool = True,
        critic: Critic | None = None,
        keep_lower: bool = True,
    ) -> None:
        self.policy, self.reference, self.critic = policy, reference, critic
        self.reference_model, self.reads_reference = reference_model, reads_reference
        self.rewards, self.keep_lower = rewards, keep_lower

    @torch.no_grad()
    def make(
        self,
        groups: Sequence[Sequence[Rollout]],
        token_budget: int,
        *,
        exact: bool,
        stack: Stack,
        temperature: float,
        held_out: bool = False,
    ) -> list[Unit]:
        """One unit a prompt, its answers as branches, with per-token tensors on the CPU.

        Args:
            groups: the answers to each prompt.
            token_budget: tokens a forward pass.
            exact: True takes the sampler's log-probs as the old policy's (they are the same function). False recomputes them.
            stack: the policy's adapters.
            held_out: True reads the reference where there is one, whether or not training needs it. False as `reads_reference` says.
        """
        if not groups:  # fewer prompts than processes
            return []
        units = []
        for group in groups:
            branches = tuple(Branch(rollout.completion_ids, rollout.sampled_mask) for rollout in group)
            sampled = torch.tensor([value for rollout in group for value in rollout.counted_logprobs])
            data = {"rollouts": list(group), "sampler_logprobs": sampled, "old_logprobs": sampled}
            units.append(Unit(group[0].prompt_ids, branches, group[0].prompt_id, data))
        if self.keep_lower:
            keep_lower_states(self.policy, units, stack, token_budget)
        readings = tuple(dict.fromkeys(model.heads.reading for model in self._readers()))
        reads = self.reads_reference or (held_out and self._has_reference(stack))
        for part in split_by_budget(units, token_budget):
            self._read(part, exact, stack, temperature, readings, reads=reads)
        known: dict[int, list[Score]] = {index: [] for index in self._same_base()}
        if units:  # fewer prompts than processes leave some without one
            ends = dict(zip(readings, map(torch.cat, zip(*(unit.data.pop("ends") for unit in units), strict=True)), strict=True))
            for index, source in self._same_base().items():
                read = (
                    ends[model.heads.reading] if model.stack == self.reference else torch.cat(model.features(units, token_budget))
                    for model in source.models
                )
                known[index] = source.judged(*read)
        scores = iter(combined(self.rewards, [rollout for group in groups for rollout in group], known))
        for unit in units:
            unit.data["scores"] = [next(scores) for _ in unit.branches]
        return units

    def _has_reference(self, stack: Stack) -> bool:
        return self.reference_model is not None or stack != self.reference

    def _same_base(self) -> dict[int, LearnedReward]:
        """Reward models, by position, on the base that the policy stands on: they read the units as they are, from their kept states."""
        return {
            index: source
            for index, source in enumerate(self.rewards)
            if isinstance(source, LearnedReward) and all(model.policy is self.policy for model in source.models)
        }

    def _readers(self) -> list[RewardModel]:
        """Their models whose features the reference pass gives for nothing: same adapters."""
        return [model for source in self._same_base().values() for model in source.models if model.stack == self.reference]

    def _read(self, part: list[Unit], exact: bool, stack: Stack, temperature: float, readings: tuple[Any, ...], *, reads: bool) -> None:
        batch = pack(part, self.policy.device)
        shares_states = self.critic is not None and self.critic[0] == self.reference and self.reference_model is None
        found: dict[str, Tensor] = {}
        ends: list[Tensor] = []
        if reads or readings or shares_states:
            model = self.reference_model or self.policy
            out = model.forward(batch, self.reference, Want(logprobs=reads, states=shares_states, ends=readings), temperature=temperature)
            ends = [read.float() for read in out.ends]
            if out.logprobs is not None:
                found["ref_logprobs"] = out.logprobs
            if shares_states and out.states is not None:
                found["states"] = out.states.float()
        if self.critic is not None and "states" not in found:
            states = self.policy.forward(batch, self.critic[0], Want(logprobs=False, states=True)).states
            assert states is not None
            found["states"] = states.float()
        if not exact:
            old = self.policy.forward(batch, stack, Want(logprobs=True), temperature=temperature).logprobs
            assert old is not None
            found["old_logprobs"] = old
        lengths = [unit.num_counted for unit in part]
        for name, values in found.items():
            for unit, own in zip(part, values.split(lengths), strict=True):
                unit.data[name] = own.cpu()
        answers = [len(unit.branches) for unit in part]
        for unit in part:
            unit.data["ends"] = []
        for read in ends:
            for unit, own in zip(part, read.split(answers), strict=True):
                unit.data["ends"].append(own)


@torch.no_grad()
def advantages_and_returns(
    units: Sequence[Unit], value_head: ValueHead, config: PPOConfig, kl_coefficient: float
) -> tuple[list[Unit], dict[str, float]]:
    """Token rewards, GAE and whitening over the whole iteration; returns units with the results on them, and the iteration's metrics.

    The reward of a token is -beta (old - ref); the score, clipped, minus the penalty for an answer that did not end by itself and
    (`compare_siblings`) minus the mean of its siblings, lands on the last token (the end token, where there is one).
    """
    lengths = torch.tensor([branch.num_counted for unit in units for branch in unit.branches])
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


def shaped_units(units: list[Unit], how: str) -> list[Unit]:
    """The units of a round with their rewards as they are to be optimised (`rewards.mitigated.shaped`)."""
    if how == "none":
        return units
    scores = [score for unit in units for score in unit.data["scores"]]
    tokens = [branch.num_counted for unit in units for branch in unit.branches]
    groups = [index for index, unit in enumerate(units) for _ in unit.branches]
    found = iter(shaped(scores, tokens, groups, how))
    return [replace(unit, data={**unit.data, "scores": [next(found) for _ in unit.branches]}) for unit in units]


def held_out_metrics(units: Sequence[Unit], score_name: str) -> dict[str, float]:
    """Mean score, KL from the reference where there is one (nats an answer, k1) and length of answers that nothing is learned from."""
    scores = [score.value for unit in units for score in unit.data["scores"]]
    old = torch.cat([unit.data["old_logprobs"] for unit in units])
    found = {score_name: sum(scores) / len(scores)}
    if "ref_logprobs" in units[0].data:
        found["objective/kl"] = float(k1(old, torch.cat([unit.data["ref_logprobs"] for unit in units])).sum()) / len(scores)
    return {**found, "completions/mean_length": len(old) / len(scores), **reward_parts(units)}


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
    return {**found, **reward_parts(units)}


def reward_parts(units: Sequence[Unit]) -> dict[str, float]:
    """The mean of each part of the reward, by its name."""
    found: dict[str, float] = {}
    for name in sorted({name for unit in units for score in unit.data["scores"] for name in score.parts}):
        parts = [score.parts[name] for unit in units for score in unit.data["scores"] if name in score.parts]
        found[f"rewards/{name}/mean"] = sum(parts) / len(parts)
    return found
