"""Does GRPO teach a small model to reason, or would any reward have done it? Arithmetic in visible steps, with control arms.

    python benchmarks/reasoning.py --arms true:42 true:43 true:44 random:42 format-only:42 best-of:42
    python benchmarks/reasoning.py --arms true:42 --svamp ../shared/data/svamp

The start is the starter model after SFT on a few worked solutions: it knows the form, not the arithmetic. Every arm goes on from it with
the same prompts and the same number of sampled answers, and is judged on the same held-out problems, one greedy answer each. `best-of` is
rejection-sampling fine-tuning on as many sampled tokens. Stages already done are skipped, so an interrupted run goes on. Results go to
`benchmarks/results/reasoning.json`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accord import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from accord.data.arithmetic import arithmetic_prompts, arithmetic_solutions, chains
from accord.data.read import read_examples
from accord.evaluation.intervals import paired_bootstrap, wilson
from accord.methods.prompts import as_prompt
from accord.models.lora import lora_config
from accord.models.opened import Opened, open_model
from accord.recipes.stages import Stages, peak_rss_gb
from accord.rewards.accuracy import AccuracyReward
from accord.rewards.combine import RewardSource
from accord.rewards.controls import control as controlled
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import SamplingConfig
from accord.types import Example, Rollout, Score

MODEL = "smollm2-135m"
TASK: dict[str, Any] = {"steps": (2, 3), "largest": 9, "largest_factor": 4, "limit": 60}
WORKED, PRACTICE, HELD_OUT = 96, 1500, 500
LONGEST = 48
SFT: dict[str, Any] = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "learning_rate": 5e-4, "logging_steps": 4}
GRPO: dict[str, Any] = {
    "num_generations": 8,
    "per_device_train_batch_size": 64,
    "max_completion_length": LONGEST,
    "learning_rate": 1e-3,
    "loss_type": "token_mean",
    "scale_rewards": "batch",
    "logging_steps": 1,
    "save_steps": 10,
    "save_total_limit": 1,
}
FORM = re.compile(r"(?:^.*=.*\n)+#### -?\d+\s*$", re.MULTILINE)
FORM_SHARE = 0.1
"""What the form alone is worth: a line with an equation for a step, the answer behind ####."""


class FormReward:
    """1 where an answer has the form of a worked solution, whatever it says."""

    name, weight = "format", FORM_SHARE

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        return [Score(float(bool(FORM.fullmatch(rollout.text.strip())))) for rollout in rollouts]


def rewards(control: str, seed: int) -> list[RewardSource]:
    """Right answers, and a little for the form; or a control in their place."""
    sources: list[RewardSource] = [AccuracyReward("numeric"), FormReward()]
    return sources if control == "true" else [controlled(control, sources, seed=seed)]


def start(folder: Path, *, worked: bool) -> str:
    """The model after SFT on a few solutions: worked ones, or answers alone."""
    done = folder / "adapter_model.safetensors"
    if not done.exists():
        opened = open_model(MODEL)
        rows = arithmetic_solutions(chains(WORKED, seed=1, split="train", **TASK), worked=worked)
        trainer = SFTTrainer(
            opened.policy,
            SFTConfig(output_dir=str(folder), seed=1, **SFT),
            rows,
            processing_class=opened.tokenizer,
            peft_config=adapter(opened),
        )
        trainer.train()
        trainer.save_model()
    return str(folder)


def adapter(opened: Opened) -> Any:
    return lora_config(opened.policy, rank=16, alpha=32, layers=0.5)


def judged(opened: Opened, rows: Sequence[Example], *, longest: int = LONGEST) -> list[dict[str, Any]]:
    """One greedy answer to each problem, and whether it is right."""
    sampler = LocalSampler(opened.policy, opened.renderer, opened.stack)
    prompts = [as_prompt(row, opened.renderer) for row in rows]
    rollouts = sampler.sample(prompts, SamplingConfig(longest, 1, temperature=0.0))
    scores = AccuracyReward("numeric").score(rollouts)
    return [
        {"right": score.value, "form": bool(FORM.fullmatch(r.text.strip())), "tokens": len(r.completion_ids), "text": r.text}
        for r, score in zip(rollouts, scores, strict=True)
    ]


def trained(arm: str, seed: int, base: str, folder: Path, steps: int) -> dict[str, Any]:
    """One arm: reward by step, sampled tokens."""
    opened = open_model(base)
    prompts = arithmetic_prompts(chains(PRACTICE, seed=2, split="train", **TASK))
    config = GRPOConfig(output_dir=str(folder), seed=seed, max_steps=steps, **GRPO)
    trainer = GRPOTrainer(
        opened.policy, rewards(arm, seed), config, prompts, processing_class=opened.tokenizer, peft_config=adapter(opened)
    )
    trainer.train(resume_from_checkpoint=True if any(folder.glob("checkpoint-*")) else None)
    trainer.save_model()
    history = [row for row in trainer.log_history if "reward" in row]
    sampled = sum(len(json.loads(line)["completion_ids"]) for line in (folder / "rollouts.jsonl").read_text(encoding="utf-8").splitlines())
    return {
        "reward": [round(row["reward"], 3) for row in history],
        "right": [round(row.get("rewards/accuracy/mean", float("nan")), 3) for row in history],
        "zero std": [round(row["frac_reward_zero_std"], 2) for row in history],
        "sampled tokens": sampled,
    }


