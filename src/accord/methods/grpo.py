"""GRPO and its family: groups of answers, compared with each other instead of with a critic. RLOO is one of them.

What makes each method is in `config/grpo.py`; here its advantages meet the one loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from accord.config.grpo import GRPOConfig, RLOOConfig
from accord.data.packing import Unit, pack
from accord.errors import ConfigError
from accord.methods.experience import reward_parts
from accord.methods.group_rewards import compared
from accord.methods.guard import dearer
from accord.methods.online import OnlineTrainer, gathered, with_answers
from accord.models.adapters import Stack, Want
from accord.objectives.kl import k1, k2, k3
from accord.objectives.policy_gradient import cispo_loss, clipped_loss, sequence_log_ratio, token_weights
from accord.objectives.segments import at_least_fp32, segment_sum
from accord.rewards.combine import RewardSource, as_sources
from accord.rewards.controls import control
from accord.rewards.shaping import OverlongPenalty
from accord.rollouts.sampler import Sampler
from accord.training import processes
from accord.training.known_arguments import explains_arguments
from accord.training.metrics import Metrics
from accord.training.setup import Rows, accept_tokenizer, callbacks_list, prepare, say

NO_SIGNAL = 0.7
"""Share of groups that teach nothing above which a line says so."""
LOSS_KL = {"loss_k2": k2, "loss_k3": k3}


class GRPOTrainer(OnlineTrainer[GRPOConfig]):
    """Group-relative policy optimisation on sampled answers. The public arguments are TRL's.

    Args:
        model: name, path, model or PolicyModel; the policy starts here, and so does the reference.
        reward_funcs: functions with TRL's contract, reward models, sequence classifiers (a module or a model id), or `RewardSource`s; their
            weighted sum is the reward.
        args: the config; None takes its defaults.
        train_dataset: rows with a prompt; other columns reach reward functions.
        eval_dataset: held-out prompts; every `args.eval_steps` one answer to each is sampled (the same draws each time) and scored.
        processing_class: the tokenizer (`tokenizer=` is accepted).
        reward_processing_classes: tokenizers of the classifiers among `reward_funcs`, in their order; None loads each one's own.
        callbacks: transformers TrainerCallback objects.
        peft_config: adds a fresh adapter and trains it alone. None is full fine-tuning, or the model's own adapter.
        sampler: where answers come from; None samples in this process.
        start: adapters of a PolicyModel that policy and reference start from. None is all that it has.
        heldout_reward: a reward of other labels that scores every answer and is only watched (monitor `held-out reward`).
    """

    config_class: type[GRPOConfig] = GRPOConfig
    method = "grpo"
    metric_names = ("reward", "objective/kl", "completions/mean_length")
    best_metric = "eval_reward"
    score_name = "reward"
    smallest_group = 2
    rounds_are_derived = True

    @explains_arguments
    def __init__(
        self,
        model: Any = None,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Rows = None,
        eval_dataset: Rows = None,
        processing_class: Any = None,
        reward_processing_classes: Any = None,
        callbacks: Iterable[Any] | None = None,
        peft_config: Any = None,
        *,
        sampler: Sampler | None = None,
        tokenizer: Any = None,
        columns: dict[str, str] | None = None,
        start: Stack | None = None,
        heldout_reward: Any = None,
    ) -> None:
        args = args if args is not None else self.config_class()
        processes.start()
        if reward_funcs is None or reward_funcs == []:
            raise ConfigError(f"No reward: give {type(self).__name__} a function, a reward model, or a list of them (reward_funcs).")
        rewards: list[RewardSource] = weighed(as_sources(reward_funcs, reward_processing_classes), args)
        if args.control != "none":
            rewards = [control(args.control, rewards, seed=args.seed, gather=processes.gather)]
        if args.overlong_buffer:
            rewards.append(OverlongPenalty(args.max_completion_length, args.overlong_buffer))
        prepared = prepare(
            model,
            args,
            tokenizer=accept_tokenizer(processing_class, tokenizer),
            peft_config=peft_config,
            adapter=self.method,
            method=self.method,
            max_prompt_length=args.max_prompt_length,
            start=start,
        )
        if prepared.stack and peft_config is None:  # the model's own adapter goes on: where it stands now is the reference
            start_name = f"{prepared.stack[-1]}_start"
            prepared.policy.copy_adapter(prepared.stack[-1], start_name)
            prepared = replace(prepared, reference=(*prepared.stack[:-1], start_name))
        super().__init__(
            args,
            prepared,
            callbacks_list(callbacks),
            rewards=rewards,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            columns=columns,
            sampler=sampler,
            needs_reference=args.beta > 0 or args.on_alarm in ("raise_kl", "rollback"),
            heldout_reward=heldout_reward,
        )
        self.raised_beta: float | None = None
        """What an alarm has made of the price of KL. None: the config's."""
        self._told = False

    @property
    def beta(self) -> float:
        """Price of a nat of KL now."""
        return self.config.beta if self.raised_beta is None else self.raised_beta

    @property
    def compares_siblings(self) -> bool:
        return super().compares_siblings and self.config.verifiable_share is None  # else rewards are those of steps

    def rounds(self) -> int:
        """As many as pass `num_train_epochs` times over the prompts."""
        return max(1, math.ceil(len(self.prompts) * self.config.num_train_epochs / self.config.prompts_a_round))

    def method_state(self) -> dict[str, Any]:
        return {**super().method_state(), "raised_beta": self.raised_beta}

    def load_method_state(self, state: dict[str, Any]) -> None:
        super().load_method_state(state)
        self.raised_beta = state.get("raised_beta")

    # -- a round ------------------------------------------------------------------------------------------------------------------------

    def raise_kl(self) -> str:
        self.raised_beta = dearer(self.beta)
        return f"beta raised to {self.beta:.3g}"

    def answered_round(self) -> tuple[list[Unit], list[Unit]]:
        """Groups whose answers differ in reward, as many as a round wants; dynamic sampling asks more prompts to find them."""
        wanted, tries = self.config.prompts_a_round, 1 + self.config.dynamic_sampling
        units: list[Unit] = []
        for _ in range(tries):
            found = sum(map(differs, units))
            prompts = self.queue.take(wanted - found, self.iteration, but={unit.id for unit in units})
            if not prompts:
                break
            units += self._answer(prompts, self._sampling(self.iteration))
            if sum(map(differs, units)) >= wanted:
                break
        for unit in units:
            if found := values(unit):  # a prompt none of whose answers was scored is as difficult as it was
                self.queue.observe(unit.id, sum(found) / len(found))
        if not self.config.dynamic_sampling:
            return units, units
        teaching = [unit for unit in units if differs(unit)]
        return teaching or units[:wanted], units

    def learn_from(self, units: list[Unit]) -> tuple[list[Unit], dict[str, float]]:
        config = self.config
        advantages = compared(units, config, self.beta)
        parts = advantages.split([unit.num_counted for unit in units])
        learned = [replace(unit, data={**unit.data, "advantages": own}) for unit, own in zip(units, parts, strict=True)]
        metrics = round_metrics(learned)
        if metrics["frac_reward_zero_std"] > NO_SIGNAL and config.advantage != "batch_mean" and not self._told:
            self._told = True
            say(
                f"Round {self.iteration + 1}: in {100 * metrics['frac_reward_zero_std']:.0f} % of the groups all answers earned the same, so they teach nothing. "
                "Prompts that are neither always nor never answered well help (curriculum), more num_generations, or dynamic_sampling."
            )
        if config.mask_truncated_completions:
            learned = [
                with_answers(unit, [i for i, r in enumerate(unit.data["rollouts"]) if r.finish_reason == "stop"]) for unit in learned
            ]
            learned = [unit for unit in learned if unit.branches] or [
                replace(unit, data={**unit.data, "advantages": own * 0}) for unit, own in zip(units, parts, strict=True)
            ]
        return learned, metrics

    # -- loss -----------------------------------------------------------------------------------------------------------------------------

    def totals(self, units: Sequence[Unit]) -> dict[str, float]:
        return {
            "tokens": float(sum(unit.num_counted for unit in units)),
            "completions": float(sum(len(unit.branches) for unit in units)),
        }

    def loss(self, units: Sequence[Unit], totals: dict[str, float]) -> tuple[Tensor, Metrics]:
        config = self.config
        batch = pack(units, self.policy.device)
        out = self.policy.forward(batch, self.stack, Want(logprobs=True, entropy=True), temperature=config.temperature)
        logprobs, entropy = out.logprobs, out.entropy
        assert logprobs is not None and entropy is not None
        old, advantages, sampled = (gathered(units, name, logprobs.device) for name in ("old_logprobs", "advantages", "sampler_logprobs"))
        metrics = Metrics()
        losses, clipped = self._token_losses(logprobs, old, advantages, batch.completion, batch.num_completions)
        losses = self.corrected(losses, old, sampled, batch, metrics)
        if self.beta and config.kl_in in LOSS_KL:
            losses = losses + self.beta * LOSS_KL[config.kl_in](logprobs, gathered(units, "ref_logprobs", logprobs.device))
        weights = token_weights(
            batch.completion,
            batch.num_completions,
            aggregation=config.loss_type,
            total_tokens=totals["tokens"],
            total_completions=totals["completions"],
            constant=config.max_completion_length,
        )
        metrics.mean("entropy", entropy)
        metrics.mean("clip_ratio/region_mean", clipped.float())
        metrics.mean("clip_ratio/low_mean", (clipped & (advantages < 0)).float())
        metrics.mean("clip_ratio/high_mean", (clipped & (advantages > 0)).float())
        metrics.mean("val/ratio", (logprobs.detach() - old).exp())
        self.check_first_update(logprobs.detach(), list(units), batch.completion, metrics)
        return (losses * weights).sum(), metrics

    def _token_losses(self, logprobs: Tensor, old: Tensor, advantages: Tensor, completion: Tensor, count: int) -> tuple[Tensor, Tensor]:
        config = self.config
        if config.clip == "cispo":
            assert config.epsilon_high is not None
            return cispo_loss(logprobs, old, advantages, cap=config.epsilon_high)
        log_ratio = at_least_fp32(logprobs) - at_least_fp32(old)
        if config.importance_sampling_level == "sequence":
            log_ratio = sequence_log_ratio(log_ratio, completion, count)
        if config.clip == "none":
            return -log_ratio.exp() * advantages, torch.zeros_like(advantages, dtype=torch.bool)
        return clipped_loss(log_ratio, advantages, clip=config.epsilon, clip_high=config.epsilon_high, dual_clip=config.delta)


