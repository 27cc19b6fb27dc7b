"""What PPO, GRPO and RLOO share: rounds of sampling, scoring and reading the reference; rollouts on disk; held-out answers.

A round: sample G answers to each of P prompts, score them, read the reference where it is needed, then a few passes of updates.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from accord.config.online import OnlineConfig
from accord.data.packing import PackedBatch, Unit
from accord.data.snapshots import snapshots_in
from accord.errors import ConfigError, DivergedError
from accord.methods.experience import Experience, held_out_metrics, shaped_units
from accord.methods.guard import Guard
from accord.methods.noted import judged_rollouts, noted_metrics, with_metrics, with_notes
from accord.methods.prompts import PromptQueue, prompt_room, prompts_of
from accord.methods.reference import check_same_policy
from accord.models.adapters import PolicyModel
from accord.models.heads import ValueHead
from accord.models.merged import Holding
from accord.models.save import save_policy
from accord.objectives.policy_gradient import masked_importance_weights, sequence_importance_weights, truncated_importance_weights
from accord.objectives.segments import segment_sum
from accord.rewards import notes
from accord.rewards.combine import RewardSource
from accord.rewards.grader_process import FailureBudget
from accord.rewards.mitigated import only_watched, pessimistic
from accord.rollouts.local import LocalSampler
from accord.rollouts.random import shuffled
from accord.rollouts.sampler import Prompt, Sampler, SamplingConfig
from accord.training import processes
from accord.training.loop import Loop, StepBatch
from accord.training.metrics import Metrics
from accord.training.setup import Prepared, Rows, say
from accord.types import Rollout, to_json
from accord.writing import append_text, write_text

C = TypeVar("C", bound=OnlineConfig)

HELD_OUT = -1
"""The policy step in the key of held-out draws: an evaluation differs from the one before it by the policy, not by luck."""


class OnlineTrainer(Loop, Generic[C]):
    """A loop that learns from what the policy samples. Subclasses turn scored answers into advantages (`learn_from`) and give the loss.

    Args:
        config, prepared, callbacks: as `Loop`.
        rewards: their weighted sum is the reward.
        train_dataset, eval_dataset: rows with a prompt; other columns reach reward functions.
        sampler: where answers come from; None samples in this process.
        needs_reference: True reads the reference's log-probs of every answer that is learned from. False only where something else needs them.
        heldout_reward: scores every answer and is only watched: a monitor says whether it follows the reward. None watches without it.
    """

    config: C
    score_name = "objective/scores"
    """What the mean score is called in metrics."""
    smallest_group = 1
    """Fewest scored answers to a prompt that can be learned from."""

    def __init__(
        self,
        config: C,
        prepared: Prepared,
        callbacks: list[Any],
        *,
        rewards: Sequence[RewardSource],
        train_dataset: Rows,
        eval_dataset: Rows,
        columns: dict[str, str] | None,
        sampler: Sampler | None,
        needs_reference: bool,
        heldout_reward: Any = None,
    ) -> None:
        super().__init__(config, prepared, callbacks)
        self.stack, self.reference = prepared.stack, prepared.reference
        self.rewards, self.columns = pessimistic(rewards, config.reward_ensemble, config.uncertainty_weight), columns
        if heldout_reward is not None:
            self.rewards.append(only_watched(heldout_reward))
        self.renderer.max_prompt_length = prompt_room(config, self.policy)
        prompts = prompts_of(train_dataset, self.renderer, "train_dataset", columns, config.seed)
        self.eval_prompts = (
            prompts_of(eval_dataset, self.renderer, "eval_dataset", columns, config.seed) if eval_dataset is not None else []
        )
        if config.overfit:
            prompts = self.eval_prompts = prompts[: config.overfit]
            say(f"Overfitting the first {len(prompts)} prompts: the score should rise fast. If it does not, the set-up is wrong.")
        self.queue = PromptQueue(prompts, config.seed, adaptive=getattr(config, "curriculum", False))
        if sampler is not None and config.sampler_weights != "exact":
            raise ConfigError(f"sampler_weights={config.sampler_weights!r} is for sampling in this process. Leave it out, or the sampler.")
        local = LocalSampler(self.policy, self.renderer, self.stack, weights=config.sampler_weights)
        self.sampler: Sampler = sampler if sampler is not None else local
        self.samples_here = sampler is None
        self.exact_sampler = self.samples_here and not local.int8
        # What is evaluated is the policy itself, as it will be saved.
        self.held_out_sampler: Sampler = sampler if sampler is not None else LocalSampler(self.policy, self.renderer, self.stack)
        self.experience = Experience(
            self.policy,
            self.reference,
            self.rewards,
            reference_model=self._reference_model(needs_reference),
            reads_reference=needs_reference,
            critic=self.critic(),
            keep_lower=config.cache_lower_layers,
        )
        self.iteration = 0
        self.not_scored = FailureBudget("The reward", max_failure_share=config.max_not_scored, setting="max_not_scored")
        self.guard = Guard(self)

    @property
    def prompts(self) -> list[Prompt]:
        """What is asked, each once."""
        return self.queue.prompts

    def critic(self) -> tuple[tuple[str, ...], ValueHead] | None:
        """The adapters and the head of a critic; None where there is none."""
        return None

    def _reference_model(self, needed: bool) -> PolicyModel | None:
        """Where all weights are trained, a frozen copy of them if a reference is needed; with adapters the base is one already."""
        if not self.prepared.full or not needed:
            return None
        size = sum(parameter.numel() * parameter.element_size() for parameter in self.policy.model.parameters())
        say(f"The reference is a copy of the model: {size / 1e9:.1f} GB. With a peft_config it needs none.")
        return PolicyModel(deepcopy(self.policy.model).requires_grad_(False))

    @property
    def compares_siblings(self) -> bool:
        """Whether several answers to a prompt are compared by their rewards, so that what the reward pays for a form can be read and left out."""
        return self.config.num_generations > 1

    # -- what subclasses say ------------------------------------------------------------------------------------------------------------

    def rounds(self) -> int:
        """Rounds of sampling and updating."""
        raise NotImplementedError

    def learn_from(self, units: list[Unit]) -> tuple[list[Unit], dict[str, float]]:
        """Scored answers with what the loss needs on them (advantages), and the round's metrics."""
        raise NotImplementedError

    # -- what the loop asks -------------------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, nn.Parameter]:
        return self.policy.trainable_parameters()

    @property
    def steps_per_iteration(self) -> int:
        return self.config.passes * self.config.steps_a_pass

    def total_steps(self) -> int:
        if self.config.max_steps > 0 and self.rounds_are_derived:
            return self.config.max_steps
        steps = self.rounds() * self.steps_per_iteration
        return min(steps, self.config.max_steps) if self.config.max_steps > 0 else steps

    rounds_are_derived = False
    """True: `max_steps` may ask for more rounds than the data say (as everywhere in TRL). False: it only cuts them short."""

    def method_state(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "queue": self.queue.state(),
            "held": [sampler.held for sampler in self._local_samplers()],
            "guard": self.guard.state(),
        }

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.iteration = int(state["iteration"])
        for sampler, held in zip(self._local_samplers(), state.get("held", []), strict=False):
            sampler.held = Holding(*held) if held is not None else None
        self.guard.load(state.get("guard"))
        self.queue.load(state.get("queue") or {"position": self.iteration * self.config.prompts_a_round})

    def _local_samplers(self) -> list[LocalSampler]:
        """Those that draw in this process. How they hold the weights decides the last bits of what is drawn, so a checkpoint keeps it."""
        return [sampler for sampler in (self.sampler, self.held_out_sampler) if isinstance(sampler, LocalSampler)]

    def data_ids(self) -> dict[str, list[str]]:
        return {
            "prompts": [prompt.id for prompt in self.queue.prompts],
            "eval_dataset": [prompt.id for prompt in self.eval_prompts],
        }

    def data_snapshots(self) -> dict[str, list[str]]:
        return {
            "prompts": snapshots_in(prompt.columns for prompt in self.queue.prompts),
            "eval_dataset": snapshots_in(prompt.columns for prompt in self.eval_prompts),
        }

    def can_evaluate(self) -> bool:
        return bool(self.eval_prompts)

    def evaluate(self, eval_dataset: Rows = None) -> dict[str, float]:
        """Score, KL and length of one sampled answer to each held-out prompt, as `eval_...`. Moves nothing that training depends on."""
        prompts = self.eval_prompts if eval_dataset is None else prompts_of(eval_dataset, self.renderer, "eval_dataset", self.columns)
        if not prompts:
            return {}
        units, failed = self._scored(self._answer(prompts, replace(self._sampling(HELD_OUT), num_samples=1)), at_least=1)
        metrics = {**held_out_metrics(units, self.score_name), "completions/not_scored": float(failed)}
        return {f"eval_{name}": value for name, value in with_metrics(metrics, noted_metrics(units)).items()}

    def write_model(self, folder: Path) -> None:
        save_policy(self.policy, self.stack, self.processing_class, folder)

    # -- a round ------------------------------------------------------------------------------------------------------------------------

    def batches(self, start: int) -> Iterator[StepBatch]:
        config = self.config
        self._truncate_rollouts()
        self.guard.open()
        while self.global_step < self.total_steps() and not self.guard.over:
            self.guard.before_round()
            units, metrics = self._collect()
            if self.guard.turns_back:
                self.guard.turn_back()
                continue
            if self.guard.stops:
                self.log({"step": self.global_step, "epoch": round(self.epoch, 6), **metrics})
                return
            slices = [part for number in range(config.passes) for part in self._slices(units, number)]
            for index, part in enumerate(slices):
                last = index == len(slices) - 1
                if last:
                    self.iteration += 1
                yield StepBatch(self.mixed_in(part), epoch=self.queue.epochs, boundary=last, metrics=metrics if last else {})
            if self.stops(metrics):
                return

    def mixed_in(self, units: list[Unit]) -> list[Unit]:
        """The units of a step, and what a method adds to each."""
        return units

    def raise_kl(self) -> str:
        """Make KL dearer from this round on; returns what was done, in words."""
        raise NotImplementedError

    def go_back_to(self, folder: Path) -> None:
        """Stand where a checkpoint of this run stood, logs and rollouts included."""
        self._resume(folder)
        self._open_metrics()
        self._truncate_rollouts()

    def stops(self, metrics: dict[str, float]) -> bool:
        """Whether this round is the last one, for a reason that it says."""
        return False

    def _collect(self) -> tuple[list[Unit], dict[str, float]]:
        units, asked = self.answered_round()
        for score in (score for unit in asked for score in unit.data["scores"]):
            self.not_scored.count(None if score.value is not None else score.error or "no score")
        scored, failed = self._scored(units, at_least=self.smallest_group)
        watched = self.guard.look(asked)
        scored, metrics = self.learn_from(shaped_units(self.guard.less_closed(scored), self.config.reward_shaping))
        metrics |= watched
        metrics["completions/not_scored"] = float(failed)
        metrics["iteration"] = float(self.iteration + 1)
        self._write_rollouts([rollout for unit in asked for rollout in judged_rollouts(unit)])
        return scored, with_metrics(metrics, noted_metrics(asked))

    def answered_round(self) -> tuple[list[Unit], list[Unit]]:
        """Units to learn from, and every unit that was sampled for it."""
        units = self._answer(self.queue.take(self.config.prompts_a_round, self.iteration), self._sampling(self.iteration))
        return units, units

    def _sampling(self, step: int) -> SamplingConfig:
        config = self.config
        return SamplingConfig(config.answer_tokens, config.num_generations, config.temperature, seed=config.seed, step=step)

    def _answer(self, prompts: Sequence[Prompt], sampling: SamplingConfig) -> list[Unit]:
        """Sample answers, score them and read the reference: one unit a prompt, of all processes."""
        held_out = sampling.step == HELD_OUT
        sampler, exact = (self.held_out_sampler, self.samples_here) if held_out else (self.sampler, self.exact_sampler)
        with self.policy.gathered():
            rollouts = sampler.sample(processes.share(prompts), sampling)
            check_ids(rollouts, processes.share(prompts), sampling.num_samples)
            groups = [rollouts[i : i + sampling.num_samples] for i in range(0, len(rollouts), sampling.num_samples)]
            with notes.taking(len(rollouts), lambda: self.state) as taken:
                units = self.experience.make(
                    groups, self.token_budget, exact=exact, stack=self.stack, temperature=sampling.temperature, held_out=held_out
                )
        return processes.gather(with_notes(units, taken))

    def _scored(self, units: Sequence[Unit], *, at_least: int) -> tuple[list[Unit], int]:
        """Prompts with at least so many scored answers, and how many answers were left out.

        Raises:
            DivergedError: with the reason, if there are none.
        """
        scored = [unit for unit in (without_failures(unit) for unit in units) if len(unit.branches) >= at_least]
        if not scored:
            reason = next(
                (score.error for unit in units for score in unit.data["scores"] if score.error), "fewer than two answers to each prompt"
            )
            raise DivergedError(
                f"Iteration {self.iteration}: no answer could be scored ({reason}). Mend the reward; the run stands at its last checkpoint."
            )
        return scored, sum(len(unit.branches) for unit in units) - sum(len(unit.branches) for unit in scored)

    def _slices(self, units: list[Unit], number: int) -> list[list[Unit]]:
        """Mini-batches of whole prompts, shuffled anew each pass."""
        order = shuffled(len(units), "slices", self.config.seed, self.iteration, number)
        parts = min(self.config.steps_a_pass, len(units))
        sliced = [[units[i] for i in order[part::parts]] for part in range(parts)]
        return sliced + [sliced[-1]] * (self.config.steps_a_pass - parts)

    # -- checks and corrections -----------------------------------------------------------------------------------------------------------

    def corrected(self, losses: Tensor, old: Tensor, sampled: Tensor, batch: PackedBatch, metrics: Metrics) -> Tensor:
        """Token losses times importance weights, where the sampler is not the policy itself. (M,)"""
        if self.exact_sampler:
            return losses
        how, cap = self.config.importance_weights, self.config.truncated_importance_cap
        if how == "sequence":
            weights = sequence_importance_weights(old, sampled, batch.completion, batch.num_completions, cap=cap)
        else:
            weights = {"truncate": truncated_importance_weights, "mask": masked_importance_weights}[how](old, sampled, cap=cap)
        metrics.mean("sampling/importance_weight", weights)
        return losses * weights

    def check_first_update(self, logprobs: Tensor, units: list[Unit], completion: Tensor, metrics: Metrics) -> None:
        """First update of a round: the policy has not moved, so sampler and trainer must agree; before the very first, policy and reference."""
        if self.global_step % self.steps_per_iteration == 0:
            self._check_mismatch(logprobs - gathered(units, "sampler_logprobs", logprobs.device), metrics)
        if self.global_step == 0 and not self.config.skip_step0_checks and "ref_logprobs" in units[0].data:
            gaps = segment_sum(logprobs - gathered(units, "ref_logprobs", logprobs.device), completion, int(completion[-1]) + 1)
            check_same_policy(gaps, int(completion.bincount().max()), self.policy.dtype)

    def _check_mismatch(self, difference: Tensor, metrics: Metrics) -> None:
        metrics.maximum("sampling/logprob_difference_max", difference.abs().max())
        metrics.mean("sampling/mismatch_kl", difference.exp() - 1 - difference)
        metrics.mean("sampling/differences_above_0.1", (difference.abs() > 0.1).float())
        # In half types single tokens differ by a third of a nat with nothing wrong; another policy differs in the mean.
        whole = self.policy.dtype.itemsize >= 4
        apart, limit = (float(difference.abs().max()), 1e-3) if whole else (float(difference.abs().mean()), 0.1)
        if self.exact_sampler and self.global_step == 0 and not self.config.skip_step0_checks and not apart <= limit:
            raise DivergedError(
                f"Sampler and trainer disagree by {apart:.2g} nat on a token{'' if whole else ' in the mean'} before the first update: the gradient would belong to another policy. "
                "Please report this with the model's name; skip_step0_checks=True trains anyway."
            )

    # -- rollouts on disk ---------------------------------------------------------------------------------------------------------------

    def _write_rollouts(self, rollouts: list[Rollout]) -> None:
        if processes.is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(to_json(rollout), ensure_ascii=False) + "\n" for rollout in rollouts)
            append_text(self.folder / "rollouts.jsonl", lines)

    def _truncate_rollouts(self) -> None:
        """Drop what a killed run wrote after its last checkpoint."""
        path = self.folder / "rollouts.jsonl"
        if processes.is_main() and path.exists():
            rows = [
                line
                for line in path.read_text(encoding="utf-8").split("\n")
                if line.endswith("}") and json.loads(line)["policy_step"] < self.iteration
            ]
            write_text(path, "".join(row + "\n" for row in rows))