def best_of(seed: int, base: str, folder: Path, steps: int) -> dict[str, Any]:
    """Rejection-sampling fine-tuning on as many sampled answers: the right ones are learned, once."""
    opened = open_model(base)
    rows = arithmetic_prompts(chains(PRACTICE, seed=2, split="train", **TASK))
    count = GRPO["per_device_train_batch_size"] * steps // GRPO["num_generations"]
    chosen = [rows[i % len(rows)] for i in range(count)]
    sampler = LocalSampler(opened.policy, opened.renderer, opened.stack)
    kept: list[dict[str, Any]] = []
    sampled = 0
    for number, part in enumerate(chosen[i : i + 64] for i in range(0, len(chosen), 64)):
        rollouts = sampler.sample(
            [as_prompt(row, opened.renderer) for row in part], SamplingConfig(LONGEST, GRPO["num_generations"], seed=seed, step=number)
        )
        sampled += sum(len(rollout.completion_ids) for rollout in rollouts)
        first: dict[str, Rollout] = {}
        for rollout, score in zip(rollouts, AccuracyReward("numeric").score(rollouts), strict=True):
            if score.value:
                first.setdefault(rollout.prompt_id, rollout)
        kept += [{"prompt": r.prompt[-1].content, "completion": r.text} for r in first.values()]
    config = SFTConfig(output_dir=str(folder), seed=seed, **{**SFT, "num_train_epochs": 1})
    trainer = SFTTrainer(opened.policy, config, kept, processing_class=opened.tokenizer, peft_config=adapter(opened))
    trainer.train()
    trainer.save_model()
    return {"kept": len(kept), "asked": count, "sampled tokens": sampled}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=["true:42", "true:43", "true:44", "random:42", "format-only:42", "best-of:42"])
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps of 64 answers")
    parser.add_argument("--svamp", type=Path, help="folder with SVAMP: 300 of its problems before and after")
    parser.add_argument("--work", type=Path, default=Path("runs/reasoning"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "reasoning.json")
    given = parser.parse_args()
    stages = Stages(given.work, lambda text: print(text, file=sys.stderr, flush=True))
    held_out = arithmetic_prompts(chains(HELD_OUT, seed=3, split="heldout", **TASK))
    results = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}
    about = {"model": MODEL, "task": {k: list(v) if isinstance(v, tuple) else v for k, v in TASK.items()}, "sft": SFT, "worked": WORKED}

    def look(name: str, model: str, rows: Sequence[Example] = held_out, **key: Any) -> list[dict[str, Any]]:
        def work(_: Path, resume: bool) -> dict[str, Any]:
            return {"answers": judged(open_model(model), rows, longest=LONGEST if rows is held_out else 160)}

        return stages.run(f"look-{name}", {**about, "model": model, **key}, work)["answers"]

    base = start(given.work / "start", worked=True)
    direct = start(given.work / "direct", worked=False)
    before = {"starter": look("starter", MODEL), "direct": look("direct", direct), "start": look("start", base)}
    for name, answers in before.items():
        results[name] = share(answers)
    for arm in given.arms:
        kind, _, number = arm.partition(":")
        seed = int(number or 42)
        key = {**about, "arm": kind, "seed": seed, "grpo": GRPO, "steps": given.steps}

        def work(folder: Path, resume: bool, kind: str = kind, seed: int = seed) -> dict[str, Any]:
            if kind == "best-of":
                return best_of(seed, base, folder, given.steps)
            return trained(kind, seed, base, folder, given.steps)

        name = f"{kind}-{seed}"
        curve = stages.run(name, key, work)
        after = look(name, str(given.work / name), arm=key)
        gain = paired_bootstrap([a["right"] - b["right"] for a, b in zip(after, before["start"], strict=True)])
        results[arm] = {**share(after), "gain": points(gain), **curve, "seconds": round(stages.records[-2]["seconds"])}
        keep(given.results, results)
        print(arm, json.dumps({k: v for k, v in results[arm].items() if k not in ("reward", "right", "zero std")}), flush=True)
    if given.svamp:
        rows = [replace(row, kind="prompt", completions=()) for row in read_examples(str(given.svamp))][:300]
        svamp = {name: look(f"svamp-{name}", model, rows) for name, model in (("start", base), ("true-42", str(given.work / "true-42")))}
        results["svamp"] = {name: share(answers) for name, answers in svamp.items()}
    results["peak GB"] = round(peak_rss_gb(), 2)
    keep(given.results, results)


def share(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Right answers with their interval, those in the asked form, mean length."""
    count = len(answers)
    right = wilson(sum(answer["right"] for answer in answers) / count, count)
    return {
        "right": f"{100 * right.mean:.1f} % ({100 * right.low:.1f} to {100 * right.high:.1f})",
        "form": round(sum(answer["form"] for answer in answers) / count, 3),
        "tokens": round(sum(answer["tokens"] for answer in answers) / count, 1),
    }


def points(interval: Any) -> str:
    return f"{100 * interval.mean:+.1f} points ({100 * interval.low:+.1f} to {100 * interval.high:+.1f}, {interval.count} problems)"


def keep(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
