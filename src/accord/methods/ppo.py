"""PPO for language models: maximise E[r(y | x) - beta KL(policy || reference)] with the policy, reference, reward and value on one base.

An iteration: sample G answers to each of P prompts, score them, read the reference once, then a few epochs of clipped updates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from accord.config.ppo import PPOConfig
from accord.data.packing import Unit, pack
from accord.errors import ConfigError, DivergedError
from accord.methods.experience import Experience, advantages_and_returns, held_out_metrics
from accord.methods.prompts import prompt_room, prompts_of
from accord.methods.reference import check_same_policy
from accord.models.adapters import Stack, Want
from accord.models.heads import ValueHead
from accord.models.save import save_policy
from accord.objectives.kl import AdaptiveKLController, FixedKLController
from accord.objectives.policy_gradient import ppo_policy_loss, ppo_value_loss, truncated_importance_weights
from accord.objectives.segments import segment_sum
from accord.rewards.combine import FunctionReward, LearnedReward, RewardSource
from accord.rewards.learned import RewardModel
from accord.rollouts.local import LocalSampler
from accord.rollouts.random import shuffled
from accord.rollouts.sampler import Prompt, Sampler, SamplingConfig
from accord.training import processes
from accord.training.known_arguments import explains_arguments
from accord.training.loop import Loop, StepBatch
from accord.training.metrics import Metrics
from accord.training.setup import Rows, accept_tokenizer, callbacks_list, examples, prepare, report_rendering, say
from accord.types import Rollout, to_json
from accord.writing import append_text, write_text

HELD_OUT = -1
"""The policy step in the key of held-out draws: an evaluation differs from the one before it by the policy, not by luck."""


class PPOTrainer(Loop):
    """Proximal policy optimisation on sampled answers.

    Args:
        args: the PPO config.
        processing_class: the tokenizer (`tokenizer=` is accepted).
        model: name, path, model or PolicyModel; the policy starts here, and so does the reference.
        reward: reward models, functions with TRL's contract, or `RewardSource`s; their weighted sum is the reward.
        train_dataset: rows with a prompt; other columns reach reward functions.
        peft_config: adapter of the policy; None takes LoRA of rank 16, and says so. Full fine-tuning is not offered for PPO: policy,
            reference and value share one base.
        value_peft_config: adapter of the critic when `args.value == "adapter"`; None copies `peft_config`.
        eval_dataset: held-out prompts; every `args.eval_steps` one answer to each is sampled (the same draws each time) and scored.
        ptx_dataset: demonstrations mixed in with weight `args.ptx_coef`.
        sampler: where answers come from; None samples in this process.
        start: adapters of a PolicyModel that policy and reference start from. None is all that it has.
    """

    config_class = PPOConfig
    metric_names = ("objective/scores", "objective/kl", "completions/mean_length")
    best_metric = "eval_objective/scores"

    @explains_arguments
    def __init__(
        self,
        args: PPOConfig | None = None,
        processing_class: Any = None,
        model: Any = None,
        reward: RewardModel | RewardSource | Any = None,
        train_dataset: Rows = None,
        callbacks: Iterable[Any] | None = None,
        peft_config: Any = None,
        *,
        eval_dataset: Rows = None,
        value_peft_config: Any = None,
        ptx_dataset: Rows = None,
        sampler: Sampler | None = None,
        tokenizer: Any = None,
        columns: dict[str, str] | None = None,
        start: Stack | None = None,
    ) -> None:
        args = args if args is not None else self.config_class()
        processes.start()
        if reward is None or reward == []:
            raise ConfigError("No reward: give PPOTrainer a reward model, a function, or a list of them.")
        if bool(args.ptx_coef) != (ptx_dataset is not None):
            missing = "ptx_dataset (--ptx_data rows.jsonl)" if args.ptx_coef else "ptx_coef (above 0)"
            raise ConfigError(f"Demonstrations are mixed in with ptx_coef and ptx_dataset together; {missing} is missing.")
        if peft_config is None:
            from peft import LoraConfig

            peft_config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
            say("No peft_config: LoRA of rank 16 on all linear layers.")
        prepared = prepare(
            model,
            args,
            tokenizer=accept_tokenizer(processing_class, tokenizer),
            peft_config=peft_config,
            adapter="ppo",
            method="ppo",
            max_prompt_length=args.max_prompt_length,
            start=start,
        )
        super().__init__(args, prepared, callbacks_list(callbacks))
        self.config: PPOConfig = args
        self.stack, self.reference = prepared.stack, prepared.reference
        self.rewards = [as_source(item) for item in (reward if isinstance(reward, (list, tuple)) else [reward])]
        self.columns = columns
        self.ptx_units: list[Unit] = []
        if ptx_dataset is not None:
            self.ptx_units = self.renderer.units(examples(ptx_dataset, kinds=("demonstration", "text"), what="ptx_dataset", seed=args.seed))
            report_rendering(self.renderer, "ptx_dataset")
        self.renderer.max_prompt_length = prompt_room(args, self.policy)
        self.prompts = prompts_of(train_dataset, self.renderer, "train_dataset", columns, args.seed)
        self.eval_prompts = prompts_of(eval_dataset, self.renderer, "eval_dataset", columns, args.seed) if eval_dataset is not None else []
        if args.overfit:
            self.prompts = self.eval_prompts = self.prompts[: args.overfit]
            say(f"Overfitting the first {len(self.prompts)} prompts: the score should rise fast. If it does not, the set-up is wrong.")
        self.value_head = ValueHead(self.policy.hidden_size).to(self.policy.device)
        self.value_stack: Stack = self.reference
        if args.value == "adapter":
            self.policy.add_adapter("value", value_peft_config or peft_config, seed=args.seed + 1)
            self.value_stack = (*self.reference, "value")
            self.policy.train_only(self.stack[-1], "value")
        self.kl = (
            FixedKLController(args.kl_coef)
            if args.kl_controller == "fixed"
            else AdaptiveKLController(args.kl_coef, args.kl_target, args.kl_horizon)
        )
        if sampler is not None and args.sampler_weights != "exact":
            raise ConfigError(f"sampler_weights={args.sampler_weights!r} is for sampling in this process. Leave it out, or the sampler.")
        local = LocalSampler(self.policy, self.renderer, self.stack, weights=args.sampler_weights)
        self.sampler: Sampler = sampler if sampler is not None else local
        self.samples_here = sampler is None
        self.exact_sampler = self.samples_here and not local.int8
        # What is evaluated is the policy itself, as it will be saved.
        self.held_out_sampler: Sampler = sampler if sampler is not None else LocalSampler(self.policy, self.renderer, self.stack)
        self.experience = Experience(
            self.policy,
            self.reference,
            self.value_stack,
            self.value_head,
            self.rewards,
            keep_lower=args.cache_lower_layers,
        )
        self.iteration = 0

    # -- what the loop asks -------------------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, nn.Parameter]:
        heads = {f"value_head.{name}": parameter for name, parameter in self.value_head.named_parameters()}
        return {**self.policy.trainable_parameters(), **heads}

    def parameter_groups(self) -> list[dict[str, Any]]:
        trained = self.policy.trainable_parameters()
        return [
            {"params": list(trained.values()), "scale": 1.0},
            {"params": list(self.value_head.parameters()), "scale": self.config.value_learning_rate_scale},
        ]

    def buffers(self) -> dict[str, Tensor]:
        return {f"value_head.{name}": buffer for name, buffer in self.value_head.named_buffers()}

    @property
    def steps_per_iteration(self) -> int:
        return self.config.num_ppo_epochs * self.config.num_mini_batches

    def total_steps(self) -> int:
        steps = self.config.num_iterations * self.steps_per_iteration
        return min(steps, self.config.max_steps) if self.config.max_steps > 0 else steps

    def method_state(self) -> dict[str, Any]:
        return {"kl": self.kl.state_dict(), "iteration": self.iteration}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.kl.load_state_dict(state["kl"])
        self.iteration = int(state["iteration"])

    def data_ids(self) -> dict[str, list[str]]:
        return {
            "prompts": [prompt.id for prompt in self.prompts],
            "eval_dataset": [prompt.id for prompt in self.eval_prompts],
            "ptx_dataset": [unit.id for unit in self.ptx_units],
        }

    def can_evaluate(self) -> bool:
        return bool(self.eval_prompts)

    def evaluate(self, eval_dataset: Rows = None) -> dict[str, float]:
        """Score, KL and length of one sampled answer to each held-out prompt, as `eval_...`. Moves nothing that training depends on."""
        prompts = self.eval_prompts if eval_dataset is None else prompts_of(eval_dataset, self.renderer, "eval_dataset", self.columns)
        if not prompts:
            return {}
        units, failed = self._scored(self._answer(prompts, replace(self._sampling(HELD_OUT), num_samples=1)), at_least=1)
        return {f"eval_{name}": value for name, value in {**held_out_metrics(units), "completions/not_scored": float(failed)}.items()}

    def write_model(self, folder: Path) -> None:
        save_policy(self.policy, self.stack, self.processing_class, folder)

    # -- an iteration -------------------------------------------------------------------------------------------------------------------

    def batches(self, start: int) -> Iterator[StepBatch]:
        config = self.config
        self._truncate_rollouts()
        while self.global_step < self.total_steps():
            units, metrics = self._collect()
            slices = [part for epoch in range(config.num_ppo_epochs) for part in self._slices(units, epoch)]
            for index, part in enumerate(slices):
                last = index == len(slices) - 1
                if last:
                    self.iteration += 1
                yield StepBatch(part + self._ptx(), epoch=self._prompt_epoch(), boundary=last, metrics=metrics if last else {})
            if config.stop_kl is not None and metrics["objective/kl"] > config.stop_kl:
                say(
                    f"Stopped after iteration {self.iteration}: KL {metrics['objective/kl']:.1f} nats an answer is above stop_kl {config.stop_kl:g}."
                )
                return

    def _collect(self) -> tuple[list[Unit], dict[str, float]]:
        config = self.config
        units = self._answer(self._iteration_prompts(self.iteration), self._sampling(self.iteration))
        scored, failed = self._scored(units, at_least=2 if config.compare_siblings else 1)
        coefficient = self.kl.value
        self.value_head.standardise(torch.cat([unit.data["states"] for unit in scored]))
        scored, metrics = advantages_and_returns(scored, self.value_head, config, coefficient)
        metrics["objective/kl_coef"] = coefficient
        metrics["completions/not_scored"] = float(failed)
        metrics["iteration"] = float(self.iteration + 1)
        self.kl.update(metrics["objective/kl"], sum(len(unit.branches) for unit in scored))
        self._write_rollouts(
            [replace(r, score=s) for unit in units for r, s in zip(unit.data["rollouts"], unit.data["scores"], strict=True)]
        )
        return scored, metrics

    def _sampling(self, step: int) -> SamplingConfig:
        config = self.config
        return SamplingConfig(config.max_new_tokens, config.num_generations, config.temperature, seed=config.seed, step=step)

    def _answer(self, prompts: Sequence[Prompt], sampling: SamplingConfig) -> list[Unit]:
        """Sample answers, score them and read the reference: one unit a prompt, of all processes."""
        held_out = sampling.step == HELD_OUT
        sampler, exact = (self.held_out_sampler, self.samples_here) if held_out else (self.sampler, self.exact_sampler)
        with self.policy.gathered():
            rollouts = sampler.sample(processes.share(prompts), sampling)
            groups = [rollouts[i : i + sampling.num_samples] for i in range(0, len(rollouts), sampling.num_samples)]
            units = self.experience.make(groups, self.token_budget, exact=exact, stack=self.stack, temperature=sampling.temperature)
        return processes.gather(units)

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

    def _iteration_prompts(self, iteration: int) -> list[Prompt]:
        """The prompts of an iteration: seeded epochs over all prompts, each prompt once an iteration."""
        count = self.config.prompts_per_iteration
        chosen: dict[str, Prompt] = {}
        position = iteration * count
        while len(chosen) < min(count, len(self.prompts)):
            epoch, index = divmod(position, len(self.prompts))
            prompt = self.prompts[shuffled(len(self.prompts), "prompts", self.config.seed, epoch)[index]]
            chosen.setdefault(prompt.id, prompt)
            position += 1
        return list(chosen.values())

    def _prompt_epoch(self) -> float:
        return self.iteration * self.config.prompts_per_iteration / len(self.prompts)

    def _slices(self, units: list[Unit], epoch: int) -> list[list[Unit]]:
        """Mini-batches of whole prompts, shuffled anew each epoch."""
        order = shuffled(len(units), "slices", self.config.seed, self.iteration, epoch)
        parts = min(self.config.num_mini_batches, len(units))
        sliced = [[units[i] for i in order[part::parts]] for part in range(parts)]
        return sliced + [sliced[-1]] * (self.config.num_mini_batches - parts)

    def _ptx(self) -> list[Unit]:
        if not self.config.ptx_coef or not self.ptx_units:
            return []
        order = shuffled(len(self.ptx_units), "ptx", self.config.seed, self.global_step)
        return [replace(self.ptx_units[i], data={"ptx": True}) for i in order[: self.config.prompts_per_iteration]]

    # -- losses -------------------------------------------------------------------------------------------------------------------------

    def totals(self, units: Sequence[Unit]) -> dict[str, float]:
        mine = [unit for unit in units if "ptx" not in unit.data]
        return {
            "tokens": float(sum(unit.num_counted for unit in mine)),
            "ptx_tokens": float(sum(unit.num_counted for unit in units if "ptx" in unit.data)),
        }

    def losses(self, units: Sequence[Unit], totals: dict[str, float]) -> Iterator[tuple[Tensor, Metrics]]:
        rollouts = [unit for unit in units if "ptx" not in unit.data]
        ptx = [unit for unit in units if "ptx" in unit.data]
        if rollouts:
            yield self._policy_loss(rollouts, totals)
            yield self._value_loss(rollouts, totals)
        if ptx:
            logprobs = self.policy.forward(pack(ptx, self.policy.device), self.stack).logprobs
            assert logprobs is not None
            metrics = Metrics()
            metrics.mean("loss/ptx", -logprobs)
            yield -self.config.ptx_coef * logprobs.sum() / totals["ptx_tokens"], metrics

    def _policy_loss(self, units: list[Unit], totals: dict[str, float]) -> tuple[Tensor, Metrics]:
        config = self.config
        batch = pack(units, self.policy.device)
        out = self.policy.forward(batch, self.stack, Want(logprobs=True, entropy=True), temperature=config.temperature)
        assert out.logprobs is not None and out.entropy is not None
        old, advantages, sampled = (
            gathered(units, name, batch.tokens.device) for name in ("old_logprobs", "advantages", "sampler_logprobs")
        )
        losses, clipped = ppo_policy_loss(out.logprobs, old, advantages, clip=config.cliprange, dual_clip=config.dual_clip)
        metrics = Metrics()
        if not self.exact_sampler:
            weights = truncated_importance_weights(old, sampled, cap=config.truncated_importance_cap)
            metrics.mean("sampling/importance_weight", weights)
            losses = losses * weights
        ratio = out.logprobs.detach() - old
        metrics.mean("policy/entropy_avg", out.entropy)
        metrics.mean("policy/clipfrac_avg", clipped.float())
        metrics.mean("policy/approxkl_avg", 0.5 * ratio**2)
        metrics.mean("val/ratio", ratio.exp())
        if self.global_step % self.steps_per_iteration == 0:
            self._check_mismatch(out.logprobs.detach() - sampled, metrics)
        if self.global_step == 0 and not config.skip_step0_checks:
            gaps = segment_sum(out.logprobs.detach() - gathered(units, "ref_logprobs", old.device), batch.completion, batch.num_completions)
            check_same_policy(gaps, int(batch.completion.bincount().max()), self.policy.model.dtype)
        loss = losses.sum() / totals["tokens"]
        metrics.total("loss/policy_avg", loss.detach())
        return loss, metrics

    def _check_mismatch(self, difference: Tensor, metrics: Metrics) -> None:
        """First update of an iteration: the policy has not moved, so sampler and trainer must agree."""
        metrics.maximum("sampling/logprob_difference_max", difference.abs().max())
        metrics.mean("sampling/mismatch_kl", difference.exp() - 1 - difference)
        metrics.mean("sampling/differences_above_0.1", (difference.abs() > 0.1).float())
        limit = 1e-3 if self.policy.model.dtype == torch.float32 else 0.2
        if (
            self.exact_sampler
            and self.global_step == 0
            and not self.config.skip_step0_checks
            and not float(difference.abs().max()) <= limit
        ):
            raise DivergedError(
                f"Sampler and trainer disagree by {float(difference.abs().max()):.2g} nat on a token before the first update: the gradient would belong to another policy. "
                "Please report this with the model's name; skip_step0_checks=True trains anyway."
            )

    def _value_loss(self, units: list[Unit], totals: dict[str, float]) -> tuple[Tensor, Metrics]:
        config = self.config
        if config.value == "adapter":
            states = self.policy.forward(pack(units, self.policy.device), self.value_stack, Want(logprobs=False, states=True)).states
            assert states is not None
        else:
            states = torch.cat([unit.data["states"] for unit in units]).to(self.policy.device)
        values = self.value_head(states)
        old, returns = (gathered(units, name, values.device) for name in ("old_values", "returns"))
        losses = ppo_value_loss(values, old, returns, clip=config.cliprange_value)
        metrics = Metrics()
        metrics.ratio("loss/value_avg", losses.detach().sum(), len(losses))
        return config.vf_coef * losses.sum() / totals["tokens"], metrics

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


def as_source(item: Any) -> RewardSource:
    """A reward model, a function or a source as a source."""
    if isinstance(item, RewardModel):
        return LearnedReward(item)
    if hasattr(item, "score") and hasattr(item, "weight"):
        return item
    return FunctionReward(item)


def gathered(units: Sequence[Unit], name: str, device: torch.device) -> Tensor:
    """A per-token quantity of these units as one (M,) tensor."""
    return torch.cat([unit.data[name] for unit in units]).to(device)


def without_failures(unit: Unit) -> Unit:
    """The unit without the answers that could not be scored."""
    keep = [index for index, score in enumerate(unit.data["scores"]) if score.value is not None]
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
