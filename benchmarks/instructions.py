"""Does GRPO teach a small model to keep to instructions that a program can check? With a coin as the control.

    python benchmarks/instructions.py --arms true:42 random:42

The start is the starter model as it is. The reward is the share of a prompt's constraints that hold; the 500 held-out prompts are about other
topics, get one greedy answer each, and count only where every constraint holds. An arm is one run; what is asked of it is what
`benchmarks/reasoning.py` asks. Stages already done are skipped and one that was stopped goes on, so the command may be cut off and given
again. Results go to `benchmarks/results/instructions.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from peak import machine
from reasoning import against_controls, checked, found_of, keep, share

from accord import GRPOConfig, GRPOTrainer
from accord.data.instructions import constraint_prompts
from accord.methods.prompts import as_prompt
from accord.models.lora import lora_config
from accord.models.opened import open_model
from accord.recipes.reasoning import gain, in_points
from accord.recipes.stages import Stages, peak_rss_gb
from accord.rewards.constraints.reward import ConstraintReward
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import SamplingConfig

MODEL, LONGEST, PRACTICE, HELD_OUT = "smollm2-135m", 48, 1500, 500
GRPO: dict[str, Any] = {
    "num_generations": 8,
    "per_device_train_batch_size": 48,
    "learning_rate": 1e-3,
    "loss_type": "token_mean",
    "scale_rewards": "batch",
    "save_steps": 10,
    "save_total_limit": 1,
}


def practise(folder: Path, arm: str, seed: int, steps: int, *, resume: bool) -> dict[str, Any]:
    """GRPO from the starter; what it earned step by step."""
    opened = open_model(MODEL)
    config = GRPOConfig(
        output_dir=str(folder),
        seed=seed,
        max_completion_length=LONGEST,
        max_steps=steps,
        control="none" if arm == "true" else arm,
        **GRPO,
    )
    trainer = GRPOTrainer(
        opened.policy,
        [ConstraintReward(name="constraints")],
        config,
        constraint_prompts(PRACTICE, seed=2),
        processing_class=opened.tokenizer,
        peft_config=lora_config(opened.policy, rank=16, alpha=32, layers=0.5),
    )
    trainer.train(resume_from_checkpoint=True if resume and any(folder.glob("checkpoint-*")) else None)
    trainer.save_model()
    part = "rewards/constraints/mean" if arm == "true" else f"rewards/{arm}/constraints/mean"
    history = [row for row in trainer.log_history if "reward" in row]
    return {name: [row[key] for row in history] for name, key in (("kept", part), ("length", "completions/mean_length"))}


def answers(model: str) -> list[dict[str, Any]]:
    """The likeliest answer to each held-out prompt, and whether all of its constraints hold."""
    opened = open_model(model)
    prompts = [as_prompt(row, opened.renderer) for row in constraint_prompts(HELD_OUT, seed=3, held_out=True)]
    rollouts = LocalSampler(opened.policy, opened.renderer, opened.stack).sample(prompts, SamplingConfig(LONGEST, 1, temperature=0.0))
    graded = zip(rollouts, ConstraintReward(all_or_nothing=True).score(rollouts), strict=True)
    return [
        {"prompt": r.prompt[-1].content, "text": r.text, "tokens": len(r.completion_ids), "right": bool(score.value)} for r, score in graded
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=["true:42", "random:42"])
    parser.add_argument("--steps", type=int, default=45, help="optimizer steps of 48 answers")
    parser.add_argument("--work", type=Path, default=Path("runs/instructions"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "instructions.json")
    given = parser.parse_args()
    stages = Stages(given.work, lambda text: print(text, file=sys.stderr, flush=True))
    about = {"grpo": GRPO, "steps": given.steps, "sizes": [LONGEST, PRACTICE, HELD_OUT]}
    results = json.loads(given.results.read_text(encoding="utf-8")) if given.results.exists() else {}
    before = stages.run("look-starter", {"sizes": about["sizes"]}, lambda *_: {"answers": answers(MODEL)})["answers"]
    results["starter"] = share(before)
    looks: dict[str, list[dict[str, Any]]] = {}
    for arm, kind, seed in [(arm, *checked(arm, given.arms)) for arm in given.arms]:
        if kind in ("format-only", "best-of"):
            raise SystemExit(f"{arm} is an arm of benchmarks/reasoning.py alone.")
        name = f"{kind}-{seed}"
        curve = stages.run(
            name,
            {**about, "arm": arm},
            lambda folder, resume, kind=kind, seed=seed: practise(folder, kind, seed, given.steps, resume=resume),
        )
        seconds = round(stages.records[-1]["seconds"])
        done = stages.run(f"look-{name}", {**about, "arm": arm}, lambda *_, name=name: {"answers": answers(str(given.work / name))})
        after = looks[arm] = done["answers"]
        change = gain(before, after)
        results[arm] = {
            **share(after),
            "gain": in_points(change),
            "clear of zero": change.excludes_zero,
            "run": curve,
            "seconds": seconds,
        }
        results["peak GB"] = round(peak_rss_gb(), 2)
        results["machine"] = machine()
        keep(given.results, results)
        print(arm, json.dumps({key: value for key, value in results[arm].items() if key != "run"}), flush=True)
    against = against_controls(looks)
    results |= {name: {"gain": in_points(change), "clear of zero": change.excludes_zero} for name, change in against.items()}
    results["asked and found"] = found_of(before, looks, against, {arm: results[arm]["seconds"] for arm in looks})
    print(json.dumps(results["asked and found"], indent=1))
    keep(given.results, results)


if __name__ == "__main__":
    main()
