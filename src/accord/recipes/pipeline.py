"""SFT, reward model, PPO, GRPO or DPO on one base model, stage by stage. The demo and `accord align` are this with different data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accord.config.dpo import DPOConfig
from accord.config.grpo import GRPOConfig
from accord.config.ppo import PPOConfig
from accord.config.reward import RewardConfig
from accord.config.sft import SFTConfig
from accord.data.packing import Branch, Unit, pack, split_by_budget
from accord.evaluation.accuracy import accuracy_table
from accord.methods.reference_answers import reference_answers, rollout_units, sample_answers
from accord.models.adapters import Stack, Want
from accord.models.lora import lora_config
from accord.models.opened import Opened, open_model
from accord.models.save import adapter_hash, load_stack
from accord.objectives.segments import segment_sum
from accord.recipes.alarms_page import watched
from accord.recipes.pairs import pairs_of
from accord.recipes.stages import Stages
from accord.rewards.learned import RewardModel
from accord.rollouts.sampler import SamplingConfig
from accord.types import Example, Rollout, content_hash


@dataclass
class Settings:
    """Sizes and rates of one pipeline; the demo's numbers were measured on two cores."""

    lora_r: int = 16
    lora_alpha: int = 32
    lora_layers: float = 1.0
    """Share of the layers, from the top, that get adapters."""
    feature_depth: float | None = None
    """How deep into the model the reward heads read, as a share of its layers: 0.8 is layer 24 of 30. None is the last layer."""
    rankings_in_dpo: bool = True
    """True: DPO also learns the pairs that rankings hold. False leaves rankings to the reward model."""
    sft: dict[str, Any] = field(default_factory=dict)
    reward: dict[str, Any] = field(default_factory=dict)
    ppo: dict[str, Any] = field(default_factory=dict)
    grpo: dict[str, Any] = field(default_factory=dict)
    dpo: dict[str, Any] = field(default_factory=dict)
    max_new_tokens: int = 48
    temperature: float = 1.0
    """Of the policy everywhere: practising, reference, KL and the look at the end."""
    seed: int = 42


@dataclass(frozen=True)
class PipelineData:
    """What a pipeline learns from. Any part may be empty when the route does not need it."""

    demonstrations: Sequence[Example] = ()
    comparisons: Sequence[Example] = ()
    """Pairs and rankings that train the reward."""
    heldout_comparisons: Sequence[Example] = ()
    """Comparisons with other prompts: they test the reward, and train a second one that the policy never sees."""
    prompts: Sequence[Example] = ()
    """What the policy practises on."""