def check_ids(rollouts: Sequence[Rollout], prompts: Sequence[Prompt], num_samples: int) -> None:
    """Every answer belongs to the prompt, with the columns, that it will be scored by: siblings side by side, in the order of the prompts.

    Raises:
        ConfigError: naming the first that does not. A sampler that mixes answers up would have them graded against another question.
    """
    expected = [(prompt, index) for prompt in prompts for index in range(num_samples)]
    if len(rollouts) != len(expected):
        raise ConfigError(f"The sampler gave {len(rollouts)} answers to {len(prompts)} prompts; {num_samples} to each were asked for.")
    for place, (rollout, (prompt, index)) in enumerate(zip(rollouts, expected, strict=True)):
        if (rollout.prompt_id, rollout.sample_index) != (prompt.id, index) or rollout.columns != prompt.columns:
            raise ConfigError(
                f"The sampler's answer {place} is number {rollout.sample_index} to prompt {rollout.prompt_id}; number {index} to {prompt.id} with its columns was asked for."
            )


def gathered(units: Sequence[Unit], name: str, device: torch.device) -> Tensor:
    """A per-token quantity of these units as one (M,) tensor."""
    return torch.cat([unit.data[name] for unit in units]).to(device)


def without_failures(unit: Unit) -> Unit:
    """The unit without the answers that could not be scored."""
    return with_answers(unit, [index for index, score in enumerate(unit.data["scores"]) if score.value is not None])


def with_answers(unit: Unit, keep: list[int]) -> Unit:
    """The unit with these of its answers, and what is known about them."""
    if len(keep) == len(unit.branches):
        return unit
    lengths = [branch.num_counted for branch in unit.branches]
    data = dict(unit.data)
    for name, value in unit.data.items():
        if isinstance(value, Tensor):
            parts = value.split(lengths)
            data[name] = torch.cat([parts[i] for i in keep]) if keep else value[:0]
        elif isinstance(value, list):
            data[name] = [value[i] for i in keep]
    data.pop("lower", None)  # laid out for all branches
    return replace(unit, branches=tuple(unit.branches[i] for i in keep), data=data)
