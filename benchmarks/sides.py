"""The two sides of `vs_trl.py`: one class a library, each with the same methods, in a process of its own.

Both get the same weights (the starter's, and LoRA weights with B != 0 drawn from the name of each tensor), the same rows through the same
chat template (without the newline after the end token, which accord does not learn from) and the same optimizer.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from job import ANSWER, BETA, CLIP, DECAY, EPSILON, GROUP, PROMPTS, RATE, Job, Setting, group_of, lora, make, rows_of, shake, vowels
from torch import Tensor


class Side:
    """What the driver asks of a worker."""

    trained: dict[str, Any]
    optimizer: torch.optim.Optimizer

    def step(self, rows: Sequence[int]) -> dict[str, float]:
        """One whole optimizer step on these rows (or one round of sampling)."""
        raise NotImplementedError

    def gradient(self, rows: Sequence[int]) -> tuple[float, dict[str, Tensor]]:
        """Loss and gradients of the start, without a step."""
        raise NotImplementedError

    def counts(self, rows: Sequence[int]) -> dict[str, float]:
        """Tokens through the model, of which padding and counted; useful work is counted by the driver."""
        return {}


class Accord(Side):
    """accord's own trainers."""

    def __init__(self, job: Job, setting: Setting, folder: Path) -> None:
        from accord import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
        from accord.models.adapters import PolicyModel
        from accord.training.loop import StepBatch

        self.job, self.StepBatch = job, StepBatch
        model, self.tokenizer = make(job)
        self.rows = rows_of(job, self.tokenizer)
        self.policy = PolicyModel(model)
        data = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in self.rows]
        common: dict[str, Any] = {
            "output_dir": str(folder), "learning_rate": RATE, "weight_decay": DECAY, "adam_epsilon": EPSILON, "max_grad_norm": CLIP,
            "max_length": job.max_length, "max_steps": 1000, "lr_scheduler_type": "constant",
        }  # fmt: skip
        self.trainer: Any
        if job.method == "sft":
            data = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in data]
            self.trainer = SFTTrainer(self.policy, SFTConfig(**common), data, processing_class=self.tokenizer, peft_config=lora())
        elif job.method == "reward":
            config = RewardConfig(num_heads=1, normalise=False, **common)
            self.trainer = RewardTrainer(self.policy, config, data, processing_class=self.tokenizer, peft_config=lora())
            self.trainer.heads.weight.data.copy_(torch.full_like(self.trainer.heads.weight, 0.02))
        else:
            if job.method in ("update", "rollout", "ppo"):
                self._start_ppo(common, data)
            elif job.method == "grpo":
                self._start_grpo(common, data)
            else:
                self.trainer = DPOTrainer(self.policy, None, DPOConfig(beta=BETA, **common), data, None, self.tokenizer, peft_config=lora())
        if job.method in ("dpo", "reward", "sft"):
            self.trainer.prepare_units(self.trainer.train_units)
        self.trainer._build_optimizer()
        self.trained = shake(dict(self.policy.model.named_parameters()))

    def _start_ppo(self, common: dict[str, Any], data: list[dict[str, Any]]) -> None:
        from accord import PPOConfig, PPOTrainer

        config = PPOConfig(
            num_iterations=1000, prompts_per_iteration=PROMPTS, num_generations=GROUP, max_new_tokens=ANSWER, temperature=1.0, vf_coef=0.0,
            num_ppo_epochs=1, num_mini_batches=1, **{k: v for k, v in common.items() if k != "max_steps"},
        )  # fmt: skip
        prompts = [{"prompt": row["prompt"]} for row in data]
        self.trainer = PPOTrainer(
            config,
            self.tokenizer,
            self.policy,
            lambda prompts, completions, **_: [float(len(c)) for c in completions],
            prompts,
            peft_config=lora(),
        )

    def _start_grpo(self, common: dict[str, Any], data: list[dict[str, Any]]) -> None:
        from accord import GRPOConfig, GRPOTrainer

        config = GRPOConfig(
            per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP, max_completion_length=ANSWER, loss_type="token_mean",
            scale_rewards="group", skip_step0_checks=True, **common,
        )  # fmt: skip
        prompts = [{"prompt": row["prompt"]} for row in data]
        self.trainer = GRPOTrainer(self.policy, vowels, config, prompts, processing_class=self.tokenizer, peft_config=lora())

    def units(self, rows: Sequence[int]) -> list[Any]:
        if self.job.method != "update":
            return [self.trainer.train_units[row] for row in rows]
        from accord.data.packing import Branch, Unit

        prompt, answers, advantages = group_of(self.job, self.tokenizer, self.rows)
        unit = Unit(tuple(prompt), tuple(Branch(tuple(row.tolist())) for row in answers), "group")
        flat = advantages.repeat_interleave(ANSWER)
        zero = torch.zeros_like(flat)
        unit.data.update(advantages=flat, returns=zero, old_values=zero, states=torch.zeros(len(flat), self.policy.hidden_size))
        if not hasattr(self, "old"):
            from accord.data.packing import pack
            from accord.models.adapters import Want

            with torch.no_grad():
                self.old = self.policy.forward(pack([unit]), self.trainer.stack, Want(logprobs=True)).logprobs
        unit.data.update(old_logprobs=self.old, sampler_logprobs=self.old, ref_logprobs=self.old)  # the step-0 check: it starts from itself
        return [unit]

    def step(self, rows: Sequence[int]) -> dict[str, float]:
        if self.job.method == "rollout":
            return self._roll_out(rows)
        if self.job.method == "grpo":
            return self._whole_round(rows)
        units = self.units(rows)
        started = time.perf_counter()
        found = self.trainer.train_step(self.StepBatch(units))
        return {"seconds": time.perf_counter() - started, "loss": found["loss"], "grad_norm": found["grad_norm"]}

    def _roll_out(self, rows: Sequence[int]) -> dict[str, float]:
        from accord.rollouts.sampler import SamplingConfig

        sampler = self.trainer.sampler
        sampler.renderer.end_ids = ()  # every answer has its full length: the same tokens on both sides
        prompts = [self.trainer.prompts[row] for row in rows]
        config = SamplingConfig(max_new_tokens=ANSWER, num_samples=GROUP, temperature=1.0, seed=int(time.time()))
        started = time.perf_counter()
        rollouts = sampler.sample(prompts, config)
        return {"seconds": time.perf_counter() - started, "loss": 0.0, "tokens": float(sum(len(r.completion_ids) for r in rollouts))}

    def _whole_round(self, rows: Sequence[int]) -> dict[str, float]:
        """Sample, score, compare, update."""
        from dataclasses import replace

        self.trainer.renderer.end_ids = ()
        prompts = [self.trainer.prompts[row] for row in rows]
        started = time.perf_counter()
        units = self.trainer._answer(prompts, replace(self.trainer._sampling(0), seed=int(time.time())))
        learned, _ = self.trainer.learn_from(units)
        found = self.trainer.train_step(self.StepBatch(learned))
        return {"seconds": time.perf_counter() - started, "loss": found["loss"], "grad_norm": found["grad_norm"]}

    def gradient(self, rows: Sequence[int]) -> tuple[float, dict[str, Tensor]]:
        units = self.units(rows)
        totals = self.trainer.totals(units)
        loss = 0.0
        for parameter in self.trained.values():
            parameter.grad = None
        for part in self.trainer.micro_batches(units):
            for value, _ in self.trainer.losses(part, totals):
                if value.requires_grad:
                    value.backward()
                loss += float(value.detach())
        return loss, {name: p.grad.clone() for name, p in self.trained.items() if p.grad is not None}

    def counts(self, rows: Sequence[int]) -> dict[str, float]:
        if self.job.method in ("rollout", "grpo"):
            prompts = [len(self.trainer.prompts[row].ids) for row in rows]
            return {
                "tokens": sum(prompts) + len(rows) * GROUP * ANSWER,
                "padded": sum(prompts) + len(rows) * GROUP * ANSWER,
                "counted": len(rows) * GROUP * ANSWER,
            }
        units = self.units(rows)
        tokens = sum(unit.num_tokens for unit in units)
        counted = 0 if self.job.method == "reward" else sum(unit.num_counted for unit in units)
        return {"tokens": tokens, "padded": tokens, "counted": counted}