class Pipeline:
    """One base model in memory; every stage adds its adapter to it or reloads it from its folder."""

    def __init__(
        self,
        model: str | Opened,
        data: PipelineData,
        settings: Settings,
        stages: Stages,
        say: Callable[[str], None],
        *,
        accept_licence: bool = False,
        before_loading: Callable[[Any], object] | None = None,
        weights: str | Callable[[], str] = "auto",
        ignore_memory: bool = False,
    ) -> None:
        """Args:
        model: name, folder, run, GGUF file or hub id; or one that is open already.
        before_loading: called with the model's config before any weight is read; raises when the work cannot fit.
        weights: how the base is held, as in `open_model`. A model that is open stays as it is.
        ignore_memory: True loads a model that may not fit into memory. False refuses it.
        """
        self.data, self.settings, self.stages, self.say = data, settings, stages, say
        if isinstance(model, Opened):
            opened = model
        else:
            opened = open_model(
                model,
                accept_licence=accept_licence,
                before_loading=before_loading,
                weights_too=True,
                force=ignore_memory,
                weights=weights,
            )
        self.resolved, self.tokenizer, self.policy, self.renderer = opened.resolved, opened.tokenizer, opened.policy, opened.renderer
        self.stacks: dict[str, Stack] = {"starter": opened.stack}
        self._features: dict[str, Tensor] = {}
        self._reference: list[Rollout] = []
        adapters = [adapter_hash(self.policy, name) for name in opened.stack]
        held = [f"held in {self.policy.held}"] if self.policy.held else []
        self._keys: dict[str, str] = {"starter": content_hash([str(self.resolved.name), self.resolved.sha256, *adapters, *held])}

    def without_imitation(self) -> None:
        """Have the model as it was given take the place of what `sft` makes."""
        self.stacks["sft"], self._keys["sft"] = self.stacks["starter"], self._keys["starter"]

    def key(self, stage: str) -> str:
        """Hash of everything a stage's result depends on."""
        return self._keys[stage]

    def go_on_from(self, stack: Stack, key: str) -> None:
        """Have PPO and GRPO begin with the weights of a policy that an earlier pipeline made from the same `sft`, which stays the reference.

        Args:
            stack: of that policy: `sft` and one adapter more.
            key: what it depends on.
        """
        self.stacks["old"], self._keys["old"] = stack, key

    def _begin(self, stack: Stack) -> None:
        """Put the weights of the policy that is gone on from into a fresh adapter."""
        if "old" in self.stacks:
            self.policy.copy_weights(self.stacks["old"][-1], stack[-1])

    def _online(self, folder: Path) -> dict[str, Any]:
        """What configs of PPO and GRPO share. A policy that goes on is no longer its reference, so it is not checked to be."""
        return {
            "output_dir": str(folder),
            "seed": self.settings.seed,
            "temperature": self.settings.temperature,
            "skip_step0_checks": "old" in self.stacks,
        }

    def _online_parents(self) -> list[str]:
        return ["sft", "reward", *(["old"] if "old" in self.stacks else [])]

    def lora(self) -> Any:
        return lora_config(self.policy, rank=self.settings.lora_r, alpha=self.settings.lora_alpha, layers=self.settings.lora_layers)

    def _inputs(self, stage: str, parents: Sequence[str], rows: Sequence[Example], options: dict[str, Any]) -> dict[str, Any]:
        identity = [[row.id, row.ranks, row.probability, [c.finished for c in row.completions]] for row in rows]
        inputs = {
            "stage": stage,
            "parents": [self._keys[p] for p in parents],
            "rows": content_hash(identity),
            "options": options,
            "settings": {key: value for key, value in asdict(self.settings).items() if not isinstance(value, dict)},
            "seed": self.settings.seed,
        }
        self._keys[stage] = content_hash(inputs)
        return inputs

    # -- stages -------------------------------------------------------------------------------------------------------------------------

    def sft(self, *, planned_seconds: float | None = None) -> Stack:
        """Imitate the demonstrations. Adds the stack `sft`."""
        from accord.methods.sft import SFTTrainer

        options = self.settings.sft
        rows = self.data.demonstrations

        def work(folder: Path, resume: bool) -> dict[str, Any]:
            config = SFTConfig(output_dir=str(folder), seed=self.settings.seed, **options)
            trainer = SFTTrainer(
                self.policy, config, list(rows), processing_class=self.tokenizer, peft_config=self.lora(), start=self.stacks["starter"]
            )
            last = trainer.train(resume_from_checkpoint=_checkpoint(folder, resume))
            trainer.save_model()
            self.stacks["sft"] = trainer.prepared.stack
            return {"loss": last.get("loss"), "steps": trainer.global_step, "tokens": trainer.num_tokens, "rows": len(rows)}

        self.stages.run("sft", self._inputs("sft", ["starter"], rows, options), work, planned_seconds=planned_seconds)
        return self._loaded("sft")

    def reward(self, name: str = "reward", *, heldout: bool = False, planned_seconds: float | None = None) -> RewardModel:
        """Learn the comparisons (or the held-out half) with heads on the frozen SFT model, or a LoRA adapter when the settings say so."""
        from accord.methods.reward import RewardTrainer

        options = self.settings.reward
        if self.settings.feature_depth is not None:
            options = {**options, "feature_layer": max(1, round(self.settings.feature_depth * self.policy.num_layers))}
        train, test = (self.data.comparisons, self.data.heldout_comparisons)[:: -1 if heldout else 1]

        def work(folder: Path, resume: bool) -> dict[str, Any]:
            config = RewardConfig(
                output_dir=str(folder), seed=self.settings.seed + (1 if heldout else 0), **{**options, "normalise": False}
            )
            frozen = config.backbone == "heads"
            shared = self._features if frozen else None
            trainer = RewardTrainer(
                self.policy,
                config,
                list(train),
                processing_class=self.tokenizer,
                peft_config=None if frozen else self.lora(),
                known_features=shared,
                start=self.stacks["sft"],
            )
            trainer.train(resume_from_checkpoint=_checkpoint(folder, resume))
            trainer.normalise(rollout_units(self._reference_answers()))
            trainer.save_model()
            result: dict[str, Any] = {"pairs": len(train), "tested_on": len(test)}
            if test:
                pairs = pairs_of(test, self.say, f"{name}, tested")
                result["test"] = accuracy_table(trainer.reward_model, self.renderer, pairs, shared)
            return result

        self.stages.run(name, self._inputs(name, ["sft"], [*train, *test], options), work, planned_seconds=planned_seconds)
        return RewardModel.load(self.policy, self.stages.folder / name, self.renderer)

    def _reference_answers(self) -> list[Rollout]:
        """Answers of the SFT policy to some training prompts: rewards are given mean 0 and variance 1 on them. Sampled once.

        The prompts are the same whichever reward model asks first, so that a run that is stopped between two of them ends the same.
        """
        if not self._reference:
            self._reference = reference_answers(
                self.policy, self.renderer, self.stacks["sft"], self.data.comparisons, self._sampling(1), seed=self.settings.seed
            )
        return self._reference

    def ppo(self, reward: RewardModel | list[Any], *, planned_seconds: float | None = None) -> Stack:
        """Maximise the reward (or the sum of several) near the SFT policy. Adds the stack `ppo`."""
        from accord.methods.ppo import PPOTrainer

        options = self.settings.ppo

        def work(folder: Path, resume: bool) -> dict[str, Any]:
            config = PPOConfig(max_new_tokens=self.settings.max_new_tokens, **self._online(folder), **options)
            trainer = PPOTrainer(
                config,
                self.tokenizer,
                self.policy,
                reward,
                list(self.data.prompts),
                peft_config=self.lora(),
                start=self.stacks["sft"],
            )
            self._begin(trainer.stack)
            last = trainer.train(resume_from_checkpoint=_checkpoint(folder, resume))
            trainer.save_model()
            self.stacks["ppo"] = trainer.stack
            rows = [row for row in trainer.log_history if "objective/kl" in row]
            return {
                "iterations": [{k: v for k, v in row.items() if "/" in k} for row in rows],
                "last": last,
                "prompts": len(trainer.prompts),
                **watched(folder),
            }

        self.stages.run(
            "ppo", self._inputs("ppo", self._online_parents(), self.data.prompts, options), work, planned_seconds=planned_seconds
        )
        return self._loaded("ppo")

    def grpo(self, reward: RewardModel, *, planned_seconds: float | None = None) -> Stack:
        """The same without a critic. Adds the stack `grpo`."""
        from accord.methods.grpo import GRPOTrainer

        options = self.settings.grpo

        def work(folder: Path, resume: bool) -> dict[str, Any]:
            config = GRPOConfig(max_completion_length=self.settings.max_new_tokens, **self._online(folder), **options)
            prompts, start = list(self.data.prompts), self.stacks["sft"]
            trainer = GRPOTrainer(
                self.policy, reward, config, prompts, processing_class=self.tokenizer, peft_config=self.lora(), start=start
            )
            self._begin(trainer.stack)
            last = trainer.train(resume_from_checkpoint=_checkpoint(folder, resume))
            trainer.save_model()
            self.stacks["grpo"] = trainer.stack
            rows = [row for row in trainer.log_history if "reward" in row]
            return {
                "iterations": [{k: v for k, v in row.items() if "/" in k or k.startswith("reward")} for row in rows],
                "last": last,
                "prompts": len(trainer.prompts),
                **watched(folder),
            }

        self.stages.run(
            "grpo", self._inputs("grpo", self._online_parents(), self.data.prompts, options), work, planned_seconds=planned_seconds
        )
        return self._loaded("grpo")

    def dpo(self, *, planned_seconds: float | None = None) -> Stack:
        """Preferences straight into the policy. Adds the stack `dpo`."""
        from accord.methods.dpo import DPOTrainer

        options = self.settings.dpo
        pairs = self._dpo_pairs()
        test = [row for row in pairs_of(self.data.heldout_comparisons, self.say, "dpo, tested") if row.probability != 0.5]

        def work(folder: Path, resume: bool) -> dict[str, Any]:
            config = DPOConfig(output_dir=str(folder), seed=self.settings.seed, **options)
            trainer = DPOTrainer(
                self.policy, None, config, pairs, test or None, self.tokenizer, peft_config=self.lora(), start=self.stacks["sft"]
            )
            last = trainer.train(resume_from_checkpoint=_checkpoint(folder, resume))
            trainer.save_model()
            self.stacks["dpo"] = trainer.prepared.stack
            return {
                "last": last,
                "heldout": trainer.evaluate(),
                "pairs": len(pairs),
                "tested_on": len(test),
                "history": trainer.log_history,
            }

        self.stages.run("dpo", self._inputs("dpo", ["sft"], [*pairs, *test], options), work, planned_seconds=planned_seconds)
        return self._loaded("dpo")

    def _dpo_pairs(self) -> list[Example]:
        rows = list(self.data.comparisons)
        pairs = [row for row in rows if row.kind == "preference"]
        if self.settings.rankings_in_dpo or len(pairs) == len(rows):
            return pairs_of(rows, self.say, "dpo")
        self.say(f"dpo: learns from {len(pairs)} pairs; {len(rows) - len(pairs)} rankings are left to the reward model.")
        return pairs

    def _loaded(self, name: str) -> Stack:
        if name not in self.stacks:
            self.stacks[name] = load_stack(self.policy, self.stages.folder / name)
        return self.stacks[name]

    # -- looking ------------------------------------------------------------------------------------------------------------------------

    def answers(self, who: str, prompts: Sequence[Example], *, num_samples: int = 1) -> list[Rollout]:
        """Sample answers of one of the stacks, at the temperature it was trained with."""
        return sample_answers(self.policy, self.renderer, self.stacks[who], prompts, self._sampling(num_samples))

    def _sampling(self, num_samples: int) -> SamplingConfig:
        return SamplingConfig(self.settings.max_new_tokens, num_samples, self.settings.temperature, seed=self.settings.seed + 1000)

    @torch.no_grad()
    def measure(
        self, table: Mapping[str, Sequence[Rollout]], rewards: Mapping[str, RewardModel], reference: str = "sft"
    ) -> dict[str, dict[str, list[float]]]:
        """Score answers of several policies to the same prompts, each prompt read once.

        Args:
            table: answers by policy, in the same order of prompts.
            rewards: reward models by name.
        Returns:
            by policy: a list for each reward, and `kl`: log pi(y) - log ref(y), whose mean estimates the KL in nats an answer.
        """
        units = [
            Unit(row[0].prompt_ids, tuple(Branch(rollout.completion_ids) for rollout in row), row[0].prompt_id)
            for row in zip(*table.values(), strict=True)
        ]
        stack = self.stacks[reference]
        along = {name: model for name, model in rewards.items() if model.stack == stack}
        readings = tuple(dict.fromkeys(model.heads.reading for model in along.values()))
        found: dict[str, list[float]] = {name: [] for name in ("reference", *rewards)}
        for part in split_by_budget(units, 2048):
            batch = pack(part, self.policy.device)
            out = self.policy.forward(batch, stack, Want(ends=readings), temperature=self.settings.temperature)
            assert out.logprobs is not None
            found["reference"] += segment_sum(out.logprobs, batch.completion, batch.num_completions).tolist()
            for name, model in along.items():
                found[name] += model.heads(out.ends[readings.index(model.heads.reading)]).mean(1).tolist()
        for name, model in rewards.items():
            if name not in along:
                found[name] = model.score(units).mean(1).tolist()
        result = {}
        for index, (who, rollouts) in enumerate(table.items()):
            mine = {name: values[index :: len(table)] for name, values in found.items()}
            reference_sums = mine.pop("reference")
            result[who] = {
                **mine,
                "kl": [sum(rollout.sampler_logprobs) - value for rollout, value in zip(rollouts, reference_sums, strict=True)],
            }
        return result


def _checkpoint(folder: Path, resume: bool) -> bool | None:
    from accord.training import checkpoint

    return True if resume and checkpoint.folders(folder) else None