class RLOOTrainer(GRPOTrainer):
    """REINFORCE with leave-one-out baselines (Ahmadian et al. 2024, arXiv:2402.14740). Arguments as `GRPOTrainer`."""

    config_class = RLOOConfig
    method = "rloo"


def weighed(sources: list[RewardSource], config: GRPOConfig) -> list[RewardSource]:
    """The sources with `reward_weights`.

    Raises:
        ConfigError: if there is not one weight a reward.
    """
    weights = config.reward_weights
    if weights is None:
        return sources
    if len(weights) != len(sources):
        raise ConfigError(f"{type(config).__name__}: reward_weights has {len(weights)} numbers for {len(sources)} rewards. Give one each.")
    for source, weight in zip(sources, weights, strict=True):
        source.weight = float(weight)
    return sources


def values(unit: Unit) -> list[float]:
    """The scores of a unit's answers that have one."""
    return [score.value for score in unit.data["scores"] if score.value is not None]


def differs(unit: Unit) -> bool:
    """Whether the answers to a prompt earned different rewards: else their advantages are 0."""
    found = values(unit)
    return bool(found) and max(found) > min(found)


def round_metrics(units: Sequence[Unit]) -> dict[str, float]:
    """What a round earned, how alike the answers of a group were, how long they are and, where the reference was read, KL. Names are TRL's."""
    scores = torch.tensor([score.value for unit in units for score in unit.data["scores"]], dtype=torch.float32)
    rollouts = [rollout for unit in units for rollout in unit.data["rollouts"]]
    lengths = torch.tensor([branch.num_counted for unit in units for branch in unit.branches])
    stopped = torch.tensor([rollout.finish_reason == "stop" for rollout in rollouts])
    right = scores > scores.mean()
    groups = scores.split([len(unit.branches) for unit in units])
    found = {
        "reward": float(scores.mean()),
        "reward_std": float(torch.stack([group.std() for group in groups]).mean()),
        "frac_reward_zero_std": sum(not differs(unit) for unit in units) / len(units),
        "completions/unique": sum(len({r.completion_ids for r in unit.data["rollouts"]}) for unit in units) / len(rollouts),
        "completions/mean_length": float(lengths.float().mean()),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": float((~stopped).float().mean()),
        "completions/mean_terminated_length": float(lengths[stopped].float().mean()) if bool(stopped.any()) else 0.0,
    }
    if bool(right.any()):
        found["completions/mean_length_above"] = float(lengths[right].float().mean())
        found["completions/mean_length_below"] = float(lengths[~right].float().mean())
    if "ref_logprobs" in units[0].data:
        old, ref = (torch.cat([unit.data[name] for unit in units]) for name in ("old_logprobs", "ref_logprobs"))
        completion = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        found["objective/kl"] = float(segment_sum(k1(old, ref), completion, len(lengths)).mean())
        found["objective/kl_k3"] = float(segment_sum(k3(old, ref), completion, len(lengths)).mean())
    return {**found, **reward_parts(units)}