class Trl(Side):
    """TRL's own trainers, losses and collators; the step around them is the same as on the other side."""

    def __init__(self, job: Job, setting: Setting, folder: Path) -> None:
        import trl
        from datasets import Dataset

        warnings.filterwarnings("ignore")
        self.job, self.setting = job, setting
        model, self.tokenizer = make(job)
        self.rows = rows_of(job, self.tokenizer)
        data = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in self.rows]
        common: dict[str, Any] = {
            "output_dir": str(folder), "per_device_train_batch_size": setting.batch, "bf16": setting.bf16, "use_cpu": True, "report_to": "none",
            "gradient_checkpointing": setting.checkpointing, "save_strategy": "no", "learning_rate": RATE, "max_length": job.max_length + 8,
        }  # fmt: skip
        given: dict[str, Any] = {"model": model, "processing_class": self.tokenizer, "peft_config": lora()}
        if job.method == "sft":
            data = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in data]
            config = trl.SFTConfig(completion_only_loss=True, loss_type="nll", **common)
            self.trainer: Any = trl.SFTTrainer(args=config, train_dataset=Dataset.from_list(data), **given)
        elif job.method == "reward":
            given |= {"model": classifier(model), "peft_config": lora("SEQ_CLS")}
            self.trainer = trl.RewardTrainer(args=trl.RewardConfig(**common), train_dataset=Dataset.from_list(data), **given)
        elif job.method == "dpo":
            config = trl.DPOConfig(beta=BETA, precompute_ref_log_probs=False, **common)
            self.trainer = trl.DPOTrainer(args=config, train_dataset=Dataset.from_list(data), **given)
            if setting.cached_reference:  # as precompute_ref_log_probs=True, minutes sooner
                chosen, rejected = zip(*reference_sums(job, self.tokenizer, data), strict=True)
                known = self.trainer.train_dataset.add_column("ref_chosen_logps", list(chosen))
                self.trainer.train_dataset = known.add_column("ref_rejected_logps", list(rejected))
                self.trainer.precompute_ref_logps = True
        else:
            del common["max_length"]
            common |= {"per_device_train_batch_size": GROUP, "num_generations": GROUP, "max_completion_length": ANSWER, "beta": 0.0}
            config = trl.GRPOConfig(loss_type="dapo", **common)
            prompts = [{"prompt": row["prompt"]} for row in data]
            self.trainer = trl.GRPOTrainer(
                args=config,
                reward_funcs=vowels,
                train_dataset=Dataset.from_list(prompts),
                **given,
            )
        self.model = self.trainer.model
        self.model.train()
        self.trained = shake(dict(self.model.named_parameters()))
        others = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(others, lr=RATE, weight_decay=DECAY, eps=EPSILON)

    def batches(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        if self.job.method == "update":
            prompt, answers, advantages = group_of(self.job, self.tokenizer, self.rows)
            prompts = torch.tensor([prompt] * GROUP)
            whole = {
                "prompt_ids": prompts, "prompt_mask": torch.ones_like(prompts), "completion_ids": answers,
                "completion_mask": torch.ones_like(answers), "advantages": advantages, "num_items_in_batch": torch.tensor(answers.numel()),
            }  # fmt: skip
            return self._cut(whole, GROUP)
        if self.job.method == "grpo":
            return self._cut(self.sampled, PROMPTS * GROUP)
        data = self.trainer.train_dataset
        return [
            self.trainer.data_collator([data[row] for row in rows[i : i + self.setting.batch]])
            for i in range(0, len(rows), self.setting.batch)
        ]

    def _cut(self, whole: dict[str, Tensor], count: int) -> list[dict[str, Tensor]]:
        """Micro-batches of a generation batch."""
        size = self.setting.batch
        return [{name: value[i : i + size] if value.dim() else value for name, value in whole.items()} for i in range(0, count, size)]

    def _backward(self, rows: Sequence[int]) -> float:
        batches = self.batches(rows)
        labels = sum(int((batch["labels"] != -100).sum()) for batch in batches) if self.job.method == "sft" else 0
        total = 0.0
        for batch in batches:
            with self.trainer.compute_loss_context_manager():
                if self.job.method == "sft":
                    loss = self.trainer.compute_loss(self.model, batch, num_items_in_batch=torch.tensor(labels))
                elif self.job.method in ("update", "grpo"):
                    self.trainer.current_gradient_accumulation_steps = self.trainer.args.steps_per_generation = len(batches)
                    loss = self.trainer._compute_loss(self.model, batch)
                else:
                    loss = self.trainer.compute_loss(self.model, batch) / len(batches)
            loss.backward()
            total += float(loss.detach())
        return total

    def step(self, rows: Sequence[int]) -> dict[str, float]:
        started = time.perf_counter()
        if self.job.method == "rollout":
            return self._roll_out(rows, started)
        if self.job.method == "grpo":
            self.sampled = self._sampled(rows)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(rows)
        norm = torch.nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], CLIP)
        self.optimizer.step()
        return {"seconds": time.perf_counter() - started, "loss": loss, "grad_norm": float(norm)}

    def _roll_out(self, rows: Sequence[int], started: float) -> dict[str, float]:
        found = self._generated(rows)[1]
        return {"seconds": time.perf_counter() - started, "loss": 0.0, "tokens": float(sum(len(one) for one in found))}

    def _sampled(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """What TRL trains on: answers of a round, prompts padded on the left to the longest, rewards compared within groups."""
        prompts, answers = self._generated(rows)
        longest = max(map(len, prompts))
        padding = [longest - len(prompt) for prompt in prompts]
        pad = self.tokenizer.pad_token_id
        texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        rewards = torch.tensor(vowels([[{"role": "assistant", "content": text}] for text in texts])).view(-1, GROUP)
        advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
        # TRL cuts what it sampled at an end token, and pads it again: the same work.
        completions = torch.tensor([answer + [pad] * (ANSWER - len(answer)) for answer in answers])
        counted = torch.tensor([[1] * len(answer) + [0] * (ANSWER - len(answer)) for answer in answers])
        return {
            "prompt_ids": torch.tensor([[pad] * n + list(prompt) for n, prompt in zip(padding, prompts, strict=True)]),
            "prompt_mask": torch.tensor([[0] * n + [1] * len(prompt) for n, prompt in zip(padding, prompts, strict=True)]),
            "completion_ids": completions, "completion_mask": counted,
            "advantages": advantages.flatten(), "num_items_in_batch": counted.sum(),
        }  # fmt: skip

    def _generated(self, rows: Sequence[int]) -> tuple[list[list[int]], list[list[int]]]:
        """Prompts, repeated, and an answer of full length to each."""
        data = self.trainer.train_dataset
        ids = [self.tokenizer.apply_chat_template(data[row]["prompt"], add_generation_prompt=True, return_dict=False) for row in rows]
        self.trainer.generation_config.eos_token_id = None
        self.trainer.generation_config.min_new_tokens = None
        self.model.generation_config.eos_token_id = None
        if self.setting.merged:
            self.model.merge_adapter()
        prompts = [one for one in ids for _ in range(GROUP)]
        found = self.trainer._generate_single_turn(prompts, None, {}, GROUP)
        if self.setting.merged:
            self.model.unmerge_adapter()
        return prompts, [list(one) for one in found[0]]

    def gradient(self, rows: Sequence[int]) -> tuple[float, dict[str, Tensor]]:
        for parameter in self.model.parameters():
            parameter.grad = None
        loss = self._backward(rows)
        return loss, {name: p.grad.float().clone() for name, p in self.trained.items() if p.grad is not None}

    def counts(self, rows: Sequence[int]) -> dict[str, float]:
        if self.job.method in ("rollout", "grpo"):
            return {}
        tokens = padded = 0
        for batch in self.batches(rows):
            ids = batch.get("input_ids", batch.get("completion_ids"))
            mask = batch.get("attention_mask", batch.get("completion_mask"))
            extra = batch["prompt_ids"].numel() if "prompt_ids" in batch else 0
            padded += ids.numel() + extra
            tokens += int(mask.sum()) + extra
        return {"tokens": tokens, "padded": padded}


@torch.no_grad()
def reference_sums(job: Job, tokenizer: Any, data: list[dict[str, Any]]) -> list[tuple[float, ...]]:
    """Log-probs of chosen and rejected under the base, row by row, from a copy of the model."""
    from accord.data.packing import pack
    from accord.data.read import read_examples
    from accord.data.render import Renderer
    from accord.models.adapters import PolicyModel, Want
    from accord.models.tokens import stop_token_ids
    from accord.objectives.segments import segment_sum

    policy = PolicyModel(make(job)[0])
    renderer = Renderer(tokenizer, end_ids=stop_token_ids(tokenizer, policy.model.generation_config), max_length=job.max_length)
    found = []
    for unit in renderer.units(list(read_examples(data))):
        batch = pack([unit])
        logprobs = policy.forward(batch, (), Want(logprobs=True)).logprobs
        assert logprobs is not None
        found.append(tuple(segment_sum(logprobs, batch.completion, 2).tolist()))
    return found


def classifier(base: Any) -> Any:
    """The base as a sequence classifier with the same head as on the other side."""
    from transformers import AutoModelForSequenceClassification

    config = base.config.__class__(**{**base.config.to_dict(), "num_labels": 1})
    made = AutoModelForSequenceClassification.from_config(config).float().eval()
    made.model.load_state_dict(base.model.state_dict())
    with torch.no_grad():
        made.score.weight.fill_(0.02)
    return made


def serve(connection: Any, job: Job, setting: Setting, folder: str) -> None:
    """Run one side: answer (name, arguments) with its result until told to stop."""
    from accord.recipes.stages import peak_rss_gb

    try:
        side = (Accord if setting.library == "accord" else Trl)(job, setting, Path(folder))
        connection.send({"ready": True, "weights": sizes(side, job)})
        while (message := connection.recv()) is not None:
            name, arguments = message
            result = peak_rss_gb() if name == "peak" else getattr(side, name)(*arguments)
            connection.send({"result": result})
    except Exception as error:
        connection.send({"error": f"{type(error).__name__}: {str(error)[:300]}"})
        if not isinstance(error, (RuntimeError, ValueError, TypeError)):
            raise


def sizes(side: Any, job: Job) -> dict[str, int]:
    """Numbers for the FLOP count: weights of linear layers, adapters, LM head."""
    model = side.policy.model if isinstance(side, Accord) else side.model
    layers = sum(p.numel() for name, p in model.named_parameters() if ".layers." in name and p.dim() == 2 and "lora" not in name)
    head = model.get_input_embeddings().weight.numel()
    return {"layers": layers, "adapters": sum(p.numel() for p in side.trained.values()), "head": head}


if __name__ == "__main__":
    print(json.dumps({"note": "run vs_trl.py"}))
