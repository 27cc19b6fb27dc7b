"""PPO for language models: maximise E[r(y | x) - beta KL(policy || reference)] with the policy, reference, reward and value on one base."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from accord.config.ppo import PPOConfig
from accord.data.packing import Unit, pack
from accord.data.snapshots import snapshots_in
from accord.errors import ConfigError
from accord.methods.experience import advantages_and_returns
from accord.methods.guard import dearer
from accord.methods.online import OnlineTrainer, gathered
from accord.models.adapters import Stack, Want
from accord.models.heads import ValueHead
from accord.objectives.kl import AdaptiveKLController, FixedKLController
from accord.objectives.policy_gradient import ppo_policy_loss, ppo_value_loss
from accord.rewards.combine import RewardSource, as_source
from accord.rewards.learned import RewardModel
from accord.rollouts.random import shuffled
from accord.rollouts.sampler import Sampler
from accord.training import processes
from accord.training.known_arguments import explains_arguments
from accord.training.metrics import Metrics
from accord.training.setup import Prepared, Rows, accept_tokenizer, callbacks_list, examples, prepare, report_rendering, say


class PPOTrainer(OnlineTrainer[PPOConfig]):
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
        heldout_reward: a reward of other labels that scores every answer and is only watched (monitor `held-out reward`).
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
        heldout_reward: RewardModel | RewardSource | Any = None,
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
        self._reads_value(args, prepared, value_peft_config or peft_config)
        super().__init__(
            args,
            prepared,
            callbacks_list(callbacks),
            rewards=[as_source(item) for item in (reward if isinstance(reward, (list, tuple)) else [reward])],
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            columns=columns,
            sampler=sampler,
            needs_reference=True,
            heldout_reward=heldout_reward,
        )
        self.ptx_units: list[Unit] = []
        self.ptx_snapshots: list[str] = []
        if ptx_dataset is not None:
            room, self.renderer.max_prompt_length = self.renderer.max_prompt_length, args.max_prompt_length
            found = examples(ptx_dataset, kinds=("demonstration", "text"), what="ptx_dataset", seed=args.seed)
            self.ptx_snapshots = snapshots_in(row.columns for row in found)
            self.ptx_units = self.renderer.units(found)
            report_rendering(self.renderer, "ptx_dataset")
            self.renderer.max_prompt_length = room
        self.kl = (
            FixedKLController(args.kl_coef)
            if args.kl_controller == "fixed"
            else AdaptiveKLController(args.kl_coef, args.kl_target, args.kl_horizon)
        )

    def _reads_value(self, args: PPOConfig, prepared: Prepared, peft_config: Any) -> None:
        """The critic: a head on the reference's states, or on those of its own adapter."""
        policy = prepared.policy
        self.value_head = ValueHead(policy.hidden_size).to(policy.device)
        self.value_stack: Stack = prepared.reference
        if args.value == "adapter":
            policy.add_adapter("value", peft_config, seed=args.seed + 1)
            self.value_stack = (*prepared.reference, "value")
            policy.train_only(prepared.stack[-1], "value")

    def critic(self) -> tuple[Stack, ValueHead]:
        return self.value_stack, self.value_head

    # -- what the loop asks -------------------------------------------------------------------------------------------------------------

    def rounds(self) -> int:
        return self.config.num_iterations

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

    def method_state(self) -> dict[str, Any]:
        return {**super().method_state(), "kl": self.kl.state_dict()}

    def load_method_state(self, state: dict[str, Any]) -> None:
        super().load_method_state(state)
        self.kl.load_state_dict(state["kl"])

    def data_ids(self) -> dict[str, list[str]]:
        return {**super().data_ids(), "ptx_dataset": [unit.id for unit in self.ptx_units]}

    def data_snapshots(self) -> dict[str, list[str]]:
        return {**super().data_snapshots(), "ptx_dataset": self.ptx_snapshots}

    # -- a round ------------------------------------------------------------------------------------------------------------------------

    @property
    def smallest_group(self) -> int:
        return 2 if self.config.compare_siblings else 1

    def learn_from(self, units: list[Unit]) -> tuple[list[Unit], dict[str, float]]:
        coefficient = self.kl.value
        self.value_head.standardise(torch.cat([unit.data["states"] for unit in units]))
        scored, metrics = advantages_and_returns(units, self.value_head, self.config, coefficient)
        metrics["objective/kl_coef"] = coefficient
        self.kl.update(metrics["objective/kl"], sum(len(unit.branches) for unit in scored))
        return scored, metrics

    def raise_kl(self) -> str:
        self.kl.value = dearer(self.kl.value)
        return f"kl_coef raised to {self.kl.value:.3g}"

    def stops(self, metrics: dict[str, float]) -> bool:
        limit, kl = self.config.stop_kl, metrics["objective/kl"]
        if limit is None or kl <= limit:
            return False
        say(f"Stopped after iteration {self.iteration}: KL {kl:.1f} nats an answer is above stop_kl {limit:g}.")
        return True

    def mixed_in(self, units: list[Unit]) -> list[Unit]:
        """And demonstrations beside them, where PTX is on."""
        if not self.config.ptx_coef or not self.ptx_units:
            return units
        order = shuffled(len(self.ptx_units), "ptx", self.config.seed, self.global_step)
        return units + [replace(self.ptx_units[i], data={"ptx": True}) for i in order[: self.config.prompts_per_iteration]]

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
        old, advantages = (gathered(units, name, batch.tokens.device) for name in ("old_logprobs", "advantages"))
        losses, clipped = ppo_policy_loss(out.logprobs, old, advantages, clip=config.cliprange, dual_clip=config.dual_clip)
        metrics = Metrics()
        losses = self.corrected(losses, old, gathered(units, "sampler_logprobs", old.device), batch, metrics)
        ratio = out.logprobs.detach() - old
        metrics.mean("policy/entropy_avg", out.entropy)
        metrics.mean("policy/clipfrac_avg", clipped.float())
        metrics.mean("policy/approxkl_avg", 0.5 * ratio**2)
        metrics.mean("val/ratio", ratio.exp())
        self.check_first_update(out.logprobs.detach(), units, batch.completion, metrics)
        loss = losses.sum() / totals["tokens"]
        metrics.total("loss/policy_avg", loss.detach())
        return loss, metrics

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
