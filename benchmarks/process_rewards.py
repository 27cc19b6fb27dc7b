"""Do process rewards help a small model choose among its own answers? Training, first errors found, best-of-16, and the filler attack.

    python benchmarks/process_rewards.py --data ../shared/data

A process reward model learns from generated arithmetic with planted errors and BIG-Bench-Mistake's arithmetic; an outcome reward model from
the same solutions, their last step alone. Both are asked about solutions they have not seen, ProcessBench's GSM8K part among them, and choose
among 16 sampled answers to held-out problems of the model of `benchmarks/reasoning.py` (SFT on a few worked solutions). Stages already done
are skipped. Results go to `benchmarks/results/process_rewards.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from reasoning import keep

from accord import PRMConfig, PRMTrainer
from accord.data.arithmetic import chains, planted_errors
from accord.data.read import read_examples
from accord.evaluation.intervals import paired_bootstrap
from accord.evaluation.process import first_error_table, labelled_first_error, process_bench
from accord.methods.prompts import as_prompt
from accord.models.opened import open_model
from accord.objectives.process import log_odds, minimum, softmin_return
from accord.objectives.selection import best_of_n, majority_vote, pass_at_k, weighted_vote
from accord.recipes.reasoning import Settings, adapter, imitate, in_points, problems
from accord.recipes.stages import Stages, peak_rss_gb
from accord.rewards.accuracy import AccuracyReward
from accord.rewards.process import ProcessRewardModel
from accord.rollouts.collect import collect
from accord.rollouts.local import LocalSampler
from accord.rollouts.sampler import SamplingConfig
from accord.types import Example, Rollout

MISTAKES = "bigbench_mistake_arith/multistep_arithmetic.jsonl"
BENCH = "processbench_gsm8k/gsm8k.json"
SOLUTIONS, TESTED, ANSWERS = 1500, 400, 16
SETTINGS = Settings(seed=1)
JUDGE: dict[str, Any] = {
    "backbone": "lora",
    "num_train_epochs": 1,
    "per_device_train_batch_size": 16,
    "learning_rate": 3e-4,
    "head_width": 32,
    "logging_steps": 10,
    "save_steps": 0,
}
FILLER = "So far everything is in order."


def solutions(data: Path) -> list[Example]:
    """What both judges learn from: every label, those after an error too (the outcome model needs the last)."""
    made = planted_errors(chains(SOLUTIONS, seed=11, split="train", **SETTINGS.task), seed=11, after="wrong")
    return [*made, *(row for row in read_examples(str(data / MISTAKES)) if row.kind == "steps")]


def trained(base: str, data: Path, folder: Path, *, outcome: bool) -> dict[str, Any]:
    """A judge of steps, or of whole solutions by their last step."""
    opened = open_model(base)
    config = PRMConfig(output_dir=str(folder), seed=5, train_on_last_step_only=outcome, **JUDGE)
    rows = solutions(data)
    trainer = PRMTrainer(opened.policy, config, rows, processing_class=opened.tokenizer, peft_config=adapter(SETTINGS, opened))
    last = trainer.train()
    trainer.save_model()
    return {"rows": len(rows), "accuracy": last["accuracy"], "steps": trainer.global_step}


def judge(base: str, folder: Path) -> ProcessRewardModel:
    opened = open_model(base)
    return ProcessRewardModel.load(opened.policy, folder, opened.renderer)


def step_accuracy(model: ProcessRewardModel, rows: Sequence[Example]) -> dict[str, float]:
    """Share of steps up to the first error that are called what they are, wrong ones and right ones apart."""
    scores = model.score_solutions([row.prompt for row in rows], [[m.content for m in row.completions[0].messages] for row in rows])
    found: dict[int, list[bool]] = {1: [], -1: []}
    for row, own in zip(rows, scores, strict=True):
        for label, value in zip(row.step_labels or (), own.tolist(), strict=False):
            if label in found:
                found[label].append((value >= 0.5) == (label == 1))
            if label == -1:
                break
    return {"right steps": share(found[1]), "wrong steps": share(found[-1])}


def baselines(rows: Sequence[Example]) -> dict[str, float]:
    """F1 on first errors of a judge that finds none, and of one that guesses a step (or none) at random."""
    labelled = [error for row in rows if (error := labelled_first_error(row.step_labels or ())) is not None]
    known = [row for row in rows if labelled_first_error(row.step_labels or ()) is not None]
    dice = random.Random(0)
    guesses = [dice.randrange(-1, len(row.completions[0].messages)) for row in known]
    return {
        "always right": first_error_table([-1] * len(labelled), labelled)["f1"],
        "random": first_error_table(guesses, labelled)["f1"],
    }


def chosen(groups: list[list[Rollout]], right: torch.Tensor, judges: dict[str, ProcessRewardModel]) -> dict[str, Any]:
    """Success of each way to choose among the answers, and differences with intervals over problems."""
    flat = [rollout for group in groups for rollout in group]
    ways: dict[str, list[float]] = {"one answer": right.mean(1).tolist()}
    stated = [[rollout.text.rsplit("####", 1)[-1].strip() for rollout in group] for group in groups]
    worth = [dict(zip(names, row.tolist(), strict=True)) for names, row in zip(stated, right, strict=True)]
    ways["majority"] = [values[str(majority_vote(names))] for names, values in zip(stated, worth, strict=True)]
    for name, model in judges.items():
        scores = model.score_whole(flat, "min" if name == "process" else "last")
        table = torch.tensor([float("-inf") if score.value is None else score.value for score in scores]).view(len(groups), -1)
        ways[f"best by {name}"] = best_of_n(table, right, n=ANSWERS).tolist()
        weights = table.clamp_min(0).tolist()
        ways[f"vote by {name}"] = [
            values[str(weighted_vote(names, own))] for names, own, values in zip(stated, weights, worth, strict=True)
        ]
    ways["any right"] = pass_at_k(right, k=ANSWERS).tolist()
    found: dict[str, Any] = {name: f"{100 * sum(values) / len(values):.1f} %" for name, values in ways.items()}
    for other in ("majority", "best by outcome"):
        gain = paired_bootstrap([a - b for a, b in zip(ways["best by process"], ways[other], strict=True)])
        found[f"best by process minus {other}"] = in_points(gain)
    return found


def attack(model: ProcessRewardModel, rows: Sequence[Example]) -> dict[str, str]:
    """Ten filler steps behind every solution: what that adds to each way to make one number of the steps."""
    plain = [[m.content for m in row.completions[0].messages] for row in rows]
    padded = [[*steps, *[FILLER] * 10] for steps in plain]
    before, after = (model.score_solutions([row.prompt for row in rows], texts) for texts in (plain, padded))
    found = {}
    ways = {"sum of log-odds": log_odds, "minimum": minimum, "softmin": lambda v, s: softmin_return(v, s, temperature=0.1)}
    for name, way in ways.items():
        values = [
            way(torch.cat(own).cpu(), torch.repeat_interleave(torch.arange(len(own)), torch.tensor([len(v) for v in own])))
            for own in (before, after)
        ]
        difference = (values[1] - values[0]).tolist()
        found[name] = f"{sum(difference) / len(difference):+.3f} (raised in {100 * share([d > 0 for d in difference]):.0f} %)"
    return found


def share(flags: Sequence[bool]) -> float:
    return round(sum(flags) / max(1, len(flags)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds bigbench_mistake_arith and processbench_gsm8k")
    parser.add_argument("--work", type=Path, default=Path("runs/process-rewards"))
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "process_rewards.json")
    given = parser.parse_args()
    stages = Stages(given.work, lambda text: print(text, file=sys.stderr, flush=True))
    stages.run("judged", {"settings": SETTINGS.__dict__}, lambda folder, _: imitate(SETTINGS, folder))
    base = str(given.work / "judged")
    about = {"task": SETTINGS.task, "judge": JUDGE, "solutions": SOLUTIONS}
    results: dict[str, Any] = {}
    for name in ("process", "outcome"):
        results[name] = stages.run(
            f"judge-{name}",
            {**about, "name": name},
            lambda folder, _, name=name: trained(base, given.data, folder, outcome=name == "outcome"),
        )
    tested = planted_errors(chains(TESTED, seed=12, split="heldout", **SETTINGS.task), seed=12)
    bench = [row for row in read_examples(str(given.data / BENCH)) if row.kind == "steps"]
    model = judge(base, given.work / "judge-process")
    results["held-out steps"] = step_accuracy(model, tested)
    results["held-out first errors"] = {**process_bench(model, tested), **baselines(tested)}
    results["ProcessBench GSM8K"] = {**process_bench(model, bench), **baselines(bench)}
    results["ten filler steps add"] = attack(model, tested)
    keep(given.results, results)
    opened = open_model(base)
    prompts = [as_prompt(row, opened.renderer) for row in problems(replace(SETTINGS, held_out=given.problems), held_out=True)]
    sampler = LocalSampler(opened.policy, opened.renderer, opened.stack)
    groups = collect(sampler, prompts, SamplingConfig(SETTINGS.longest, ANSWERS, seed=9), given.work / "best-of.jsonl")
    grader = AccuracyReward("numeric")
    right = torch.tensor([[float(score.value or 0) for score in grader.score(group)] for group in groups], dtype=torch.float64)
    judges = {"process": model, "outcome": judge(base, given.work / "judge-outcome")}
    results[f"choosing among {ANSWERS} answers to {len(groups)} problems"] = chosen(groups, right, judges)
    results["peak GB"] = round(peak_rss_gb(), 2)
    keep(given.results, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
